"""The whole way with a scripted model: frames in, result folder and overlay video out."""

import json

import av
import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax import taxonomy
from vps_jax.infer import predict as module
from vps_jax.infer import segment
from vps_jax.infer.predict import Settings, predict, predict_video
from vps_jax.media import video_io, writers
from vps_jax.types import ClipPrediction, UserError

SKY, WALL, PERSON, CAR = 28, 0, 60, 48
SETTINGS = {"clip_frames": 4, "overlap_frames": 2, "short_side_px": 64, "max_side_px": 200}


class ScriptedModel:
    """Sees bright pixels as sky, dark ones as wall, red ones as a person and blue ones as a car."""

    def __init__(self):
        self.clips = []
        self.programs = {"scripted": 1}

    def reset(self):
        self.clips.append([])

    def __call__(self, first, images):
        self.clips[-1].append((first, len(images)))
        small = [cv2.resize(x, (x.shape[1] // 4, x.shape[0] // 4), interpolation=cv2.INTER_AREA) for x in images]
        red, green, blue = np.moveaxis(np.stack(small).astype(np.float32) / 64 - 2, -1, 0)  # [t, h4, w4], -2..2
        semantic = np.full((124, *red.shape), -5, np.float32)
        semantic[SKY], semantic[WALL] = green, -green
        semantic[PERSON] = 100  # things take no part in the stuff map
        classes = np.full((3, 125), -9, np.float32)
        classes[0, 1 + PERSON] = classes[1, 1 + CAR] = 9
        classes[2, 0] = 9  # a query that sees nothing
        masks = np.stack([np.minimum(red, -blue), np.minimum(blue, -red), red + 9])
        return ClipPrediction(masks, classes, semantic)


@pytest.fixture
def scripted(monkeypatch):
    model = ScriptedModel()
    monkeypatch.setattr(module, "make_runner", lambda *_: model)
    return model


def picture(index, height=64, width=96):
    """Sky above wall, a red and a blue square that move right; RGB."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 1] = 20
    image[: height // 2, :, 1] = 235
    image[8:24, 4 * index + 4 : 4 * index + 20, :] = (255, 128, 0)
    image[40:56, 4 * index + 4 : 4 * index + 20, :] = (0, 128, 255)
    return image


def write_folder(folder, count, **size):
    folder.mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"{3 * i:08d}.png"), picture(i, **size)[..., ::-1])
    return folder


def run(folder, out, **kwargs):
    return predict([folder], None, {}, SETTINGS, out, progress=False, **kwargs)


def test_a_folder_becomes_a_result_folder_and_an_overlay(tmp_path, scripted):
    out = tmp_path / "out"
    report = run(write_folder(tmp_path / "walk", 9), out)
    assert report == (1, 9, {"scripted": 1})
    assert scripted.clips == [[(0, 4), (2, 4), (4, 4), (6, 3)]]
    frames = list(writers.read_video(out, "walk", thing_ids=taxonomy.class_table("vipseg").thing_ids))
    assert [frame.stem for frame in frames] == [f"{3 * i:08d}" for i in range(9)]
    for i, frame in enumerate(frames):
        centre = 4 * i + 12
        assert [frame.categories[y, centre] for y in (2, 16, 48, 60)] == [SKY, PERSON, CAR, WALL]
        assert frame.track_ids[16, centre] != frame.track_ids[48, centre]
        assert frame.track_ids[16, centre] == frames[0].track_ids[16, 12]  # one identity through the video
        assert set(np.unique(frame.categories)) == {SKY, PERSON, CAR, WALL}
    with av.open(str(out / "overlay" / "walk.mp4")) as movie:
        shown = [frame.to_ndarray(format="rgb24") for frame in movie.decode(video=0)]
    assert [x.shape for x in shown] == [(64, 96, 3)] * 9
    assert np.abs(shown[0].astype(int) - shown[8]).max() > 50  # it moves
    assert not list(out.rglob("*partial*"))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_short_videos(tmp_path, scripted, count):
    """One frame, as long as the overlap, shorter than a clip, one frame beyond a clip."""
    assert run(write_folder(tmp_path / "v", count), tmp_path / "out", overlay=False).frames == count
    assert len(json.loads((tmp_path / "out" / "pred.json").read_text())["annotations"][0]["annotations"]) == count
    assert not (tmp_path / "out" / "overlay").exists()


def test_results_have_the_size_of_the_video(tmp_path, scripted):
    run(write_folder(tmp_path / "v", 3, height=101, width=75), tmp_path / "out")
    image = cv2.imread(str(tmp_path / "out" / "pan_pred" / "v" / "00000003.png"))
    assert image.shape == (101, 75, 3)
    with av.open(str(tmp_path / "out" / "overlay" / "v.mp4")) as movie:
        assert {(f.height, f.width) for f in movie.decode(video=0)} == {(102, 76)}


def test_frames_come_as_soon_as_their_tracks_are_closed(tmp_path, scripted):
    """The squares leave the picture after frame 5; frames after it need not wait for the end of the video."""
    folder = write_folder(tmp_path / "v", 6)
    blank = np.full((64, 96, 3), (20, 20, 20), np.uint8)
    for i in range(6, 40):
        cv2.imwrite(str(folder / f"{3 * i:08d}.png"), blank)
    (video,) = video_io.open_videos(folder)
    read = []

    def counted():
        for frame in video.frames():
            read.append(frame.stem)
            yield frame

    ahead = []
    settings = Settings.from_config({**SETTINGS, "score_threshold": 0.5})
    original = scripted.__call__

    def sure_only_when_seen(first, images):
        prediction = original(first, images)
        seen = (prediction.instance_masks > 0).any((1, 2, 3))
        prediction.instance_classes[~seen] = np.eye(125)[0] * 9
        return prediction

    sure_only_when_seen.reset = scripted.reset
    for done, _ in enumerate(predict_video(video._replace(frames=counted), sure_only_when_seen, settings)):
        ahead.append(len(read) - done)
    assert len(ahead) == 40
    # two clips, the step of a third on the device, and decoded frames; the squares held the first back for longer
    assert max(ahead[12:-8]) <= 8 + 2 + segment.DECODED_AHEAD + 2


def test_several_inputs_and_a_root(tmp_path, scripted):
    root = tmp_path / "VIPSeg"
    for name in ("a", "b"):
        write_folder(root / "imgs" / name, 2)
    (root / "val.txt").write_text("a\nb\n")
    other = write_folder(tmp_path / "c", 1)
    report = predict([root, other], None, {}, SETTINGS, tmp_path / "out", split=None, overlay=False, progress=False)
    assert (report.videos, report.frames) == (3, 5)
    assert [r["video_id"] for r in json.loads((tmp_path / "out" / "pred.json").read_text())["annotations"]] == [*"abc"]
    with pytest.raises(UserError, match="two inputs are named 'c'"):
        predict([other, other], None, {}, SETTINGS, tmp_path / "out")


def test_a_damaged_frame_leaves_nothing_half_written(tmp_path, scripted):
    root = tmp_path / "VIPSeg"
    for name in ("good", "bad"):
        write_folder(root / "imgs" / name, 6)
    (root / "val.txt").write_text("good\nbad\n")
    path = root / "imgs" / "bad" / "00000015.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="00000015.png"):
        run(root, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out" / "pan_pred").iterdir()] == ["good"]
    assert [p.name for p in (tmp_path / "out" / "overlay").iterdir()] == ["good.mp4"]
    assert len(json.loads((tmp_path / "out" / "pred.json").read_text())["annotations"]) == 1


def test_a_semantic_task_lets_all_classes_compete(tmp_path, scripted):
    original = scripted.__call__
    prediction_of = lambda first, images: ClipPrediction(None, None, original(first, images).semantic)  # noqa: E731
    prediction_of.reset = scripted.reset
    (video,) = video_io.open_videos(write_folder(tmp_path / "v", 5))
    settings = Settings.from_config({**SETTINGS, "task": "semantic"})
    frames = list(predict_video(video, prediction_of, settings))
    assert len(frames) == 5
    assert set(np.unique(frames[0].categories)) == {PERSON} and set(np.unique(frames[0].track_ids)) == {PERSON + 1}


class Groups:
    semantic_groups = (("VIPSEG", 124), ("VIPSEG_VIS", 58))


@pytest.mark.parametrize(
    ("group", "message"),
    [("COCO", "the model has VIPSEG, VIPSEG_VIS"), ("VIPSEG_VIS", "has 58 classes; expected the 124")],
)
def test_a_group_that_does_not_fit_the_classes_is_refused(tmp_path, group, message):
    with pytest.raises(UserError, match=message):
        predict([write_folder(tmp_path / "v", 1)], Groups(), {}, {"semantic_group": group}, tmp_path / "out")
    assert not (tmp_path / "out" / "pred.json").exists()


class LabelModel:
    """An image model that sees red as a person and everything else as wall."""

    def apply(self, variables, frames, *, method):
        assert method == "semantic_scores"
        n, h, w, c = frames.shape
        red = frames[..., 0].astype(jnp.float32).reshape(n, h // 4, 4, w // 4, 4).mean((2, 4)) / 255
        scores = jnp.zeros((n, h // 4, w // 4, 124)).at[..., WALL].set(0.5)
        return scores.at[..., PERSON].set(red)


IMAGE_SETTINGS = {
    "task": "mask_classification", "short_side_px": 64, "max_side_px": 200, "window_px": 64, "stride_px": 40,
}  # fmt: skip


def test_an_image_model_labels_frame_by_frame(tmp_path):
    folder = write_folder(tmp_path / "v", 3)
    report = predict([folder], LabelModel(), {}, IMAGE_SETTINGS, tmp_path / "out", progress=False)
    assert report == (1, 3, {"windows 3x64x64": 1})
    frames = list(writers.read_video(tmp_path / "out", "v", thing_ids=taxonomy.class_table("vipseg").thing_ids))
    for i, frame in enumerate(frames):
        assert frame.categories[16, 4 * i + 12] == PERSON and frame.categories[48, 4 * i + 12] == WALL
        assert np.array_equal(frame.track_ids > 0, frame.categories == PERSON)
    assert (tmp_path / "out" / "overlay" / "v.mp4").exists()
    predict([folder], LabelModel(), {}, IMAGE_SETTINGS, tmp_path / "vspw", overlay=False, progress=False, layout="vspw")
    image = cv2.imread(str(tmp_path / "vspw" / "v" / "00000000.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(image, frames[0].categories)
    with pytest.raises(UserError, match="layout 'coco'"):
        predict([folder], LabelModel(), {}, IMAGE_SETTINGS, tmp_path / "x", layout="coco")


def test_frames_of_two_sizes_are_refused(tmp_path, scripted):
    folder = write_folder(tmp_path / "v", 3)
    cv2.imwrite(str(folder / "00000099.png"), np.zeros((32, 96, 3), np.uint8))
    with pytest.raises(UserError, match="00000099 has 32x96 pixels"):
        run(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "pred.json").exists()


def test_an_unwritable_output_is_refused_before_the_model_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "make_runner", lambda *_: pytest.fail("the model was made"))
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run(write_folder(tmp_path / "v", 1), tmp_path / "out")


def test_an_unknown_setting_is_named():
    with pytest.raises(UserError, match="infer.clip_length: no such setting"):
        Settings.from_config({"clip_length": 3})
    with pytest.raises(UserError, match="infer.task='vis'"):
        Settings.from_config({"task": "vis"})
    assert Settings.from_config({"clip_frames": 3}) == Settings(clip_frames=3)
