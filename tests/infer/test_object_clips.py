"""Given objects followed from clip to clip: what every clip is shown, who is lost, and what the results say."""

import cv2
import numpy as np
import pytest
from PIL import Image

from vps_jax.config import ClipInference
from vps_jax.datasets.classes import class_table
from vps_jax.infer import clip_predictor, object_clips, predictor
from vps_jax.infer.clip_predictor import ClipPredictor
from vps_jax.infer.object_clips import exemplars
from vps_jax.infer.predict import predict
from vps_jax.infer.upsampling import EXCLUDED
from vps_jax.media import given_objects
from vps_jax.media.sources import open_videos
from vps_jax.types import Geometry, GivenObject, UserError

SIZES = Geometry((64, 128), (64, 96), (32, 48))
INFER = ClipInference(task="vos", clip_frames=4, overlap_frames=2, short_side_px=64)


def box(top, left, *, size=8, shape=(32, 48)):
    mask = np.zeros(shape, bool)
    mask[top : top + size, left : left + size] = True
    return mask


def test_the_first_clip_is_shown_what_the_user_gave():
    objects = [GivenObject(1, "0", mask=box(0, 0)), GivenObject(4, "2", point=np.array([0.5, 0.25])),
               GivenObject(6, "2", mask=box(8, 8)), GivenObject(9, "9", mask=box(0, 0))]  # fmt: skip
    shown = exemplars(objects, [0, 2, 2, 9], np.zeros((4, 0, 16, 32)), SIZES, frames=4)
    assert shown.rows == (0, 2, 1)  # masks first, the last object comes later
    assert shown.arrays["frames"].tolist() == [[0, 2]] and shown.arrays["masks"].shape == (1, 2, 2, 64, 128)
    areas = shown.arrays["masks"].sum(axis=(3, 4))[0]
    assert areas.tolist() == [[16 * 16, 0], [0, 16 * 16]]  # each on its own frame, twice as large on each side
    assert shown.arrays["masks"][0, 1, 1, 16:32, 16:32].all()
    assert shown.arrays["point_frames"].tolist() == [[2]]
    np.testing.assert_allclose(shown.arrays["points"], [[[0.5, 0.25 * 96 / 128]]])


def test_later_clips_are_shown_what_was_predicted():
    objects = [GivenObject(i, "x", mask=box(0, 0)) for i in range(4)]
    before = np.full((4, 2, 16, 32), -1, np.float32)
    before[0, 1, :4, :4] = 1  # seen on the second shared frame
    before[2, 0] = EXCLUDED  # entered on the second shared frame, where it is not found again
    shown = exemplars(objects, [-3, -3, 1, 3], before, SIZES, frames=4)
    assert shown.rows == (0, 2, 3)  # the second object is lost
    assert shown.arrays["frames"].tolist() == [[0, 1, 3]]
    areas = shown.arrays["masks"].sum(axis=(3, 4))[0]
    # 1 and -1 meet half way; of the pixel in the corner less than half is the object's
    assert areas[0].tolist() == [0, 16 * 16 - 1, 0]
    assert areas[1].tolist() == [0, 16 * 16, 0] and areas[2].tolist() == [0, 0, 16 * 16]  # the given masks
    assert exemplars(objects[1:2], [-3], before[1:2], SIZES, frames=4) is None
    assert exemplars(objects[:1], [7], before[:1, :0], SIZES, frames=4) is None


def test_a_mask_that_would_vanish_keeps_what_it_touches():
    assert object_clips.padded_mask(box(0, 0, size=1), Geometry((64, 64), (8, 12), (32, 48))).sum() == 1


class SameColour:
    """Finds the pixels that have the colour an object has where it is shown, in all frames of the clip."""

    programs = {}

    def __init__(self):
        self.clips = []

    def fresh(self):
        return self

    def predict_objects(self, first, images, exemplars):
        self.clips.append((first, len(images), exemplars["frames"].tolist()[0], exemplars["masks"].shape[1]))
        frames = np.stack(images).astype(np.float32)
        shown = [self.colour(frames, exemplars["frames"][0], masks) for masks in exemplars["masks"][0]]
        for (y, x), t in zip(exemplars.get("points", [[]])[0], exemplars.get("point_frames", [[]])[0], strict=True):
            shown.append(frames[t, int(y * frames.shape[1]), int(x * frames.shape[2])])
        small = np.stack([cv2.resize(x, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for x in frames])
        return np.stack([172.5 - np.abs(small - colour).sum(-1) for colour in shown])  # half way to the grey

    @staticmethod
    def colour(frames, references, masks):
        return np.concatenate([frames[t][mask] for t, mask in zip(references, masks, strict=True)]).mean(0)


RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(i):
    """A red square that moves right, and a blue one from frame 3 to frame 5."""
    image = np.full((64, 128, 3), 90, np.uint8)
    image[8:24, 8 * i : 8 * i + 16] = RED
    if 3 <= i <= 5:
        image[40:56, 8 * i : 8 * i + 16] = BLUE
    return image


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "v").mkdir()
    for i in range(10):
        cv2.imwrite(str(tmp_path / "v" / f"{i:05d}.png"), picture(i)[..., ::-1])
    return tmp_path / "v"


