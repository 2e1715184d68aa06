import math

import numpy as np
import pytest
from hypothesis import given, settings
from label_scenes import CLASSES, frame, random_videos, video

from vps_jax.evaluation import counts as counting
from vps_jax.evaluation.quirks import OFFICIAL, without
from vps_jax.evaluation.stq import SegmentationTrackingQuality, associations

THINGS = np.array(CLASSES.is_thing)


def score(*videos, quirks=OFFICIAL):
    state = SegmentationTrackingQuality(CLASSES, quirks=quirks)
    for i, (truth, prediction) in enumerate(videos):
        state.update(f"v{i}", counting.count_video(truth, prediction))
    return state.compute()


def labels_of(frames):
    """Per frame class and number of every pixel; numbers go up in the order in which the tables list the ids."""
    numbers, result = {}, []
    for one in frames:
        classes = dict(zip(one.segments.ids.tolist(), one.segments.categories.tolist(), strict=True))
        for i in classes:
            numbers.setdefault(i, len(numbers))
        result.append([(classes.get(i, -1), numbers.get(i, -1)) for i in one.pixels.ravel().tolist()])
    return [pixel for frame_ in result for pixel in frame_]


def slow_associations(truth, prediction):
    """The definition, pixel by pixel: truth number 0 is crowd when it is a thing."""
    thing = [*THINGS, False]
    truth, prediction = labels_of(truth), labels_of(prediction)
    kept = [(g, p) for g, p in zip(truth, prediction, strict=True) if not (thing[g[0]] and g[1] == 0)]
    total, tracks = 0.0, {g for g, _ in kept if thing[g[0]]}
    for track in tracks:
        size = sum(g == track for g, _ in kept)
        for other in {p for g, p in kept if g == track and thing[p[0]]}:
            shared = sum(pair == (track, other) for pair in kept)
            union = size + sum(p == other for _, p in kept) - shared
            total += shared * shared / union / size
    return total, len(tracks)


@settings(deadline=None, max_examples=100)
@given(random_videos())
def test_associations_equal_the_definition_taken_pixel_by_pixel(both):
    found, tracks = associations(counting.count_video(*both), THINGS)
    slow, slow_tracks = slow_associations(*both)
    assert tracks == slow_tracks
    assert found == pytest.approx(slow, abs=1e-12)


def test_hand_worked_video():
    # sky in the upper row, one cat below, two frames; the prediction changes the cat's id
    truth = video(np.array([[[1, 1], [7, 7]]] * 2), {1: 0, 7: 2})
    prediction = [frame([[1, 1], [i, i]], {1: 0, i: 2}) for i in (8, 9)]
    result = score((truth, prediction))
    # each predicted track shares 2 of the cat's 4 pixels: 2 * (1/4) * 2 * 2 / 4
    assert result["aq"] == pytest.approx(50.0)
    assert result["sq"] == 100.0
    assert result["stq"] == pytest.approx(100 * math.sqrt(0.5))
    assert result["tracks"] == 1


def test_truth_against_itself_scores_100():
    truth = video(np.array([[[1, 1], [7, 7]]] * 2), {1: 0, 7: 2})
    assert score((truth, truth))["stq"] == 100.0


def test_class_of_a_track_need_not_agree_but_a_change_of_class_splits_it():
    truth = video(np.array([[[1, 7]]] * 2), {1: 0, 7: 2})
    dog = video(np.array([[[1, 7]]] * 2), {1: 0, 7: 3})
    assert score((truth, dog))["aq"] == 100.0
    changing = [truth[0], dog[1]]
    assert score((truth, changing))["aq"] == pytest.approx(50.0)


def test_predicted_void_is_a_class_of_the_mean_unless_switched_off():
    truth = video([[[1, 1, 7, 7]]], {1: 0, 7: 2})
    prediction = video([[[1, 0, 7, 7]]], {1: 0, 7: 2})
    assert score((truth, prediction))["sq"] == pytest.approx(100 * (0.5 + 1 + 0) / 3)
    assert score((truth, prediction), quirks=without("void_class"))["sq"] == pytest.approx(75.0)


def test_first_listed_thing_is_dropped_unless_switched_off():
    truth = video([[[1, 1, 7]]], {1: 2, 7: 3})
    prediction = video([[[1, 0, 7]]], {1: 2, 7: 3})
    result = score((truth, prediction))
    assert (result["aq"], result["tracks"]) == (100.0, 1)
    result = score((truth, prediction), quirks=without("first_thing_crowd"))
    # the first cat: 1 of 2 pixels shared, IoU 1/2, so a = 1 * 1/2 / 2
    assert (result["aq"], result["tracks"]) == (pytest.approx(100 * (1 / 4 + 1) / 2), 2)


def test_crowds_are_tracks_unless_switched_off():
    truth = [frame([[1, 7, 8]], {1: 0, 7: 2, 8: 2}, crowd=[8])]
    prediction = [frame([[1, 7, 0]], {1: 0, 7: 2})]
    assert score((truth, prediction))["tracks"] == 2
    assert score((truth, prediction), quirks=without("crowd_tracks"))["aq"] == 100.0


def test_spilling_into_void_costs_unless_switched_off():
    truth = video([[[1, 7, 0]]], {1: 0, 7: 2})
    prediction = video([[[1, 7, 7]]], {1: 0, 7: 2})
    assert score((truth, prediction))["aq"] == pytest.approx(50.0)
    assert score((truth, prediction), quirks=without("void_in_tracks"))["aq"] == 100.0


def test_without_tracks_the_association_is_zero():
    truth = video([[[1, 1]]], {1: 0})
    result = score((truth, truth))
    assert (result["stq"], result["aq"], result["sq"], result["tracks"]) == (0.0, 0.0, 100.0, 0)


def test_merge_of_parts_equals_the_whole_to_the_last_bit():
    # a = (hit / size)^2 of each track: 1/9, 4/9, 1/49, whose sum depends on the order in its last bit
    videos = []
    for hit, size in ((1, 3), (2, 3), (1, 7)):
        truth = [frame([[1, *[7] * size]], {1: 0, 7: 2})]
        videos.append((truth, [frame([[1, *[7] * hit, *[0] * (size - hit)]], {1: 0, 7: 2})]))
    whole = score(*videos)
    parts = []
    for i in (2, 0, 1):
        parts.append(SegmentationTrackingQuality(CLASSES))
        parts[-1].update(f"v{i}", counting.count_video(*videos[i]))
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    assert parts[0].compute() == whole
    with pytest.raises(ValueError, match="twice"):
        parts[0].merge(parts[1])
    with pytest.raises(ValueError, match="merged"):
        parts[0].merge(SegmentationTrackingQuality(CLASSES, quirks=without("void_class")))
