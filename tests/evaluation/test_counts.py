import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_scenes import frame, video

from vps_jax.evaluation import counts as counting
from vps_jax.types import PanopticFrame, UserError


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


@pytest.mark.parametrize("wrong", [-1, 1 << 31, 1 << 40])
def test_ids_outside_of_the_range_are_refused(wrong):
    good = frame([[1, 2]], {1: 0, 2: 1})
    bad = good._replace(pixels=np.array([[1, wrong]]))
    for both in ((good, bad), (bad, good)):
        with pytest.raises(UserError, match=f"id {wrong}; expected 0..2147483647"):
            counting.count_video([both[0]], [both[1]])
    listed = good._replace(segments=good.segments._replace(ids=np.array([1, wrong])))
    with pytest.raises(UserError, match=f"segment id {wrong}"):
        counting.count_video([listed], [good])
    track = PanopticFrame("0", np.zeros((1, 2), np.uint8), np.array([[1, wrong]]))
    with pytest.raises(UserError, match=f"track id {wrong}"):
        counting.from_panoptic(track)


def test_the_greatest_ids_count_as_any_other():
    last = video([[[1, counting.LAST_ID]]], {1: 0, counting.LAST_ID: 2})
    counts = counting.count_video(last, last)
    assert counts.truth.ids.tolist() == counts.prediction.ids.tolist() == [0, 1, counting.LAST_ID]
    tracks = np.array([[0, counting.LAST_ID - counting.FIRST_TRACK]])
    one = counting.from_panoptic(PanopticFrame("0", np.zeros((1, 2), np.uint8), tracks))
    assert one.segments.ids.tolist() == [1, counting.LAST_ID]
    with pytest.raises(UserError, match="track id 2147483647"):
        counting.from_panoptic(PanopticFrame("0", np.zeros((1, 2), np.uint8), np.array([[0, 2**31 - 1]])))


def test_tables_that_break_a_rule_are_refused():
    good = frame([[1, 2]], {1: 0, 2: 1})
    for change, words in (
        ({"categories": np.array([0, -1])}, "category -1 of segment 2"),
        ({"ids": np.array([1, 1])}, "twice"),
        ({"ids": np.array([0, 1])}, "segment id 0"),
        ({"areas": np.array([1, -1])}, "area -1 of segment 2"),
    ):
        with pytest.raises(UserError, match=words):
            counting.count_video([good._replace(segments=good.segments._replace(**change))], [good])
    with pytest.raises(UserError, match="whole numbers"):
        counting.count_video([good._replace(pixels=good.pixels * 1.0)], [good])
    with pytest.raises(UserError, match="frame 0: predicted segment 2 has category 9; expected 0..3"):
        counting.check_classes(counting.count_video([good], [frame([[1, 2]], {1: 0, 2: 9})]), 4)


def test_classes_of_a_wide_map_and_tracks_do_not_meet():
    categories = np.array([[300, 300, -1, 5]], np.int32)
    tracks = np.array([[0, 45, 0, 301]], np.int32)
    ids, segments = counting.from_panoptic(PanopticFrame("0", categories, tracks))
    assert ids[0, 2] == 0 and len(np.unique(ids)) == 4
    table = dict(zip(segments.ids.tolist(), segments.categories.tolist(), strict=True))
    assert [table[i] for i in ids[0, [0, 1, 3]].tolist()] == [300, 300, 5]
    assert counting.unknown_category(np.dtype(np.uint16)) == 65535


def test_panoptic_frame_becomes_one_segment_per_track_and_per_class():
    categories = np.array([[0, 0, 255], [2, 2, 3]], np.uint8)
    tracks = np.array([[0, 0, 0], [7, 7, 7]], np.int32)
    ids, segments = counting.from_panoptic(PanopticFrame("00000001", categories, tracks))
    assert ids[0, 2] == 0
    assert len(np.unique(ids[1])) == 1 and ids[1, 0] not in ids[0]
    table = dict(zip(segments.ids.tolist(), segments.categories.tolist(), strict=True))
    assert table == {int(ids[0, 0]): 0, int(ids[1, 0]): 2}  # the track has two pixels of class 2, one of class 3
