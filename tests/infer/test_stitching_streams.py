"""Joining clips: hand-worked cases, and random videos against a twin that sees the whole video at once."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from vps_jax.config import ClipInference
from vps_jax.infer.stitching import Stitcher, associate, split_clips
from vps_jax.types import ClipPrediction, UserError

SURE, UNSURE = [-4.0, 4.0, 0.0], [4.0, 0.0, 0.0]  # background first


def square(*boxes, size=(4, 6)):
    """Masks `[t, h4, w4]` with logit 1 inside one box of columns per frame and -1 outside."""
    masks = np.full((len(boxes), *size), -1.0, np.float32)
    for t, (left, right) in enumerate(boxes):
        masks[t, :, left:right] = 1
    return masks


def clip(*masks, classes=None, semantic=0.0):
    frames = masks[0].shape[0]
    classes = [SURE] * len(masks) if classes is None else classes
    return ClipPrediction(
        np.stack(masks), np.array(classes, np.float32), np.full((3, frames, 4, 6), semantic, np.float32)
    )


def ids(frames):
    return [frame.track_ids.tolist() for frame in frames]


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (20, [range(12), range(6, 18), range(12, 20)]),
        (12, [range(12)]),
        (13, [range(12), range(6, 13)]),
        (5, [range(5)]),
        (1, [range(1)]),
        (0, []),
    ],
)
def test_clips_of_twelve_frames_every_six(length, expected):
    cut = list(split_clips(iter(range(length)), clip_frames=12, overlap_frames=6))
    assert [frames for _, frames in cut] == [list(r) for r in expected]
    assert [first for first, _ in cut] == [r.start for r in expected]


def test_clips_without_overlap():
    assert list(split_clips("abcde", clip_frames=2, overlap_frames=0)) == [(0, ["a", "b"]), (2, ["c", "d"]), (4, ["e"])]


@pytest.mark.parametrize(("clip_frames", "overlap"), [(4, 3), (4, -1), (0, 0), (1, 1)])
def test_a_frame_is_never_in_three_clips(clip_frames, overlap):
    with pytest.raises(UserError, match=f"overlap_frames={overlap}"):
        list(split_clips("abc", clip_frames=clip_frames, overlap_frames=overlap))


def test_association_needs_more_than_the_least_iou():
    # 3 shared cells, union 6: (3 + 1) / (6 + 1) = 4 / 7; the smoothing matters at this size
    before = np.zeros((1, 1, 1, 8), bool)
    after = np.zeros((1, 1, 1, 8), bool)
    before[..., 0:5], after[..., 2:6] = True, True
    assert associate(before, after, min_iou=0.57) == {0: 0}  # 4 / 7 = 0.5714
    assert associate(before, after, min_iou=4 / 7) == {}
    assert associate(before[:0], after, min_iou=0.0) == {} == associate(before, after[:0], min_iou=0.0)


def test_two_empty_masks_are_one_track():
    empty = np.zeros((1, 2, 3, 3), bool)
    assert associate(empty, empty, min_iou=0.99) == {0: 0}


def test_association_maximises_the_sum():
    """Row 0 alone would take column 0, but then row 1 is left with nothing."""
    before = np.zeros((2, 1, 1, 12), bool)
    after = np.zeros((2, 1, 1, 12), bool)
    before[0, ..., 0:8], before[1, ..., 2:10] = True, True
    after[0, ..., 1:9], after[1, ..., 0:7] = True, True
    assert associate(before, after, min_iou=0.5) == {0: 1, 1: 0}


def test_ids_are_inherited_or_new_in_query_order():
    stitcher = Stitcher(ClipInference())
    a, b = square((0, 3), (0, 3), (0, 3)), square((3, 6), (3, 6), (3, 6))
    c = square((1, 2), (1, 2), (1, 2))
    first = stitcher.add(0, clip(a, b))
    assert first.frames == [] and first.closed == []
    second = stitcher.add(2, clip(c, b, a))  # one common frame; c is new
    assert [frame.index for frame in second.frames] == [0, 1]
    assert ids(second.frames) == [[1, 2], [1, 2]]
    done = stitcher.finish()
    # the common frame keeps the masks of the earlier clip, where c was not
    assert ids(done.frames) == [[1, 2], [3, 2, 1], [3, 2, 1]]
    assert sorted(track.track_id for track in done.closed) == [1, 2, 3]


def test_a_track_missed_for_one_clip_starts_anew_and_was_final_before():
    stitcher = Stitcher(ClipInference())
    a, b = square((0, 3), (0, 3)), square((3, 6), (3, 6))
    stitcher.add(0, clip(a, b, classes=[SURE, [0.0, 0.0, 6.0]]))
    step = stitcher.add(1, clip(a, b, classes=[[-4.0, 6.0, 2.0], UNSURE]))
    (closed,) = step.closed
    assert closed.track_id == 2 and closed.class_logits.tolist() == [0.0, 0.0, 6.0]
    (mean,) = stitcher.add(2, clip(a, b, classes=[UNSURE, SURE])).closed
    assert mean.track_id == 1 and mean.class_logits.tolist() == [-4.0, 5.0, 1.0]  # mean of two clips
    assert ids(stitcher.finish().frames) == [[1], [3]]


def test_a_clip_without_instances_leaves_its_frames_empty():
    stitcher = Stitcher(ClipInference())
    a = square((0, 3), (0, 3), (0, 3), (0, 3))
    stitcher.add(0, clip(a))
    frames = stitcher.add(2, clip(a, classes=[UNSURE])).frames
    frames += stitcher.add(4, clip(a)).frames + stitcher.finish().frames
    assert ids(frames) == [[1], [1], [1], [1], [], [], [2], [2]]


def test_tracks_are_chosen_by_score_and_kept_in_query_order():
    stitcher = Stitcher(ClipInference(score_threshold=0.4, max_tracks_per_clip=2))
    masks = [square((i, i + 1)) for i in range(4)]
    classes = [[0.0, 3.0, 0.0], [0.0, 0.0, 5.0], [0.0, 4.0, 0.0], [5.0, 0.0, 0.0]]
    stitcher.add(0, clip(*masks, classes=classes))
    (frame,) = stitcher.finish().frames
    assert frame.track_ids.tolist() == [1, 2]
    assert np.array_equal(frame.instance_masks, np.stack([masks[1][0], masks[2][0]]))


def test_a_score_of_exactly_the_threshold_is_kept():
    stitcher = Stitcher(ClipInference(score_threshold=0.5))
    stitcher.add(0, clip(square((0, 1)), classes=[[0.0, 0.0, -np.inf]]))
    assert ids(stitcher.finish().frames) == [[1]]


@pytest.mark.parametrize(("mode", "expected"), [("earlier", 1.0), ("mean", 2.0)])
def test_masks_of_common_frames(mode, expected):
    stitcher = Stitcher(ClipInference(instance_overlap=mode))
    masks = square((0, 3), (0, 3))
    stitcher.add(0, clip(masks))
    frames = stitcher.add(1, clip(np.where(masks > 0, 3.0, -1.0))).frames + stitcher.finish().frames
    assert [frame.instance_masks.max() for frame in frames] == [1.0, expected, 3.0]


def test_semantic_logits_of_common_frames_are_averaged():
    stitcher = Stitcher(ClipInference())
    masks = square((0, 3), (0, 3), (0, 3))
    stitcher.add(0, clip(masks, semantic=1.0))
    frames = stitcher.add(2, clip(masks, semantic=4.0)).frames + stitcher.finish().frames
    assert [float(frame.semantic.mean()) for frame in frames] == [1.0, 1.0, 2.5, 4.0, 4.0]


def test_clips_that_leave_a_gap_are_refused():
    stitcher = Stitcher(ClipInference())
    with pytest.raises(ValueError, match="starts at frame 1"):
        stitcher.add(1, clip(square((0, 3))))
    stitcher.add(0, clip(square((0, 3), (0, 3))))
    for start in (0, 3):
        with pytest.raises(ValueError, match=f"starts at frame {start}"):
            stitcher.add(start, clip(square((0, 3))))


def random_video(seed, frames, clip_frames, overlap, queries=4):
    """Clips of blobs that move slowly, so that tracks sometimes match; some clips have no sure query."""
    rng = np.random.default_rng(seed)
    left = rng.integers(0, 8, queries)
    for first, indices in split_clips(range(frames), clip_frames=clip_frames, overlap_frames=overlap):
        order = rng.permutation(queries)
        masks = np.full((queries, len(indices), 4, 12), -1.0, np.float32)
        for row, query in enumerate(order):
            for t, index in enumerate(indices):
                start = (left[query] + index // 2 + rng.integers(0, 2)) % 9
                masks[row, t, :, start : start + 4] = rng.uniform(0.1, 1)
        classes = rng.normal(0, 2, (queries, 4)).astype(np.float32)
        classes[:, 0] += 20 * (rng.random() < 0.15)
        yield first, ClipPrediction(masks, classes, rng.normal(size=(4, len(indices), 4, 12)).astype(np.float32))


def whole_video_twin(clips, threshold):
    """Ids, masks, semantic logits of every frame and class logits of every track, from a list of all clips."""
    tracks, frames, logits, counter = [], {}, {}, 0
    semantic = {}
    for k, (first, p) in enumerate(clips):
        e = np.exp(p.instance_classes.astype(np.float64))
        keep = [q for q in range(len(e)) if max(e[q, 1:] / e[q].sum()) >= threshold]
        own = {}
        overlap = []
        if k:
            before_first, before = clips[k - 1][0], clips[k - 1][1]
            overlap = list(range(first, before_first + before.semantic.shape[1]))
            iou = np.zeros((len(tracks[-1]), len(keep)))
            for i, old in enumerate(tracks[-1].values()):
                for j, new in enumerate(keep):
                    x = before.instance_masks[old][[f - before_first for f in overlap]] > 0
                    y = p.instance_masks[new][[f - first for f in overlap]] > 0
                    iou[i, j] = ((x & y).sum() + 1) / ((x | y).sum() + 1)
            for i, j in zip(*linear_sum_assignment(-iou), strict=True):
                if iou[i, j] > 0.5:
                    own[keep[j]] = list(tracks[-1])[i]
        for q in keep:
            if q not in own:
                counter += 1
                own[q] = counter
            logits.setdefault(own[q], []).append(p.instance_classes[q].astype(np.float64))
        own = {q: own[q] for q in keep}
        tracks.append({track: q for q, track in own.items()})
        for t in range(p.semantic.shape[1]):
            semantic.setdefault(first + t, []).append(p.semantic[:, t])
            if first + t not in overlap:
                frames[first + t] = {own[q]: p.instance_masks[q, t] for q in keep}
    mean = {track: np.mean(rows, axis=0) for track, rows in logits.items()}
    return frames, {i: np.mean(x, axis=0) for i, x in semantic.items()}, mean


@pytest.mark.parametrize(("clip_frames", "overlap"), [(4, 2), (5, 2), (6, 1)])
@pytest.mark.parametrize("on_device", [False, True])
def test_streaming_equals_the_whole_video_at_once(clip_frames, overlap, on_device):
    for seed in range(4 if on_device else 12):
        clips = list(random_video(seed, 17 + seed % 3, clip_frames, overlap))
        frames, semantic, mean = whole_video_twin(clips, 0.5)
        stitcher = Stitcher(ClipInference())
        steps = []
        for first, prediction in clips:
            if on_device:
                prediction = ClipPrediction(*(jnp.asarray(x) for x in prediction))
            steps.append(stitcher.add(first, prediction))
            assert stitcher.held_frames <= clip_frames
        steps.append(stitcher.finish())
        found = [frame for step in steps for frame in step.frames]
        assert [frame.index for frame in found] == sorted(frames)
        for frame in found:
            assert dict.fromkeys(frame.track_ids.tolist()).keys() == frames[frame.index].keys()
            for track, mask in zip(frame.track_ids.tolist(), frame.instance_masks, strict=True):
                assert np.array_equal(mask, frames[frame.index][track])
            np.testing.assert_allclose(frame.semantic, semantic[frame.index], atol=1e-6)
        closed = {track.track_id: track.class_logits for step in steps for track in step.closed}
        assert closed.keys() == mean.keys()
        for track, row in closed.items():
            np.testing.assert_allclose(row, mean[track], atol=1e-12)


def test_a_semantic_model_has_no_tracks():
    stitcher = Stitcher(ClipInference())
    stitcher.add(0, ClipPrediction(None, None, np.ones((3, 2, 4, 6), np.float32)))
    done = stitcher.finish()
    assert ids(done.frames) == [[], []] and done.closed == []
    assert done.frames[0].instance_masks.shape == (0, 4, 6)
