"""The ensemble against single models and a slow twin; both ways of running; what does not fit is refused."""

import filecmp
import gc
import weakref

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.config import ClipInference, WindowInference
from vps_jax.datasets.classes import class_table
from vps_jax.ensemble import averaging as module
from vps_jax.ensemble import predict_ensemble as running
from vps_jax.ensemble.averaging import Ensemble, make_groups, scaled
from vps_jax.ensemble.members import Member
from vps_jax.infer.clip_model import ClipModel, geometry
from vps_jax.infer.clip_predictor import ClipPredictor, stitched_clips
from vps_jax.infer.fusion import fuse_frames
from vps_jax.infer.predict import predict
from vps_jax.infer.score_maps import GridScores, to_grid
from vps_jax.infer.window_predictor import WindowPredictor
from vps_jax.media import result_folders
from vps_jax.media import sources as media_sources
from vps_jax.types import FrameScores, Geometry, QueryOutputs

CLASSES = class_table("vipseg")
STUFF = np.array(CLASSES.stuff_ids)
SETTINGS = {"clip_frames": 4, "overlap_frames": 2, "short_side_px": 64, "max_side_px": 200}
PERSON, CAR = 60, 48


class ColorNet:
    """A clip model whose class scores are linear in colour: `params['classes'] [124, 4]`; a red and a blue query."""

    semantic_groups = (("VIPSEG", 124), ("NEGATIVE", 124))

    def __init__(self):
        self.runs = []  # what was traced

    def apply(self, variables, x, *, method, **kwargs):
        self.runs.append(method)
        return getattr(self, method)(variables["params"], x, **kwargs)

    def backbone_features(self, params, images):
        b, t, h, w, c = images.shape
        x = images.astype(jnp.float32).reshape(b, t, h // 4, 4, w // 4, 4, c).mean((3, 5)) / 64 - 2
        return (jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1),)  # [b, t, h4, w4, 4]

    def neck_maps(self, params, features):
        return features

    def decode_features(self, params, features, *, task, group):
        return self.decode(params, features, task=task, group=group, last=True)

    def decode(self, params, maps, *, task, group, last):
        semantic = (params["classes"] * (-1.0 if group == "NEGATIVE" else 1.0))[None, None]
        if task == "semantic":
            return QueryOutputs(maps[0], {"semantic": semantic}, None, None)
        queries = jnp.array([[1.0, 0, -1, -1], [-1, 0, 1, -1]])[None, None]
        logits = jnp.full((2, 125), -9.0).at[jnp.array([0, 1]), jnp.array([1 + PERSON, 1 + CAR])].set(9)
        return QueryOutputs(maps[0], {"instance": queries, "semantic": semantic}, logits[None, None], None)


