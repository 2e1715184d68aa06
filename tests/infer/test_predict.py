"""The whole way with a scripted model: frames in, result folder and overlay video out."""

import dataclasses
import json

import av
import cv2
import numpy as np
import pytest

from vps_jax import config
from vps_jax.config import ClipInference
from vps_jax.datasets.classes import class_table
from vps_jax.infer import clip_predictor, predictor
from vps_jax.infer.clip_predictor import ClipPredictor
from vps_jax.infer.fusion import fuse_frames
from vps_jax.infer.predict import predict, predict_video
from vps_jax.infer.predictor import DECODED_AHEAD, check_classes, make_predictor
from vps_jax.infer.score_maps import GridScores
from vps_jax.media import result_folders, sources
from vps_jax.types import ClipPrediction, FrameScores, Geometry, UserError
from vps_jax.viz.overlay import Style

SKY, WALL, PERSON, CAR = 28, 0, 60, 48
INFER = ClipInference(clip_frames=4, overlap_frames=2, short_side_px=64, max_side_px=200)
CLASSES = class_table("vipseg")


class ScriptedModel:
    """Sees bright pixels as sky, dark ones as wall, red ones as a person and blue ones as a car."""

    def __init__(self):
        self.clips = []
        self.programs = {"scripted": 1}

    def fresh(self):
        self.clips.append([])
        return self

    def predict_sets(self, first, images):
        return (self.predict(first, images),)

    def predict(self, first, images):
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
    monkeypatch.setattr(clip_predictor, "ClipModel", lambda *_, **__: model)
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
    return predict([folder], ClipPredictor(None, {}, INFER), CLASSES, out, progress=False, **kwargs)


def test_a_folder_becomes_a_result_folder_and_an_overlay(tmp_path, scripted):
    out = tmp_path / "out"
    report = run(write_folder(tmp_path / "walk", 9), out)
    assert report == (1, 9, {"scripted": 1}, 0, 0, ())
    assert scripted.clips == [[(0, 4), (2, 4), (4, 4), (6, 3)]]
    frames = list(result_folders.read_video(out, "walk", CLASSES))
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


def test_results_are_written_for_the_frames_that_are_asked_for(tmp_path, scripted):
    """Of a data set that shows more frames than it labels; the overlay has all of them."""
    (video,) = sources.open_videos(write_folder(tmp_path / "walk", 5))
    asked = video._replace(video_id="set/walk", results=frozenset(["00000003", "00000012"]))
    report = predict([asked], ClipPredictor(None, {}, INFER), CLASSES, tmp_path / "out", progress=False, tracks=True)
    assert (report.frames, scripted.clips) == (2, [[(0, 4), (2, 3)]])
    frames = result_folders.read_video(tmp_path / "out", "set/walk", CLASSES)
    assert [frame.stem for frame in frames] == ["00000003", "00000012"]
    tracks = json.loads((tmp_path / "out" / "tracks" / "set" / "walk.json").read_text())["tracks"]
    assert {track["frames"] for track in tracks} == {2}
    with av.open(str(tmp_path / "out" / "overlay" / "set" / "walk.mp4")) as movie:
        assert len(list(movie.decode(video=0))) == 5
    again = predict([asked], ClipPredictor(None, {}, INFER), CLASSES, tmp_path / "out", made_by="m", progress=False)
    assert again.videos == 1 and scripted.clips == [[(0, 4), (2, 3)]] * 2
    again = predict([asked], ClipPredictor(None, {}, INFER), CLASSES, tmp_path / "out", made_by="m", progress=False)
    assert again.skipped == (1 if video.fingerprint() else 0)


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
    (video,) = sources.open_videos(folder)
    read = []

    def counted():
        for frame in video.frames():
            read.append(frame.stem)
            yield frame

    ahead = []
    original = scripted.predict

    def sure_only_when_seen(first, images):
        prediction = original(first, images)
        seen = (prediction.instance_masks > 0).any((1, 2, 3))
        prediction.instance_classes[~seen] = np.eye(125)[0] * 9
        return prediction

    scripted.predict = sure_only_when_seen
    predictor = ClipPredictor(None, {}, INFER)
    for done, _ in enumerate(predict_video(video._replace(frames=counted), predictor, CLASSES)):
        ahead.append(len(read) - done)
    assert len(ahead) == 40
    # two clips, the step of a third on the device, and decoded frames; the squares held the first back for longer
    assert max(ahead[12:-8]) <= 8 + 2 + DECODED_AHEAD + 2