@pytest.fixture
def model(monkeypatch):
    made = SameColour()
    monkeypatch.setattr(clip_predictor, "ClipModel", lambda *_, **__: made)
    return made


def write_masks(folder, **masks):
    folder.mkdir()
    for name, ids in masks.items():
        picture = Image.fromarray(ids)
        picture.putpalette([0, 0, 0, 255, 0, 0] * 128)
        picture.save(folder / f"{name}.png")
    return folder


def test_objects_are_followed_from_their_masks_to_a_davis_reader(tmp_path, folder, model):
    first, later = np.zeros((2, 64, 128), np.uint8)
    first[8:24, :16] = 5
    later[8:24, 24:40], later[40:56, 24:40] = 5, 2
    masks = write_masks(tmp_path / "masks", **{"00000": first, "00003": later})
    report = predict(
        [folder], ClipPredictor(None, {}, INFER), class_table("davis"), tmp_path / "out", progress=False,
        layout="davis", overlay=False, show=lambda videos: given_objects.with_masks(videos, masks),
    )  # fmt: skip
    assert report.frames == 10
    for i in range(10):
        found = np.asarray(Image.open(tmp_path / "out" / "v" / f"{i:05d}.png"))
        expected = np.zeros((64, 128), np.uint8)
        expected[8:24, 8 * i : 8 * i + 16] = 5
        if 3 <= i <= 5:
            expected[40:56, 8 * i : 8 * i + 16] = 2
        assert (found != expected).sum() <= 4 * (len(np.unique(expected)) - 1), i  # of each the corners
    # the blue object enters on frame 3, is carried over into the clips from 2 and 4, and is lost in that from 6
    assert model.clips == [(0, 4, [0, 3], 2), (2, 4, [0, 1], 2), (4, 4, [0, 1], 2), (6, 4, [0, 1], 1)]


def test_objects_are_followed_from_points(folder, model):
    (video,) = given_objects.with_points(open_videos(folder), {3: (4, 12)})
    tracker = ClipPredictor(None, {}, INFER)
    frames = list(tracker.fuse(tracker.stream(video), class_table("davis")))
    for i, frame in enumerate(frames):
        expected = 3 * (np.abs(picture(i).astype(int) - RED).sum(-1) == 0)
        assert (frame.track_ids != expected).sum() <= 4, i
        assert np.array_equal(frame.categories == 0, frame.track_ids > 0)
    assert model.clips[0] == (0, 4, [0], 0) and model.clips[1] == (2, 4, [0, 1], 1)


def test_frames_before_the_first_object_need_no_model(folder, model):
    (video,) = given_objects.with_points(open_videos(folder), {1: (4, 12)})
    late = [GivenObject(1, "00007", point=np.array([0.25, 0.5]))]
    frames = list(ClipPredictor(None, {}, INFER).stream(video._replace(objects=lambda: late)))
    assert len(frames) == 10 and [first for first, *_ in model.clips] == [4, 6]
    assert all((frame.tracks.masks == EXCLUDED).all() for frame in frames[:7])


def test_what_cannot_be_followed_is_named(folder, model):
    (video,) = open_videos(folder)
    tracker = ClipPredictor(None, {}, INFER)
    with pytest.raises(UserError, match="video v: no objects to follow; give their first masks or points"):
        next(tracker.stream(video))
    never = [GivenObject(1, "frame", point=np.array([0.25, 0.5]))]
    with pytest.raises(UserError, match="video v: no frame frame, where object 1 is shown"):
        list(tracker.stream(video._replace(objects=lambda: never)))
    crowd = [GivenObject(i, "00000", point=np.array([0.25, 0.5])) for i in range(1, 256)]
    with pytest.raises(UserError, match="video v: 255 objects; expected at most 254"):
        next(tracker.stream(video._replace(objects=lambda: crowd)))


class WithoutObjects:
    semantic_groups, vos = (("VIPSEG", 124),), False


def test_a_model_that_cannot_be_shown_objects_is_refused(model):
    with pytest.raises(UserError, match="infer.task='vos': the model cannot be shown objects"):
        predictor.check_settings(ClipPredictor, WithoutObjects(), INFER)
    with pytest.raises(UserError, match="task='vos': its network needs the objects"):
        ClipPredictor(None, {}, INFER).network((64, 64))
    predictor.check_classes(WithoutObjects(), INFER, class_table("davis"))  # objects have no classes