class ImageNet:
    """An image model: one query per class, whose mask depends on colours."""

    semantic_groups = (("VSPW", 124),)

    def apply(self, variables, x, *, method):
        return getattr(self, method)(variables["params"], x)

    def backbone_features(self, params, images):
        n, t, h, w, c = images.shape
        return images.astype(jnp.float32).reshape(n, t, h // 4, 4, w // 4, 4, c).mean((3, 5)) / 64 - 2

    def decode_features(self, params, features):
        n = features.shape[0]
        embeds = jnp.broadcast_to(params["classes"].T, (1, n, 124, 3))
        logits = jnp.broadcast_to(12 * jnp.eye(124, 125), (1, n, 124, 125))
        return QueryOutputs(features, {"object": embeds}, logits, None)


NETS = {"clip": ColorNet(), "image": ImageNet()}  # one instance each: programs are compiled once


def weights(seed, channels=4):
    classes = np.random.default_rng(seed).normal(size=(124, channels)).astype(np.float32)
    return {"params": {"classes": jnp.asarray(classes if channels == 4 else classes.T)}}


def clip_member(name, seed, options, **settings):
    return Member(
        name, predictor=ClipPredictor, module=NETS["clip"], infer=ClipInference(**{**SETTINGS, **settings}),
        classes=CLASSES, load=lambda: weights(seed), **{"identity": f"clip{seed}", **options},
    )  # fmt: skip


def vps(name="vps", seed=0, settings=(), **options):
    return clip_member(name, seed, options, **dict(settings))


def vss(name="vss", seed=0, group=None, flip=False, settings=(), **options):
    return clip_member(name, seed, options, task="semantic", semantic_group=group, flip=flip, **dict(settings))


def image_member(name="image", seed=7, **options):
    infer = WindowInference(short_side_px=64, max_side_px=200, window_px=64, stride_px=40)
    options = {"scale": "log_scores", **options}
    return Member(
        name, "probabilities", predictor=WindowPredictor, module=NETS["image"], infer=infer, classes=CLASSES,
        load=lambda: weights(seed, 3), identity=f"image{seed}", **options,
    )  # fmt: skip


def alone(member):
    """The predictor of a member that runs by itself."""
    return member.predictor(member.module, member.load(), member.infer)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two small videos: smooth noise with a red and a blue square that move."""
    folders = []
    for k, (count, height, width) in enumerate([(6, 60, 90), (3, 64, 64)]):
        folder = tmp_path_factory.mktemp("videos") / f"video{k}"
        folder.mkdir()
        rng = np.random.default_rng(k)
        small = rng.integers(40, 215, (5, 7, 3), np.uint8)
        for i in range(count):
            image = cv2.resize(np.roll(small, i // 3, axis=1), (width, height), interpolation=cv2.INTER_CUBIC)
            image[10:30, 4 * i + 4 : 4 * i + 24] = (0, 0, 255)
            image[35:50, 4 * i + 14 : 4 * i + 34] = (255, 0, 0)
            cv2.imwrite(str(folder / f"{i:08d}.png"), image)
        folders.append(folder)
    return folders


def run(monkeypatch, sources, out, members, how="together", keep=None):
    """The ensemble of these members, as `predict_ensemble` runs it."""
    monkeypatch.setattr(running, "read_members", lambda config, _: (members, things_of(members)))
    config = {"members": {}, "run": how, "keep_scores": keep and str(keep)}
    return running.predict_ensemble(sources, config, None, out, overlay=False, progress=False)


def things_of(members):
    return next(m for m in members if m.has_tracks)


def files_of(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def assert_same(a, b):
    names = files_of(a)
    assert names == files_of(b) and len(names) > 3
    assert filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


def test_one_member_of_weight_one_is_the_model_itself(tmp_path, monkeypatch, sources):
    member = vps()
    predict(sources, alone(member), CLASSES, tmp_path / "single", overlay=False, progress=False)
    for how in ("together", "in_turn"):
        run(monkeypatch, sources, tmp_path / how, [member], how)
        assert_same(tmp_path / "single", tmp_path / how)


def slow_mean(video, members):
    """Mean of the members' stuff logits `[66, h4, w4]` per frame, one model after the other, in float64."""
    total = {}
    for member in members:
        s = member.infer
        runner = ClipModel(member.module, member.load(), [(s.task, s.semantic_group)], chunk=2)
        for clip in stitched_clips(video, runner.predict_sets, s):
            for frame in clip.sets[0].frames:
                total[frame.index] = total.get(frame.index, 0) + np.asarray(frame.semantic, np.float64)[STUFF]
    return {index: x / len(members) for index, x in total.items()}, clip.sizes


def test_logits_of_equal_weight_are_the_plain_mean(tmp_path, monkeypatch, sources):
    members = [vps(), vss("b", 1), vss("c", 2)]
    run(monkeypatch, sources[:1], tmp_path / "out", members)
    predict(sources[:1], alone(members[0]), CLASSES, tmp_path / "vps", overlay=False, progress=False)
    found, single = (list(result_folders.read_video(tmp_path / d, "video0", CLASSES)) for d in ("out", "vps"))
    (video,) = media_sources.open_sources(sources[:1])
    mean, sizes = slow_mean(video, members)
    assert len(found) == len(mean) == 6
    changed = 0
    for index, frame in enumerate(found):
        height, width = sizes.resized
        up = [cv2.resize(x, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)[:height, :width] for x in mean[index]]
        up = np.stack([cv2.resize(x, sizes.original[::-1], interpolation=cv2.INTER_LINEAR) for x in up])
        best = np.sort(up, axis=0)
        sure = best[-1] - best[-2] > 0.01  # float16 rounding is smaller
        assert sure.mean() > 0.95
        stuff = (single[index].track_ids == 0) & sure
        assert np.array_equal(frame.categories[stuff], STUFF[up.argmax(0)][stuff])
        assert np.array_equal(frame.track_ids, single[index].track_ids)
        changed += (frame.categories != single[index].categories).mean()
    assert changed > 0.5  # the others matter


def zoo():
    return [
        vps(weight=0.5),
        vss("same", 0, group="NEGATIVE", weight=0.25),
        vss("other", 1, flip=True, settings={"short_side_px": 70}),
        image_member(weight=0.7),
    ]


def test_both_ways_and_any_order_give_the_same_bytes(tmp_path, monkeypatch, sources):
    run(monkeypatch, sources, tmp_path / "together", zoo())
    run(monkeypatch, sources, tmp_path / "in_turn", zoo()[::-1], "in_turn")
    assert_same(tmp_path / "together", tmp_path / "in_turn")


def test_kept_scores_give_the_same_bytes(tmp_path, monkeypatch, sources):
    run(monkeypatch, sources[1:], tmp_path / "together", zoo()[2:] + zoo()[:2])
    for _ in range(2):  # made, then found
        run(monkeypatch, sources[1:], tmp_path / "kept_out", zoo(), keep=tmp_path / "kept")
        assert_same(tmp_path / "together", tmp_path / "kept_out")
    assert len(list((tmp_path / "kept").rglob("*.scores"))) == 4  # of all members


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch, sources):
    run(monkeypatch, sources, tmp_path / "whole", zoo())
    loads = []

    def counted(members):
        return [m._replace(load=lambda m=m: loads.append(m.name) or m.load()) for m in members]

    class StoppedError(Exception):
        pass

    original, seen = Ensemble.run_group, []

    def stops(self, group, video):
        for item in original(self, group, video):
            seen.append(item)
            if len(seen) == 12:  # in the second member
                raise StoppedError
            yield item

    monkeypatch.setattr(Ensemble, "run_group", stops)
    with pytest.raises(StoppedError):
        run(monkeypatch, sources, tmp_path / "out", counted(zoo()), "in_turn")
    assert loads == ["image", "other"]
    assert not (tmp_path / "out" / "pred.json").exists()
    monkeypatch.setattr(Ensemble, "run_group", original)
    loads.clear()
    run(monkeypatch, sources, tmp_path / "out", counted(zoo()), "in_turn")
    assert loads == ["other", "vps"]  # the image member's scores were there
    assert_same(tmp_path / "whole", tmp_path / "out")  # no scores are left over


