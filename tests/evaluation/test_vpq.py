import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_scenes import CLASSES, frame, random_videos, slow_table, video

from vps_jax.evaluation import counts as counting
from vps_jax.evaluation import vpq
from vps_jax.evaluation.quirks import choose, without
from vps_jax.types import PanopticFrame, UserError

QUICK = settings(deadline=None, max_examples=40)


def score(truth, prediction, **options):
    return vpq.evaluate_video(truth, prediction, classes=CLASSES, **options).compute()


@settings(deadline=None, max_examples=150)
@given(random_videos(), st.integers(1, 5))
def test_windows_equal_the_definition_taken_window_by_window(both, k):
    counts = counting.count_video(*both)
    table = vpq.video_table(counts, k, 4)
    if len(both[0]) < k:
        assert table is None
    else:
        np.testing.assert_allclose(table, slow_table(*both, k), rtol=0, atol=1e-12)


@QUICK
@given(random_videos())
def test_truth_against_itself_scores_100(both):
    truth = [frame(one.pixels, dict.fromkeys(range(6), 2)) for one in both[0]]
    result = score(truth, truth, windows=(1, 2))
    for means in result["windows"].values():
        assert means["all"]["pq"] in (None, 100.0)
    assert result["windows"]["1"]["all"]["classes"] == int(any((one.pixels > 0).any() for one in truth))


@QUICK
@given(random_videos(), st.permutations(range(1, 6)))
def test_predicted_ids_may_be_any_numbers(both, permutation):
    truth, prediction = both
    names = np.array([0, *(1000 * i for i in permutation)])
    renamed = [
        counting.SegmentFrame(names[one.pixels], one.segments._replace(ids=names[one.segments.ids]))
        for one in prediction
    ]
    assert score(truth, prediction, windows=(1, 2, 3)) == score(truth, renamed, windows=(1, 2, 3))


@QUICK
@given(st.lists(random_videos(), min_size=2, max_size=4), st.randoms())
def test_states_merge_in_any_order_and_grouping_to_the_same_bits(videos, random):
    def state(numbers):
        whole = vpq.VideoPQ(CLASSES, windows=(1, 2))
        for i in numbers:
            whole.update(f"v{i}", counting.count_video(*videos[i]))
        return whole

    order = list(range(len(videos)))
    whole = state(order)
    random.shuffle(order)
    cut = random.randint(0, len(order))
    part = state(order[cut:])
    part.merge(state(order[:cut]))
    assert part.compute() == whole.compute()


def test_hand_worked_identity_switch():
    # one cat fills a frame of 4 pixels, three frames; its id changes at the last
    truth = video(np.full((3, 2, 2), 7), {7: 2})
    prediction = [frame(np.full((2, 2), i), {i: 2}) for i in (1, 1, 2)]
    result = score(truth, prediction, windows=(1, 2, 3))
    assert result["windows"]["1"]["all"]["pq"] == 100.0
    # k=2: frames 1-2 are right; in frames 2-3 both ids cover half of the tube, which is no match: TP 1, FP 2, FN 1
    assert result["windows"]["2"]["all"]["pq"] == pytest.approx(100 * 1 / (1 + 2 / 2 + 1 / 2))
    # k=3: id 1 covers 8 of 12 pixels, id 2 is a false positive: IoU 2/3, TP 1, FP 1
    assert result["windows"]["3"]["all"]["pq"] == pytest.approx(100 * (2 / 3) / 1.5)
    assert result["vpq"]["things"] == pytest.approx(100 * (1 + 0.4 + 4 / 9) / 3)
    assert result["vpq"]["stuff"] is None
    row = result["per_class"]["2"]["windows"]["2"]
    assert (row["tp"], row["fp"], row["fn"]) == (1, 2, 1)


def test_class_of_a_tube_is_that_of_its_first_frame_in_the_window():
    truth = video(np.full((2, 1, 2), 7), {7: 2})
    prediction = [frame([[1, 1]], {1: 2}), frame([[1, 1]], {1: 3})]
    assert score(truth, prediction, windows=(2,))["vpq"]["all"] == 100.0
    assert score(truth, prediction, windows=(1,))["per_class"]["3"]["windows"]["1"]["fp"] == 1


def test_short_video_is_absent_from_long_windows_and_can_be_kept():
    truth = video(np.full((2, 1, 2), 7), {7: 2})
    assert score(truth, truth, windows=(1, 4))["vpq"]["all"] is None
    kept = score(truth, truth, windows=(1, 4), quirks=without("short_videos_absent"))
    assert kept["windows"]["4"]["all"]["pq"] == 100.0