def test_several_inputs_and_a_root(tmp_path, scripted):
    root = tmp_path / "VIPSeg"
    for name in ("a", "b"):
        write_folder(root / "imgs" / name, 2)
    (root / "val.txt").write_text("a\nb\n")
    other = write_folder(tmp_path / "c", 1)
    scripted_predictor = ClipPredictor(None, {}, INFER)
    report = predict([root, other], scripted_predictor, CLASSES, tmp_path / "out", overlay=False, progress=False)
    assert (report.videos, report.frames) == (3, 5)
    assert [r["video_id"] for r in json.loads((tmp_path / "out" / "pred.json").read_text())["annotations"]] == [*"abc"]
    with pytest.raises(UserError, match=r"two inputs are named 'c' \(.*/c, .*/c\)"):
        predict([other, other], scripted_predictor, CLASSES, tmp_path / "out")


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
    assert [p.name for p in (tmp_path / "out" / ".state").iterdir()] == ["good.json"]
    assert [p.name for p in (tmp_path / "out" / "overlay").iterdir()] == ["good.mp4"]
    assert len(json.loads((tmp_path / "out" / "pred.json").read_text())["annotations"]) == 1


def test_a_semantic_task_lets_all_classes_compete(tmp_path, scripted):
    original = scripted.predict
    scripted.predict = lambda first, images: ClipPrediction(None, None, original(first, images).semantic)
    (video,) = sources.open_videos(write_folder(tmp_path / "v", 5))
    semantic = ClipPredictor(None, {}, dataclasses.replace(INFER, task="semantic"))
    frames = list(predict_video(video, semantic, CLASSES))
    assert len(frames) == 5
    assert set(np.unique(frames[0].categories)) == {PERSON} and set(np.unique(frames[0].track_ids)) == {PERSON + 1}


def test_the_mirrored_video_is_averaged_with_the_plain_one(tmp_path, scripted):
    """The scripted model sees single pixels: the mirrored pass says the same, where it belongs."""
    (video,) = sources.open_videos(write_folder(tmp_path / "v", 5))
    settings = (dataclasses.replace(INFER, flip=flip) for flip in (False, True))
    plain, both = (predictor.build_predictor(ClipPredictor, None, {}, infer) for infer in settings)
    for a, b in zip(plain.stream(video), both.stream(video), strict=True):
        assert [view.mirrored for view in b.scores.views] == [False, True]
        assert np.array_equal(a.tracks.masks, b.tracks.masks)
        one, other = (np.asarray(x.scores.on_grid(a.sizes, range(124)))[..., :24] for x in (a, b))  # not the padding
        np.testing.assert_allclose(one, other, atol=1e-4)
        assert np.mean(a.scores.labels(CLASSES.stuff_ids) != b.scores.labels(CLASSES.stuff_ids)) < 0.02
    assert len(scripted.clips) == 3  # each pass keeps features of its own


class Groups:
    semantic_groups = (("VIPSEG", 124), ("VIPSEG_VIS", 58))


def test_a_group_that_does_not_fit_the_classes_is_refused():
    check_classes(Groups(), INFER, CLASSES)
    with pytest.raises(UserError, match="the model has VIPSEG, VIPSEG_VIS"):
        predictor.check_settings(ClipPredictor, Groups(), dataclasses.replace(INFER, semantic_group="COCO"))
    with pytest.raises(UserError, match="has 58 classes; expected the 124"):
        check_classes(Groups(), dataclasses.replace(INFER, semantic_group="VIPSEG_VIS"), CLASSES)


@dataclasses.dataclass(frozen=True)
class RedModel:
    name: str = "red"


@dataclasses.dataclass(frozen=True)
class RedInference:
    threshold: int = 128


