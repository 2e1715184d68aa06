"""VidEoMT on videos: streams equal the whole clip, whatever the chunks and the memory; rules make frames."""

import functools
import itertools
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from vps_jax import models
from vps_jax.config import QueryInference
from vps_jax.datasets.classes import class_table
from vps_jax.ensemble.averaging import Ensemble, scaled
from vps_jax.ensemble.members import Member
from vps_jax.infer import video_segments
from vps_jax.infer.predictor import make_predictor
from vps_jax.infer.query_predictor import VOID, QueryPredictor, preprocess
from vps_jax.infer.upsampling import label_map
from vps_jax.media.video import Frame, Video
from vps_jax.types import Geometry, UserError

CLASSES = class_table("vipseg")
MODEL = {"name": "videomt", "size": "small", "semantic_groups": (("VIPSEG", 124),), "width": 24, "num_heads": 3,
         "trunk_blocks": 1, "query_blocks": 2, "queries": 6, "registers": 1, "image_size": 64, "init_values": 1.0,
         "dtype": "float32"}  # fmt: skip
INFER = {"short_side_px": 40, "max_side_px": 64, "score_threshold": 0.1, "overlap_threshold": 0.05}
FRAMES = 8


@functools.cache
def network():
    """A model whose queries are sure of a class each, and masks sharp."""
    model = models.build(MODEL)
    variables = jax.tree.map(np.array, models.init(model, jax.random.key(0), (64, 64)))
    variables["params"]["heads"]["class_head"]["kernel"] *= 6
    variables["params"]["heads"]["mask_head"]["fc3"]["kernel"] *= 6
    return model, variables


def predictor_of(*, kept_bytes=1 << 30, **changes):
    model, variables = network()
    return QueryPredictor(model, variables, QueryInference(**{**INFER, **changes}), kept_bytes=kept_bytes)


def video_of(count=FRAMES, height=50, width=70):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    images = [np.roll(base, 3 * i, axis=1) for i in range(count)]
    frames = lambda: (Frame(f"{i:04d}", image, i / 5) for i, image in enumerate(images))  # noqa: E731
    stems = tuple(f"{i:04d}" for i in range(count))
    source = pathlib.Path("moving.mp4")
    return Video("moving", count, 5.0, frames, lambda: (height, width), stems, source=source)


@functools.cache
def whole_clip():
    """Class logits `[t, q, k + 1]` and mask logits `[t, h4, w4, q]` of the video at once."""
    model, variables = network()
    sizes = QueryPredictor.grid(QueryInference(**INFER), (50, 70))
    images = np.stack([preprocess(frame.image, sizes.resized) for frame in video_of().frames()])
    outputs = jax.jit(model.apply)(variables, images[None])
    masks = np.einsum("thwc,tqc->thwq", outputs.mask_features[-1, 0], outputs.mask_embeds[-1, 0])
    return np.asarray(outputs.class_logits[-1, 0], np.float64), masks