def test_in_turn_holds_one_members_weights_at_a_time(tmp_path, monkeypatch, sources):
    runners, most = weakref.WeakSet(), []
    original = module.Group.load

    def load(group):
        original(group)
        runners.add(group._predictor)
        gc.collect()
        most.append(len(runners))

    monkeypatch.setattr(module.Group, "load", load)
    run(monkeypatch, sources[1:], tmp_path / "out", zoo(), "in_turn")
    assert most == [1, 1, 1]
    gc.collect()
    run(monkeypatch, sources[1:], tmp_path / "together", zoo())
    assert most[3:] == [1, 2, 3]


def test_query_sets_of_one_checkpoint_run_as_one():
    members = [vps(), vss("same", 0), vss("other", 1), vss("flipped", 0, flip=True), image_member()]
    groups = make_groups(members, members[0])
    assert [[m.name for m in group.members] for group in groups] == [["vps", "same"], ["other"], ["flipped"], ["image"]]
    net = ColorNet()
    model = ClipModel(net, weights(0), [("panoptic", None), ("semantic", None)], chunk=2)
    model.predict_sets(0, [np.zeros((64, 64, 3), np.uint8)] * 2)
    assert net.runs.count("backbone_features") == net.runs.count("neck_maps") == 1 and net.runs.count("decode") == 2