class RedPredictor:
    """Somebody's model: red pixels are a person, all else is wall."""

    kind, final_identities, programs = "logits", True, {}

    def __init__(self, module, variables, infer):
        self._threshold = infer.threshold

    def stream(self, video):
        for frame in video.frames():
            height, width = (side // 4 * 4 for side in frame.image.shape[:2])
            red = frame.image[2:height:4, 2:width:4, 0].astype(np.float32) - self._threshold
            semantic = np.full((124, *red.shape), -999, np.float32)
            semantic[[PERSON, WALL]] = red, 0 * red
            sizes = Geometry((height, width), (height, width), frame.image.shape[:2])
            yield FrameScores(frame.stem, sizes, GridScores(semantic, sizes))

    def fuse(self, frames, classes):
        return fuse_frames(frames, classes)


def test_somebodys_model_is_a_row_and_a_class_of_twenty_lines(tmp_path, monkeypatch):
    row = config.ModelRow(RedModel, RedInference, "", "", f"{__name__}:RedPredictor")
    monkeypatch.setitem(config.MODELS, "red", row)
    monkeypatch.setattr(predictor.models, "build", lambda model: None)
    folder = write_folder(tmp_path / "v", 3)
    red = make_predictor({"name": "red"}, {}, {"threshold": 100})
    assert predict([folder], red, CLASSES, tmp_path / "out", progress=False)[:3] == (1, 3, {})
    for i, frame in enumerate(result_folders.read_video(tmp_path / "out", "v", CLASSES)):
        assert frame.categories[16, 4 * i + 12] == PERSON and frame.categories[48, 4 * i + 12] == WALL
    image = predict([folder], red, CLASSES, tmp_path / "vspw", overlay=False, progress=False, layout="vspw")
    assert image.frames == 3
    painted = cv2.imread(str(tmp_path / "vspw" / "v" / "00000006.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(painted, frame.categories)
    with pytest.raises(UserError, match="format 'coco'"):
        predict([folder], red, CLASSES, tmp_path / "x", layout="coco")
    with pytest.raises(UserError, match="infer.level: no such key"):
        make_predictor({"name": "red"}, {}, {"level": 1})


def test_frames_of_two_sizes_are_refused(tmp_path, scripted):
    folder = write_folder(tmp_path / "v", 3)
    cv2.imwrite(str(folder / "00000099.png"), np.zeros((32, 96, 3), np.uint8))
    with pytest.raises(UserError, match="video v: frame 00000099 has 96x32 pixels; expected 96x64"):
        run(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "pred.json").exists()


def test_an_unwritable_output_is_refused_before_anything_runs(tmp_path, scripted):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run(write_folder(tmp_path / "v", 1), tmp_path / "out")
    assert not scripted.clips


@pytest.mark.parametrize("name", ["overlay", "tracks", ".state"])
def test_a_video_named_like_a_folder_of_the_results_is_refused_where_it_would_take_its_place(tmp_path, scripted, name):
    first, second = write_folder(tmp_path / "first", 2), write_folder(tmp_path / "in" / name, 2)
    for layout in ("vspw", "vipseg"):
        out, options = tmp_path / layout, {"layout": layout, "overlay": False, "progress": False, "tracks": True}
        predict([first], ClipPredictor(None, {}, INFER), CLASSES, out, **options)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        if layout == "vipseg":
            assert predict([second], ClipPredictor(None, {}, INFER), CLASSES, out, **options).videos == 1
            continue
        with pytest.raises(
            UserError, match=f"video '{name}': its results would lie in .*{name}, which holds something"
        ):
            predict([second], ClipPredictor(None, {}, INFER), CLASSES, out, **options)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_wrong_classes_of_the_overlay_are_refused_before_a_folder_is_made(tmp_path, scripted):
    folder, style = write_folder(tmp_path / "a", 1), Style(classes=["persn"])
    with pytest.raises(UserError, match="class 'persn': .* among 124; expected one such as person"):
        predict([folder], ClipPredictor(None, {}, INFER), CLASSES, tmp_path / "out", style=style)
    assert not (tmp_path / "out").exists()
