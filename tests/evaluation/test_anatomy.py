"""Every cause is planted alone: mending it brings 100, mending any other brings nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from label_scenes import CLASSES, frame, random_videos, video

from vps_jax.evaluation import anatomy
from vps_jax.evaluation import counts as counting
from vps_jax.evaluation.vpq import video_table

SKY, GRASS, CAT, OTHER_CAT, DOG = 1, 2, 11, 12, 13
KINDS = {SKY: 0, GRASS: 1, CAT: 2, OTHER_CAT: 2, DOG: 3}
WINDOWS = (1, 2, 4)


def scene():
    """Four frames of 8 x 16: sky over grass, two cats beside each other, a dog, a row of void."""
    maps = np.full((4, 8, 16), SKY)
    maps[:, 4:] = GRASS
    maps[:, 2:6, 1:4] = CAT
    maps[:, 2:6, 4:7] = OTHER_CAT
    maps[:, 3:6, 10:14] = DOG
    maps[:, 0] = 0
    return maps


def costs_of(truth, prediction):
    state = anatomy.ErrorAnatomy(CLASSES, windows=WINDOWS)
    state.update("video", counting.count_video(truth, prediction))
    result = state.compute()
    costs = {cause: round(cost["all"], 9) for cause, cost in result["costs"].items()}
    return result["vpq"]["all"], {cause: cost for cause, cost in costs.items() if cost}


def planted(change, kinds=None):
    """VPQ and costs when the prediction is the truth with one change made to its maps."""
    maps = scene()
    prediction = maps.copy()
    change(prediction)
    return costs_of(video(maps, KINDS), video(prediction, KINDS | (kinds or {})))


def assert_only(found, cause):
    vpq, costs = found
    assert vpq < 99
    assert costs == {cause: pytest.approx(100 - vpq, abs=1e-6)}


def test_perfect_prediction_has_no_cost():
    assert planted(lambda maps: None) == (pytest.approx(100.0), {})


def test_missed():
    def swallow(maps):
        maps[1:3, 2:4][maps[1:3, 2:4] == DOG] = SKY
        maps[1:3, 4:][maps[1:3, 4:] == DOG] = GRASS

    assert_only(planted(swallow), "missed")


def test_wrong_class():
    maps = scene()
    truth = video(maps, KINDS)
    prediction = [frame(one, KINDS | {DOG: 2 if t >= 2 else 3}) for t, one in enumerate(maps)]
    assert_only(costs_of(truth, prediction), "wrong_class")
    assert_only(planted(lambda maps: np.putmask(maps, maps == DOG, 98), {98: 2}), "wrong_class")


def test_split():
    def halve(maps):
        maps[:, 4:, 8:][maps[:, 4:, 8:] == GRASS] = 97

    assert_only(planted(halve, {97: 1}), "split")


def test_small_piece_beside_a_found_segment_is_split_too():
    assert_only(planted(lambda maps: maps.__setitem__((slice(None), 5, 10), 96), {96: 3}), "split")


def test_merged_things():
    assert_only(planted(lambda maps: np.putmask(maps, maps == OTHER_CAT, CAT)), "merged")


def test_merged_stuff():
    # the one segment has the smaller region's class, so it is rightly home of neither
    assert_only(planted(lambda maps: np.putmask(maps, maps == GRASS, SKY)), "merged")


def test_stuff_swallowed_by_a_segment_that_is_rightly_elsewhere_is_missed():
    assert_only(planted(lambda maps: np.putmask(maps, maps == SKY, GRASS)), "missed")


def test_identity_switch():
    assert_only(planted(lambda maps: np.putmask(maps[2:], maps[2:] == DOG, 95), {95: 3}), "identity")


def test_identity_swap():
    def swap(maps):
        cat, other = maps[3] == CAT, maps[3] == OTHER_CAT
        maps[3][cat], maps[3][other] = OTHER_CAT, CAT

    assert_only(planted(swap), "identity")


def test_void():
    def blank(maps):
        maps[1] = 0
        maps[:, 7] = 0
        maps[0][maps[0] == DOG] = 0

    assert_only(planted(blank), "void")


def test_boundary_between_neighbours():
    def move(maps):
        maps[:, 4][maps[:, 4] == GRASS] = SKY

    assert_only(planted(move), "boundary")


def test_boundary_of_a_segment_that_is_far_too_small():
    def shrink(maps):
        inner = maps[:, 4:6, 11:13].copy()
        maps[:, 3][maps[:, 3] == DOG] = SKY
        maps[:, 4:][maps[:, 4:] == DOG] = GRASS
        maps[:, 4:6, 11:13] = inner  # 4 of 12 pixels

    vpq, costs = planted(shrink)
    assert costs["boundary"] == pytest.approx(100 - vpq)


def test_extra():
    assert_only(planted(lambda maps: maps.__setitem__((slice(1, 3), slice(6, 8), slice(0, 4)), 94), {94: 3}), "extra")


def test_extra_inside_a_crowd_of_another_class():
    maps = scene()
    prediction = maps.copy()
    prediction[maps == CAT] = 93
    truth = video(maps, KINDS, crowd=[CAT])
    assert_only(costs_of(truth, video(prediction, KINDS | {93: 3})), "extra")
    assert costs_of(truth, video(prediction, KINDS | {93: 2})) == (pytest.approx(100.0), {})


def test_prediction_on_void_costs_nothing():
    def paint(maps):
        maps[:, 0] = 92

    assert planted(paint, {92: 3}) == (pytest.approx(100.0), {})


def test_two_causes_are_told_apart():
    def both(maps):
        np.putmask(maps, maps == OTHER_CAT, CAT)
        np.putmask(maps[2:], maps[2:] == DOG, 95)

    vpq, costs = planted(both, {95: 3})
    assert set(costs) == {"merged", "identity"}
    assert sum(costs.values()) == pytest.approx(100 - vpq)


def predicted_under(counts, truth_id, t):
    """Predicted ids of a mended video that lie on a truth id in frame t."""
    on_it = (counts.truth.ids[counts.pair_truth] == truth_id) & (counts.shared[t] > 0)
    return set(counts.prediction.ids[counts.pair_prediction[on_it]].tolist())


def test_a_missed_segment_does_not_get_an_id_that_another_has_in_that_frame():
    maps = scene()
    prediction = maps.copy()
    prediction[3][maps[3] == CAT] = SKY
    prediction[3][maps[3] == DOG] = CAT  # the cat's own id
    counts = counting.count_video(video(maps, KINDS), [frame(one, KINDS | {CAT: 2}) for one in prediction])
    mended = anatomy.mend(counts)["missed"]
    assert len(predicted_under(mended, CAT, 3)) == 1
    assert predicted_under(mended, CAT, 3) != predicted_under(mended, DOG, 3)


def test_an_id_in_the_way_of_its_owner_takes_the_place_set_free():
    maps = scene()
    prediction = maps.copy()
    prediction[3][maps[3] == DOG] = 95
    prediction[3, 1, 10:14] = DOG  # a stray piece in the sky under the dog's own id
    counts = counting.count_video(video(maps, KINDS), video(prediction, KINDS | {95: 3}))
    mended = anatomy.mend(counts)["identity"]
    assert predicted_under(mended, DOG, 3) == predicted_under(mended, DOG, 0)
    assert not predicted_under(mended, DOG, 3) & predicted_under(mended, SKY, 3)


@settings(deadline=None, max_examples=40)
@given(random_videos())
def test_mending_keeps_every_truth_pixel_and_the_truth_itself(both):
    counts = counting.count_video(*both)
    mended = anatomy.mend(counts)
    assert tuple(mended) == anatomy.CAUSES
    for changed in mended.values():
        np.testing.assert_array_equal(changed.truth.pixels, counts.truth.pixels)
        np.testing.assert_array_equal(changed.truth.categories, counts.truth.categories)
        np.testing.assert_array_equal(changed.prediction.pixels.sum(axis=1), counts.prediction.pixels.sum(axis=1))
        listed, seen = changed.prediction.categories >= 0, changed.prediction.pixels > 0
        np.testing.assert_array_equal(listed[:, 1:], seen[:, 1:])


@settings(deadline=None, max_examples=20)
@given(random_videos())
def test_nothing_is_won_where_the_prediction_is_the_truth(both):
    truth = [frame(one.pixels, dict.fromkeys(range(6), 2)) for one in both[0]]
    counts = counting.count_video(truth, truth)
    for changed in anatomy.mend(counts).values():
        np.testing.assert_allclose(video_table(changed, 1, 4), video_table(counts, 1, 4))


def test_merge_of_parts_equals_the_whole():
    maps = scene()
    prediction = maps.copy()
    np.putmask(prediction, prediction == OTHER_CAT, CAT)
    counts = [counting.count_video(video(maps, KINDS), video(one, KINDS)) for one in (maps, prediction)]
    whole, one, other = (anatomy.ErrorAnatomy(CLASSES, windows=WINDOWS) for _ in range(3))
    for state, names in ((whole, (0, 1)), (one, (1,)), (other, (0,))):
        for i in names:
            state.update(str(i), counts[i])
    one.merge(other)
    assert one.compute() == whole.compute()
