import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_scenes import CLASSES, frame, random_videos, video

from vps_jax.evaluation import scores
from vps_jax.evaluation.quirks import OFFICIAL, without
from vps_jax.types import UserError

ALL = scores.Settings(CLASSES, scores.METRICS, windows=(1, 2))


def compute(videos, order):
    states = scores.make_states(ALL)
    for i in order:
        scores.merge(states, scores.score_video(f"v{i}", zip(*videos[i], strict=True), ALL))
    return scores.compute(states)


@settings(deadline=None, max_examples=8)
@given(st.lists(random_videos(), min_size=1, max_size=4), st.randoms())
def test_the_order_of_videos_does_not_change_one_bit_of_any_metric(videos, random):
    order = list(range(len(videos)))
    whole = compute(videos, order)
    random.shuffle(order)
    assert compute(videos, order) == whole


@settings(deadline=None, max_examples=12)
@given(random_videos(), st.permutations(range(1, 6)))
def test_names_of_predicted_ids_change_nothing(both, permutation):
    truth, prediction = both
    names = np.array([0, *(77 * i for i in permutation)])
    renamed = [
        one._replace(pixels=names[one.pixels], segments=one.segments._replace(ids=names[one.segments.ids]))
        for one in prediction
    ]
    before, after = compute([both], [0]), compute([(truth, renamed)], [0])
    assert before.pop("anatomy")["vpq"] == after.pop("anatomy")["vpq"]
    assert_close(before, after)


def assert_close(one, other):
    """Equal to the last bit or so: STQ adds over tracks in the order of their ids."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    else:
        assert one == (pytest.approx(other, rel=1e-12) if isinstance(other, float) else other)


def test_truth_against_itself_scores_100_everywhere():
    maps = np.full((10, 4, 6), 1)
    maps[:, 2:, :4] = 7
    maps[:, :, 5] = 0
    truth = video(maps, {1: 0, 7: 2})
    result = compute([(truth, truth)], [0])
    found = [result["vpq"]["vpq"]["all"], result["stq"]["stq"], result["pq"]["all"]["pq"], result["miou"]["miou"]]
    assert [*found, result["vc"]["mvc8"], result["anatomy"]["vpq"]["all"]] == [100.0] * 6
    assert not any(cost["all"] for cost in result["anatomy"]["costs"].values())


def test_consistency_of_a_panoptic_video_looks_at_classes_not_ids():
    truth = [frame([[1, 1, 0, 7]], {1: 0, 7: 2}) for _ in range(9)]
    ids = [frame([[t + 1, 1 + t, 50, 60 + t]], {t + 1: 0, 50: 1, 60 + t: 2}) for t in range(9)]
    settings_ = scores.Settings(CLASSES, ("vc",))
    states = scores.score_video("v", zip(truth, ids, strict=True), settings_)
    assert scores.compute(states)["vc"]["mvc8"] == 100.0
    ids[3] = frame([[1, 2, 50, 60]], {1: 0, 2: 3, 50: 1, 60: 2})  # one of four pixels changes its class
    states = scores.score_video("v", zip(truth, ids, strict=True), settings_)
    assert scores.compute(states)["vc"]["mvc8"] == 75.0
    backwards = [one._replace(segments=type(one.segments)(*(c[::-1] for c in one.segments))) for one in ids]
    states = scores.score_video("v", zip(truth, backwards, strict=True), settings_)
    assert scores.compute(states)["vc"]["mvc8"] == 75.0


def test_image_quality_has_no_windows():
    truth = video([[[1, 1, 7, 7]]], {1: 0, 7: 2})
    result = compute([(truth, video([[[1, 1, 1, 7]]], {1: 0, 7: 2}))], [0])["pq"]
    assert result["stuff"]["pq"] == pytest.approx(100 * 2 / 3)
    assert result["things"]["pq"] == 0.0  # IoU 1/2
    assert (result["per_class"]["2"]["fp"], result["per_class"]["2"]["fn"]) == (1, 1)
    assert result["per_video"]["v0"]["pq"] == pytest.approx(100 / 3)


def test_choice_of_metrics():
    known = ("a", "b", "c")
    assert scores.choose_metrics(None, known, ("a", "b")) == ("a", "b")
    assert scores.choose_metrics("all", known, ("a",)) == known == scores.choose_metrics(["all"], known, ())
    assert scores.choose_metrics("c, a", known, ()) == ("a", "c")
    for wrong in ("d", "", []):
        with pytest.raises(UserError, match="a, b, c"):
            scores.choose_metrics(wrong, known, known)


def test_quirks_are_on_unless_named():
    assert all(OFFICIAL)
    assert without() == OFFICIAL
    changed = without("void_class", "json_area")
    assert not changed.void_class and not changed.json_area and sum(changed) == len(changed) - 2
    with pytest.raises(UserError, match="'void'"):
        without("void")