@pytest.mark.parametrize(("chunk", "kept_bytes"), [(1, 1 << 30), (3, 1 << 30), (8, 1 << 30), (3, 0), (3, 20_000)])
def test_streaming_equals_the_whole_clip(chunk, kept_bytes):
    classes, masks = whole_clip()
    predictor = predictor_of(chunk_frames=chunk, kept_bytes=kept_bytes)
    frames = list(predictor.stream(video_of()))
    assert [frame.stem for frame in frames] == list(video_of().stems)
    for t, frame in enumerate(frames):
        np.testing.assert_allclose(frame.scores.class_logits, classes.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(frame.scores.logits, masks[t], atol=1e-5 * np.abs(masks).max())
        assert frame.sizes == Geometry((64, 64), (40, 56), (50, 70))


def test_what_is_kept_stays_within_the_budget():
    """15 frames of 24 tokens in chunks of 3: the second chunk would exceed 40,000 bytes, so it is looked at again."""
    model, variables = network()
    predictor = predictor_of(chunk_frames=3, kept_bytes=20_000)
    looked = []
    run = predictor._run.look
    predictor._run = type("Counted", (), {"masks": staticmethod(predictor._run.masks)})()
    predictor._run.look = lambda *args: looked.append(1) or run(*args)
    list(predictor.stream(video_of(9)))
    states = 3 * (6 + 2 + 16) * 24 * 4  # of a chunk
    assert 2 * states < 20_000 < 3 * states and len(looked) == 3 + 1


def test_panoptic_frames_follow_the_video_rule_and_not_the_chunks():
    classes, masks = whole_clip()
    found = [list(p.fuse(p.stream(video_of()), CLASSES)) for p in (predictor_of(chunk_frames=n) for n in (1, 3))]
    kept = video_segments.kept_queries(classes.mean(axis=0), INFER["score_threshold"])
    sizes = QueryPredictor.grid(QueryInference(**INFER), (50, 70))
    painted, areas = video_segments.owners(*video_segments.padded(kept, masks), sizes)
    segments, ids = video_segments.segments(kept, areas, set(CLASSES.thing_ids), INFER["overlap_threshold"])
    expected = video_segments.paint(painted, ids)
    assert len(segments) > 1 and len(np.unique(expected)) > 1
    category = {0: VOID} | {s.id: s.category for s in segments}
    things = {s.id for s in segments if s.is_thing}
    for one, other, wanted in zip(*found, expected, strict=True):
        tracks = np.where(np.isin(wanted, list(things)), wanted, 0)
        for frame in (one, other):  # rounding may move a pixel on an edge
            assert np.mean(frame.categories != np.vectorize(category.get)(wanted)) < 1e-3
            assert np.mean(frame.track_ids != tracks) < 1e-3


def test_online_frames_do_not_wait_and_know_nothing_of_later_ones():
    predictor = predictor_of(online=True, chunk_frames=1)
    asked = []

    def counted():
        for i, frame in enumerate(video_of(20).frames()):
            asked.append(i)
            yield frame

    video = video_of()._replace(frames=counted)
    stream = predictor.fuse(predictor.stream(video), CLASSES)
    early = list(itertools.islice(stream, 3))
    assert len(asked) < 20
    alone = list(predictor.fuse(predictor.stream(video_of(3)), CLASSES))
    for one, other in zip(early, alone, strict=True):
        np.testing.assert_array_equal(one.track_ids, other.track_ids)
        np.testing.assert_array_equal(one.categories, other.categories)
    classes, _ = whole_clip()
    for t, frame in enumerate(predictor.stream(video_of())):
        np.testing.assert_allclose(frame.scores.class_logits, classes[: t + 1].mean(axis=0), atol=1e-5)


def test_a_stream_without_an_end_is_decided_online():
    predictor = predictor_of(chunk_frames=3)
    camera = video_of(4)._replace(num_frames=0, source=None)
    found = list(predictor.fuse(predictor.stream(camera), CLASSES))
    online = predictor_of(online=True)
    for one, other in zip(found, online.fuse(online.stream(video_of(4)), CLASSES), strict=True):
        assert np.mean(one.categories != other.categories) < 1e-3


def test_tracks_have_the_class_of_their_query():
    classes, masks = whole_clip()
    frames = list(predictor_of().stream(video_of()))
    kept = video_segments.kept_queries(classes.mean(axis=0), INFER["score_threshold"])
    np.testing.assert_array_equal(frames[0].tracks.ids, kept.queries + 1)
    closed = frames[0].tracks.closed
    assert [track.class_logits.argmax() - 1 for track in closed] == kept.classes.tolist()  # background first
    assert not any(frame.tracks.closed for frame in frames[1:])
    expected = np.moveaxis(masks[2][..., kept.queries], -1, 0)
    np.testing.assert_allclose(frames[2].tracks.masks, expected, atol=1e-5 * np.abs(masks).max())


def test_semantic_labels_are_the_best_class_of_all_or_of_some():
    predictor = predictor_of(task="semantic")
    frame = next(predictor.stream(video_of()))
    assert frame.tracks is None
    scores = video_segments.semantic_scores(frame.scores.class_logits, frame.scores.logits[None], frame.sizes)
    scores = np.asarray(scores)
    np.testing.assert_array_equal(frame.scores.labels(), scores[0].argmax(axis=-1))
    some = frame.scores.labels(CLASSES.stuff_ids)
    np.testing.assert_array_equal(some, np.array(CLASSES.stuff_ids)[scores[0][..., CLASSES.stuff_ids].argmax(axis=-1)])
    assert frame.scores.on_grid(frame.sizes, (3, 5)).shape == (2, 16, 16)
    panoptic = next(predictor.fuse(iter([frame]), CLASSES))
    np.testing.assert_array_equal(panoptic.categories, frame.scores.labels())


def test_class_maps_are_those_of_the_video_or_of_each_frame():
    classes, _ = whole_clip()
    for changes, expected in (({}, [classes.mean(axis=0)] * FRAMES), ({"frame_classes": True}, classes)):
        for t, frame in enumerate(predictor_of(**changes).stream(video_of())):
            queries = jax.nn.softmax(expected[t].astype(np.float32))[:, [3, 5]]
            scores = np.einsum("hwq,qk->khw", jax.nn.sigmoid(frame.scores.logits), queries)
            np.testing.assert_allclose(frame.scores.on_grid(frame.sizes, (3, 5)), scores, atol=1e-4)
            np.testing.assert_allclose(frame.scores.class_logits, classes.mean(axis=0), atol=1e-4)  # of the tracks
    assert np.abs(classes - classes.mean(axis=0)).max() > 0.1


def test_instances_are_painted_by_falling_score():
    predictor = predictor_of(task="instance", max_instances=3)
    frame = next(predictor.stream(video_of()))
    painted = next(predictor.fuse(iter([frame]), CLASSES))
    best = video_segments.top_instances(frame.scores.class_logits, 3)
    masks = video_segments.instance_masks(frame.scores.logits[None, ..., best.queries], frame.sizes)[0]
    top = np.asarray(masks[..., 0])
    assert top.any() and (painted.track_ids[top] == best.queries[0] + 1).all()
    assert (painted.categories[~np.asarray(masks).any(axis=-1)] == VOID).all()


def test_scores_from_elsewhere_decide_the_stuff():
    class Sky:
        def labels(self, classes=None):
            return np.full((50, 70), 28, np.uint8)

    predictor = predictor_of()
    frames = [frame._replace(scores=Sky()) for frame in predictor.stream(video_of(2))]
    fused = list(predictor.fuse(frames, CLASSES))
    assert len(fused) == 2 and (fused[0].categories[fused[0].track_ids == 0] == 28).all()


def test_members_of_an_ensemble_give_things_and_stuff():
    """The stuff of the mean of two members whose scores are alike is that of one; things come from the first."""
    model, variables = network()

    def member(name, task):
        infer = QueryInference(**INFER, task=task)
        return Member(
            name, "probabilities", "log_scores", 1.0, QueryPredictor, model, infer, CLASSES, lambda: variables, name
        )

    things, stuff = member("things", "panoptic"), member("stuff", "semantic")
    ensemble = Ensemble([things, stuff], things)
    for group in ensemble.groups:
        group.load()
    found = list(ensemble.panoptic_frames(video_of(2)))
    alone = list(predictor_of().stream(video_of(2)))
    assert [frame.stem for frame in found] == [frame.stem for frame in alone]
    for frame, scores in zip(found, alone, strict=True):
        grid = scores.scores.on_grid(scores.sizes, CLASSES.stuff_ids)
        expected = label_map(scaled(grid, "log_scores"), scores.sizes)
        wanted = np.array(CLASSES.stuff_ids)[expected]
        outside = frame.track_ids == 0
        assert outside.any() and np.mean(frame.categories[outside] != wanted[outside]) < 0.02  # kept in float16


def test_an_empty_video_gives_nothing():
    predictor = predictor_of()
    assert list(predictor.fuse(predictor.stream(video_of(0)), CLASSES)) == []


def test_frames_are_resized_as_pillow_does_and_sizes_rounded_up_from_half():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((28, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(preprocess(image, (20, 28)), expected)
    assert QueryPredictor.grid(QueryInference(), (720, 1280)) == Geometry((736, 1280), (720, 1280), (720, 1280))
    assert QueryPredictor.grid(QueryInference(), (480, 1280)).resized == (500, 1333)  # 499.875 and 1333


def test_the_row_of_the_model_names_it():
    model, variables = network()
    assert isinstance(make_predictor(MODEL, variables, INFER, classes=CLASSES), QueryPredictor)
    with pytest.raises(UserError, match="semantic_group='VSPW'"):
        make_predictor(MODEL, variables, {**INFER, "semantic_group": "VSPW"})