def test_scales():
    scores = jnp.array([[[3.0]], [[1.0]], [[0.0]]])
    assert np.array_equal(scaled(scores, "logits"), scores)
    np.testing.assert_allclose(np.exp(scaled(scores, "log_softmax")).sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(
        scaled(scores, "log_scores").ravel(), np.log([0.75 + 1e-6, 0.25 + 1e-6, 1e-6]), rtol=1e-5
    )
    assert np.isfinite(scaled(0 * scores, "log_scores")).all()


def test_a_weight_of_zero_counts_nothing(tmp_path, monkeypatch, sources):
    run(monkeypatch, sources[1:], tmp_path / "one", [vps()])
    run(monkeypatch, sources[1:], tmp_path / "two", [vps(weight=2.0), vss("b", 1, weight=0.0)])
    assert_same(tmp_path / "one", tmp_path / "two")


def test_scores_move_to_another_grid():
    """A ramp over the frame is the same ramp on any grid, mirrored or not."""
    seen, common = (geometry((60, 90), short_side=side, max_side=400) for side in (64, 100))
    assert seen.padded == (64, 128) and common.padded == (128, 192)
    centres = 4 * (np.arange(32) + 0.5) / seen.resized[1]  # 0..1 over the frame
    ramp = np.broadcast_to(np.stack([centres, -centres])[:, None], (2, 16, 32)).astype(np.float32)
    classes = np.array([1], np.int32)
    expected = -4 * (np.arange(48) + 0.5) / common.resized[1]
    inside = (-expected > 0.03) & (-expected < 0.97)
    found = np.asarray(to_grid(ramp, classes, seen, common, mirrored=False))
    assert found.shape == (1, 32, 48)
    np.testing.assert_allclose(found[0, :, inside], np.repeat(expected[inside, None], 32, 1), atol=1e-6)
    flipped = np.asarray(to_grid(ramp, classes, seen, common, mirrored=True))
    np.testing.assert_allclose(flipped[0, :, inside], np.repeat(-1 - expected[inside, None], 32, 1), atol=1e-6)
    assert np.array_equal(to_grid(ramp, classes, seen, seen, mirrored=False), ramp[1:])


def test_a_mirrored_pass_of_a_model_that_sees_single_pixels_changes_nothing(sources):
    (video,) = media_sources.open_sources(sources[1:])  # 64 pixels wide: cells of the mirrored frame fall on cells
    plain, both = vps(), vss("b", 0, flip=True)
    frames = []
    for member in (plain, both):
        frames.append([frame.scores.on_grid(frame.sizes, STUFF) for frame in alone(member).stream(video)])
    assert len(frames[0]) == 3
    for a, b in zip(*frames, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_frames_that_do_not_fit_are_named(tmp_path, monkeypatch, sources):
    """Kept scores under the right name with the frames of another video."""
    keep = tmp_path / "kept"
    run(monkeypatch, sources[:1], tmp_path / "a", [vps(), vss("b", 1)], keep=keep)
    (path,) = keep.glob("b-*/video0.scores")
    with pytest.raises(module.UserError, match="members.b: frame nothing where 00000005 is expected"):
        from vps_jax.ensemble import kept_scores

        header, frames = kept_scores.read_header(path), list(kept_scores.read_scores(path))
        with kept_scores.write_scores(path, header) as append:
            for stem, values in frames[:-1]:
                append(stem, values)
        run(monkeypatch, sources[:1], tmp_path / "a", [vps(), vss("b", 1)], keep=keep)


def test_scores_of_another_video_are_refused_before_anything_is_loaded(tmp_path, monkeypatch, sources):
    run(monkeypatch, sources[:1], tmp_path / "a", [vps(), vss("b", 1)], keep=tmp_path / "kept")
    (folder,) = (tmp_path / "kept").glob("b-*")
    given = Member("given", kept=folder)
    first = vps()
    run(monkeypatch, sources[:1], tmp_path / "b", [first, given])
    assert_same(tmp_path / "a", tmp_path / "b")  # scores stand in for their model
    unloaded = first._replace(load=lambda: pytest.fail("loaded"))
    for how in ("together", "in_turn"):
        with pytest.raises(module.UserError, match="members.given: .*video1.scores is missing"):
            run(monkeypatch, sources, tmp_path / "c", [unloaded, given], how)
    assert not list(tmp_path.glob("c/**/*.png"))


def test_too_little_room_is_said_before_anything_runs(tmp_path, monkeypatch, sources):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    member = vps()._replace(load=lambda: pytest.fail("loaded"))
    with pytest.raises(module.UserError, match="MB free, the files need"):
        run(monkeypatch, sources, tmp_path / "out", [member, image_member()], "in_turn")


def test_the_ensemble_reads_videos_lazily(sources):
    assert [v.size() for v in media_sources.open_sources(sources)] == [(60, 90), (64, 64)]
    assert media_sources.open_videos(sources[1])[0].stems == ("00000000", "00000001", "00000002")


class GreenPredictor:
    """Somebody's model: the greener a pixel, the more it is of the first stuff class, in probabilities."""

    kind, final_identities, programs = "probabilities", True, {}

    def __init__(self, module, variables, infer):
        pass

    def stream(self, video):
        for frame in video.frames():
            height, width = (side // 4 * 4 for side in frame.image.shape[:2])
            scores = np.zeros((124, height // 4, width // 4), np.float32)
            scores[STUFF[0]] = frame.image[2:height:4, 2:width:4, 1] / 255
            sizes = Geometry((height, width), (height, width), frame.image.shape[:2])
            yield FrameScores(frame.stem, sizes, GridScores(scores, sizes))

    def fuse(self, frames, classes):
        return fuse_frames(frames, classes)


def test_somebodys_model_of_twenty_lines_is_a_member(tmp_path, monkeypatch, sources):
    green = Member(
        "green",
        GreenPredictor.kind,
        predictor=GreenPredictor,
        classes=CLASSES,
        load=dict,
        identity="green",
        weight=50.0,
    )
    run(monkeypatch, sources[:1], tmp_path / "alone", [vps()])
    for how in ("together", "in_turn"):
        run(monkeypatch, sources[:1], tmp_path / how, [vps(), green], how)
    assert_same(tmp_path / "together", tmp_path / "in_turn")
    alone_frames, both = (
        list(result_folders.read_video(tmp_path / name, "video0", CLASSES)) for name in ("alone", "together")
    )
    share = [np.mean(frames[0].categories == STUFF[0]) for frames in (alone_frames, both)]
    assert share[1] > share[0] + 0.5
    assert np.array_equal(alone_frames[0].track_ids, both[0].track_ids)  # things stay those of the panoptic member
