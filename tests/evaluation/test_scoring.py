import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_scenes import CLASSES, frame, random_videos, video

from vps_jax.evaluation import metrics, scoring
from vps_jax.evaluation.protocol import PANOPTIC, SEMANTIC, Settings
from vps_jax.evaluation.quirks import OFFICIAL, choose, without
from vps_jax.types import UserError

SETTINGS = Settings(CLASSES, windows=(1, 2))


def compute(videos, order):
    states = scoring.make_states(metrics.choose("all", PANOPTIC), SETTINGS)
    for i in order:
        one = scoring.make_states(metrics.choose("all", PANOPTIC), SETTINGS)
        scoring.score_video(one, f"v{i}", zip(*videos[i], strict=True), SETTINGS)
        scoring.merge(states, one)
    return scoring.compute(states)


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


def consistency(truth, prediction, classes=CLASSES):
    settings_ = Settings(classes)
    states = scoring.make_states(metrics.choose("vc", PANOPTIC), settings_)
    scoring.score_video(states, "v", zip(truth, prediction, strict=True), settings_)
    return scoring.compute(states)["vc"]["mvc8"]


def test_consistency_of_a_panoptic_video_looks_at_classes_not_ids():
    truth = [frame([[1, 1, 0, 7]], {1: 0, 7: 2}) for _ in range(9)]
    ids = [frame([[t + 1, 1 + t, 50, 60 + t]], {t + 1: 0, 50: 1, 60 + t: 2}) for t in range(9)]
    assert consistency(truth, ids) == 100.0
    ids[3] = frame([[1, 2, 50, 60]], {1: 0, 2: 3, 50: 1, 60: 2})  # one of four pixels changes its class
    assert consistency(truth, ids) == 75.0
    backwards = [one._replace(segments=one.segments._replace(
        ids=one.segments.ids[::-1], categories=one.segments.categories[::-1], areas=one.segments.areas[::-1]
    )) for one in ids]  # fmt: skip
    assert consistency(truth, backwards) == 75.0


def test_consistency_of_300_classes_does_not_wrap():
    many = CLASSES._replace(names=tuple(map(str, range(300))), colors=((0, 0, 0),) * 300, is_thing=(False,) * 300)
    truth = [frame([[1, 1]], {1: 1}) for _ in range(9)]
    # class 257 is 1 in eight bits
    flicker = [frame([[1, 2]], {1: 1, 2: 257 if t % 2 else 1}) for t in range(9)]
    assert consistency(truth, flicker, many) == 50.0


def test_metrics_that_see_pixels_of_class_maps_and_of_counts():
    states = scoring.make_states(metrics.choose(None, SEMANTIC), SETTINGS)
    assert states.keys() == {"miou", "vc"}
    truth = np.array([[[1, 2, 0, 255]]] * 9, np.uint8)
    prediction = np.array([[[0, 0, 3, 3]]] * 9, np.uint8)
    scoring.score_class_maps(states, "v", zip(truth, prediction, strict=True), SETTINGS)
    result = scoring.compute(states)
    assert (result["miou"]["miou"], result["miou"]["classes"], result["vc"]["mvc8"]) == (25.0, 2, 100.0)


def test_image_quality_has_no_windows():
    truth = video([[[1, 1, 7, 7]]], {1: 0, 7: 2})
    result = compute([(truth, video([[[1, 1, 1, 7]]], {1: 0, 7: 2}))], [0])["pq"]
    assert result["stuff"]["pq"] == pytest.approx(100 * 2 / 3)
    assert result["things"]["pq"] == 0.0  # IoU 1/2
    assert (result["per_class"]["2"]["fp"], result["per_class"]["2"]["fn"]) == (1, 1)
    assert result["per_video"]["v0"]["pq"] == pytest.approx(100 / 3)


def test_quirks_are_on_unless_named():
    assert sum(OFFICIAL) == len(OFFICIAL) - 1 and not OFFICIAL.json_area
    assert without() == OFFICIAL
    assert without("void_class") == OFFICIAL._replace(void_class=False)
    assert choose(on=["json_area"], off=["last_crowd"]) == OFFICIAL._replace(json_area=True, last_crowd=False)
    with pytest.raises(UserError, match="'void'.*void_class"):
        without("void")
    with pytest.raises(UserError, match="json_area.*once"):
        choose(on=["json_area"], off=["json_area"])
