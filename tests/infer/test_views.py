"""Test-time augmentation: views of one model, averaged on the grid of the plain one."""

import dataclasses

import numpy as np
import pytest

from vps_jax.config import ClipInference, QueryInference
from vps_jax.datasets.classes import class_table
from vps_jax.infer import clip_predictor
from vps_jax.infer.clip_model import geometry, preprocess
from vps_jax.infer.clip_predictor import ClipPredictor
from vps_jax.infer.fusion import fuse_frames
from vps_jax.infer.predictor import build_predictor, check_settings
from vps_jax.infer.score_maps import GridScores
from vps_jax.infer.views import Views, mirrored_video, scaled
from vps_jax.infer.window_predictor import WindowPredictor
from vps_jax.media.video import Frame, Video
from vps_jax.types import FrameScores, FrameTracks, GivenObject, UserError

CLASSES = class_table("vipseg")
INFER = QueryInference(short_side_px=64, max_side_px=128)


def video_of(images, objects=None) -> Video:
    frames = [Frame(str(i), image, i / 6) for i, image in enumerate(images)]
    size = images[0].shape[:2]
    stems = tuple(frame.stem for frame in frames)
    return Video("v", len(frames), 6.0, lambda: iter(frames), lambda: size, stems, objects=objects)


class Brightness:
    """Scores class 0 by the brightness of a cell and class 1 by the settings' short side; notes what it was made of."""

    kind, final_identities = "probabilities", True

    def __init__(self, module, variables, infer):
        self.infer, self.programs = infer, {f"at {infer.short_side_px}": 1}

    def stream(self, video):
        for frame in video.frames():
            size = frame.image.shape[:2]
            sizes = geometry(size, short_side=self.infer.short_side_px, max_side=self.infer.max_side_px)
            cells = preprocess(frame.image, sizes)[2::4, 2::4, 0].astype(np.float32)
            scores = np.stack([cells, np.full_like(cells, self.infer.short_side_px)])
            tracks = FrameTracks(np.array([self.infer.short_side_px], np.int32), cells[None])
            yield FrameScores(frame.stem, sizes, GridScores(scores, sizes), tracks)

    def fuse(self, frames, classes):
        return fuse_frames((frame._replace(tracks=None) for frame in frames), classes)


def test_without_views_a_predictor_is_itself():
    assert isinstance(build_predictor(Brightness, None, {}, INFER), Brightness)


def test_scores_are_averaged_over_sizes_and_tracks_are_those_of_the_plain_view():
    infer = dataclasses.replace(INFER, scales=(0.5, 1.0, 1.5), flip=True)
    both = build_predictor(Brightness, None, {}, infer)
    assert both.kind == "probabilities" and set(both.programs) == {"at 64", "at 32", "at 96"}
    ramp = np.tile(np.arange(128, dtype=np.uint8)[:, None], (64, 1, 3))
    (frame,) = both.stream(video_of([ramp]))
    assert frame.sizes.padded == (64, 128) and frame.tracks.ids.tolist() == [64]
    found = np.asarray(frame.scores.on_grid(frame.sizes, [1, 0]))
    np.testing.assert_allclose(found[0], (32 + 64 + 96) / 3, rtol=1e-6)
    inside = slice(0, 14), slice(2, -2)  # the cells at the border see the padding, which another size has elsewhere
    np.testing.assert_allclose(found[1][inside], np.tile(np.arange(2, 128, 4), (16, 1))[inside], atol=1.0)
    assert (frame.scores.labels()[:56] == (np.arange(128) < 64)).mean() > 0.97  # brightness beats 64 on the right
    (fused,) = both.fuse([frame], CLASSES)
    assert np.array_equal(fused.categories, frame.scores.labels())
    assert (frame.scores.labels([1]) == 1).all()


def test_a_mirrored_view_comes_back_the_right_way_round():
    """A frame whose width leaves padding on the right: left and right must not be those of the padded frame."""
    image = np.zeros((64, 100, 3), np.uint8)
    image[:, :40] = 200
    infer = dataclasses.replace(INFER, flip=True)
    (plain,) = build_predictor(Brightness, None, {}, INFER).stream(video_of([image]))
    (both,) = build_predictor(Brightness, None, {}, infer).stream(video_of([image]))
    assert [view.mirrored for view in both.scores.views] == [False, True]
    one, other = (np.asarray(x.scores.on_grid(x.sizes, [0]))[0, :, :25] for x in (plain, both))
    np.testing.assert_allclose(one, other, atol=1e-3)
    assert np.array_equal(plain.scores.labels(), both.scores.labels())