def with_area(area):
    truth = video(np.full((1, 2, 2), 7), {7: 2})
    return [truth[0]._replace(segments=truth[0].segments._replace(areas=np.array([area])))]


def test_area_of_the_json_counts_only_when_asked_for():
    with pytest.raises(UserError, match="segment 7 has area 5 but 4 pixels.*json_area"):
        score(with_area(5), with_area(5), windows=(1,))
    asked = score(with_area(5), with_area(5), windows=(1,), quirks=choose(on=["json_area"]))
    assert asked["vpq"]["all"] == pytest.approx(80.0)


@pytest.mark.parametrize("area", [0, 1, 3])
def test_no_iou_is_above_1_even_when_the_json_is_believed(area):
    with pytest.raises(UserError, match=f"segment 7 has area {area}.*shares 4 pixels.*IoU"):
        score(with_area(area), with_area(area), windows=(1,), quirks=choose(on=["json_area"]))


def test_truth_id_missing_from_the_json_counts_against_a_prediction_unless_switched_off():
    truth = [frame([[7, 7, 9]], {7: 2}, unlisted=[9])]
    prediction = [frame([[1, 1, 1]], {1: 2})]
    assert score(truth, prediction, windows=(1,))["vpq"]["all"] == pytest.approx(100 * 2 / 3)
    assert score(truth, prediction, windows=(1,), quirks=without("unlisted_truth"))["vpq"]["all"] == 100.0


def test_empty_frames_and_one_pixel():
    empty = video(np.zeros((2, 1, 1), int), {})
    result = score(empty, empty)
    assert result["vpq"] == {"all": None, "things": None, "stuff": None}
    assert result["per_class"] == {}
    pixel = video([[[3]]], {3: 1})
    assert score(pixel, empty[:1], windows=(1,))["vpq"] == {"all": 0.0, "things": None, "stuff": 0.0}


def test_counts_beyond_float32_stay_exact():
    truth = video(np.full((1, 1, 1), 7), {7: 2})
    counts = counting.count_video(truth, truth)
    big = 2**24 + 1
    tubes = counts.truth._replace(areas=np.array([[0, big]]), pixels=np.array([[0, big]]))
    counts = counts._replace(truth=tubes, prediction=tubes, shared=np.array([[big]]))
    assert vpq.video_table(counts, 1, 4)[2].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_named_windows():
    assert vpq.window_lengths("leaderboard") == (1, 2, 4, 6)
    assert vpq.window_lengths("official-script") == (1, 2, 4, 6, 8)
    assert vpq.window_lengths("3,1") == (3, 1)
    assert vpq.window_name([1, 2, 4, 6]) == "leaderboard"
    assert vpq.window_name((1, 2)) == "custom"


@pytest.mark.parametrize("windows", ["nosuch", "", "0,1", "1,1", (), (-2,)])
def test_impossible_windows_are_refused(windows):
    with pytest.raises(UserError, match="leaderboard"):
        vpq.window_lengths(windows)


def test_a_video_is_scored_once():
    truth = video(np.full((1, 1, 2), 7), {7: 2})
    state = vpq.evaluate_video(truth, truth, classes=CLASSES)
    with pytest.raises(ValueError, match="twice"):
        state.merge(vpq.evaluate_video(truth, truth, classes=CLASSES))
    with pytest.raises(ValueError, match="merged"):
        state.merge(vpq.evaluate_video(truth, truth, video="other", classes=CLASSES, windows=(1,)))


def test_finished_frames_are_scored_without_files():
    categories = np.array([[28, 28], [60, 255]], np.uint8)
    truth = [PanopticFrame(str(t), categories, np.array([[0, 0], [5, 0]])) for t in range(2)]
    other_id = [one._replace(track_ids=np.array([[0, 0], [t + 8, 0]])) for t, one in enumerate(truth)]
    assert vpq.score_frames(truth, truth, windows=(1, 2)).compute()["vpq"]["all"] == 100.0
    result = vpq.score_frames(truth, other_id, windows=(1, 2)).compute()
    assert result["windows"]["1"]["all"]["pq"] == 100.0
    assert result["windows"]["2"]["things"]["pq"] == 0.0 and result["windows"]["2"]["stuff"]["pq"] == 100.0
