import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_scenes import frame

from vps_jax.evaluation import counts as counting
from vps_jax.types import PanopticFrame


def slow_pairs(truth, prediction):
    pairs = {}
    for g, p in zip(np.ravel(truth).tolist(), np.ravel(prediction).tolist(), strict=True):
        pairs[g, p] = pairs.get((g, p), 0) + 1
    return pairs


def as_pairs(found):
    return {(int(g), int(p)): int(n) for g, p, n in zip(*found, strict=True)}


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 9), st.sampled_from([1, 2, 5, 70000]), st.integers(0, 10**6), st.booleans())
def test_pairs_of_ids_and_of_colours_equal_a_count_pixel_by_pixel(height, width, most, seed, colours):
    rng = np.random.default_rng(seed)
    maps = [rng.integers(0, most + 1, (height, width)) for _ in range(2)]
    given_maps = [np.stack([m >> 16, m >> 8 & 255, m & 255], -1).astype(np.uint8) for m in maps] if colours else maps
    assert as_pairs(counting.count_frame(*given_maps)) == slow_pairs(*maps)


def test_colour_is_read_as_red_plus_256_green_plus_65536_blue():
    bgr = np.array([[[3, 2, 1]]], np.uint8)
    assert as_pairs(counting.count_frame(bgr, bgr)) == {(1 + 256 * 2 + 65536 * 3,) * 2: 1}


def test_runs_do_not_need_contiguous_maps():
    ids = np.arange(24).reshape(4, 6)[:, ::2]
    assert as_pairs(counting.count_frame(ids, ids.astype(np.int32))) == slow_pairs(ids, ids)


def test_counts_of_a_video_are_those_of_its_frames():
    truth = [frame([[1, 1], [0, 9]], {1: 2, 9: 0}), frame([[1, 9], [9, 9]], {1: 3, 9: 0}, crowd=[1])]
    prediction = [frame([[5, 5], [5, 0]], {5: 1}), frame([[5, 6], [6, 6]], {5: 1, 6: 2})]
    counts = counting.count_video(truth, prediction)
    assert counts.truth.ids.tolist() == [0, 1, 9]
    assert counts.truth.categories.tolist() == [[-1, 2, 0], [-1, 3, 0]]
    assert counts.truth.crowd.tolist() == [[False] * 3, [False, True, False]]
    assert counts.truth.pixels.tolist() == [[1, 2, 1], [0, 1, 3]]
    assert counts.prediction.ids.tolist() == [0, 5, 6]
    assert counts.prediction.categories.tolist() == [[-1, 1, -1], [-1, 1, 2]]
    pairs = list(zip(counts.pair_truth.tolist(), counts.pair_prediction.tolist(), strict=True))
    assert pairs == [(0, 1), (1, 1), (2, 0), (2, 2)]
    assert counts.shared.tolist() == [[1, 2, 1, 0], [0, 1, 0, 3]]
    assert counts.shared.dtype == np.int64


def test_tables_come_back_from_tubes():
    truth = [frame([[1, 1], [0, 9]], {1: 2, 9: 0}), frame([[9, 9], [9, 9]], {9: 0})]
    back = counting.tables(counting.count_video(truth, truth).truth)
    for one, other in zip(truth, back, strict=True):
        assert [column.tolist() for column in one.segments] == [column.tolist() for column in other]


def test_areas_are_counted_when_the_table_has_none():
    segments = counting.make_segments([{"id": 4, "category_id": 1}])
    counts = counting.count_video([counting.SegmentFrame(np.full((2, 3), 4), segments)], [frame([[1] * 3] * 2, {1: 0})])
    assert counts.truth.areas.tolist() == [[0, 6]]


def test_frames_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="frame 0"):
        counting.count_video([frame([[1]], {1: 0})], [frame([[1, 1]], {1: 0})])


def test_panoptic_frame_becomes_one_segment_per_track_and_per_class():
    categories = np.array([[0, 0, 255], [2, 2, 3]], np.uint8)
    tracks = np.array([[0, 0, 0], [7, 7, 7]], np.int32)
    ids, segments = counting.from_panoptic(PanopticFrame("00000001", categories, tracks))
    assert ids[0, 2] == 0
    assert len(np.unique(ids[1])) == 1 and ids[1, 0] not in ids[0]
    table = dict(zip(segments.ids.tolist(), segments.categories.tolist(), strict=True))
    assert table == {int(ids[0, 0]): 0, int(ids[1, 0]): 2}  # the track has two pixels of class 2, one of class 3