def test_what_is_exported_is_the_plain_view():
    infer = dataclasses.replace(INFER, flip=True)
    assert not hasattr(build_predictor(Brightness, None, {}, infer), "network")
    exported = type("Exported", (Brightness,), {"network": lambda self, original: (self.infer, original)})
    found = build_predictor(exported, None, {}, dataclasses.replace(infer, scales=(0.5, 1.0))).network((4, 6))
    assert found == (INFER, (4, 6))


def test_settings_of_a_view():
    infer = ClipInference(short_side_px=576, max_side_px=1333, scales=(1.0, 0.75), flip=True, clip_frames=14)
    one = scaled(infer, 0.75)
    assert (one.short_side_px, one.max_side_px, one.scales, one.flip) == (432, 1000, (1.0,), False)
    assert one.clip_frames == 14 and scaled(infer, 1.0) == dataclasses.replace(infer, scales=(1.0,), flip=False)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"scales": (0.5,)}, r"infer.scales=\(0.5,\): expected 1.0 among them"),
        ({"scales": (1.0, 2.0), "short_side_px": None}, "frames keep their size; expected a short side"),
        ({"flip": True, "task": "instance"}, "infer.task='instance': instances come from one pass"),
    ],
)
def test_views_that_cannot_be_averaged_are_refused(settings, line):
    with pytest.raises(UserError, match=line):
        check_settings(ClipPredictor, None, ClipInference(**settings))


def test_an_image_model_averages_its_views_itself(monkeypatch):
    made = []
    monkeypatch.setattr(WindowPredictor, "__init__", lambda self, *arguments: made.append(arguments))
    infer = dataclasses.replace(INFER, scales=(0.5,), flip=True)
    assert not isinstance(build_predictor(WindowPredictor, "m", "v", infer), Views)
    assert made == [("m", "v", infer)]


def test_objects_are_mirrored_with_their_frames():
    image = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    objects = [GivenObject(1, "0", mask=np.eye(2, 4, dtype=bool)), GivenObject(2, "0", point=np.array([0.25, 0.125]))]
    video = mirrored_video(video_of([image], lambda: objects))
    assert np.array_equal(next(video.frames()).image, image[:, ::-1])
    one, two = video.objects()
    assert np.array_equal(one.mask, np.eye(2, 4, dtype=bool)[:, ::-1]) and two.point.tolist() == [0.25, 0.875]
    assert mirrored_video(video_of([image])).objects is None


class Left:
    """Says of one given object that it is in the left half of what it sees, at twice the certainty if it is there."""

    programs = {}

    def fresh(self):
        return self

    def predict_objects(self, first, images, exemplars):
        masks, height, width = exemplars["masks"][0], images[0].shape[0] // 4, images[0].shape[1] // 4
        certainty = 1 + masks[..., : masks.shape[-1] // 2].any(axis=(1, 2, 3))
        left = np.where(np.arange(width) < width // 2, 1.0, -1.0) * np.ones((len(images), height, 1))
        return (certainty[:, None, None, None] * left).astype(np.float32)


def test_the_logits_of_followed_objects_are_averaged(monkeypatch):
    """The plain view sees the object on the left and says 2 there; the mirrored one says 1 on what is its left."""
    monkeypatch.setattr(clip_predictor, "ClipModel", lambda *_, **__: Left())
    infer = ClipInference(task="vos", short_side_px=64, clip_frames=2, overlap_frames=1, flip=True)
    mask = np.zeros((64, 128), bool)
    mask[:, :8] = True
    video = video_of([np.zeros((64, 128, 3), np.uint8)] * 2, lambda: [GivenObject(4, "0", mask=mask)])
    both = build_predictor(ClipPredictor, None, {}, infer)
    frames = list(both.stream(video))
    logits = np.asarray(frames[0].scores.on_grid(frames[0].sizes, [0, 1]))
    assert np.array_equal(logits[0], np.zeros((16, 32)))
    assert np.array_equal(logits[1], np.where(np.arange(32) < 16, 0.5, -0.5) * np.ones((16, 1)))
    fused = list(both.fuse(frames, class_table("davis")))
    assert [np.unique(frame.track_ids[:, :60]).tolist() for frame in fused] == [[4]] * 2
