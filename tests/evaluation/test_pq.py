import numpy as np
import pytest

from vps_jax.evaluation import pq


def window(**changes):
    """One window: truth segments of 10 and 6 pixels, predictions of 9 and 7, 8 and 5 pixels shared, 0 is void."""
    values = {
        "truth_category": [[-1, 1, 2]],
        "truth_area": [[0, 10, 6]],
        "truth_crowd": [[False, False, False]],
        "truth_order": [[0, 0, 1]],
        "category": [[-1, 1, 2]],
        "area": [[0, 9, 7]],
        "void": [[0, 0, 0]],
        "pair_truth": [1, 2, 1],
        "pair_prediction": [1, 2, 2],
        "shared": [[8, 5, 2]],
    }
    return pq.Window(**{name: np.array(value) for name, value in (values | changes).items()})


def test_matched_segments_give_their_iou():
    table = pq.table_of(window(), 3)
    assert table[1].tolist() == pytest.approx([8 / 11, 1, 0, 0])
    assert table[2].tolist() == pytest.approx([5 / 8, 1, 0, 0])
    assert table[0].tolist() == [0, 0, 0, 0]


def test_iou_of_exactly_a_half_is_no_match():
    table = pq.table_of(window(truth_area=[[0, 15, 6]]), 3)  # 8 / (9 + 15 - 8)
    assert table[1].tolist() == [0, 0, 1, 1]


def test_void_leaves_the_union():
    table = pq.table_of(window(area=[[0, 12, 7]], void=[[0, 3, 0]]), 3)
    assert table[1, 0] == pytest.approx(8 / 11)


def test_another_class_is_a_miss_and_a_false_positive():
    table = pq.table_of(window(category=[[-1, 0, 2]]), 3)
    assert table[:2].tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("void, false_positives", [(4, 1), (5, 0)])
def test_more_than_half_on_void_is_no_false_positive(void, false_positives):
    table = pq.table_of(window(category=[[-1, 0, 2]], area=[[0, 8, 7]], void=[[0, void, 0]]), 3)
    assert table[0, pq.FP] == false_positives


def test_crowd_is_neither_missed_nor_matched_and_forgives_its_class():
    table = pq.table_of(window(truth_crowd=[[False, True, False]]), 3)
    assert table[1].tolist() == [0, 0, 0, 0]  # 8 of 9 pixels lie on the crowd
    table = pq.table_of(window(truth_crowd=[[False, True, False]], category=[[-1, 0, 2]]), 3)
    assert table[0].tolist() == [0, 0, 1, 0]


def test_of_two_crowds_of_a_class_the_last_listed_forgives():
    two = {"truth_category": [[-1, 1, 1]], "truth_crowd": [[False, True, True]], "category": [[-1, 1, 1]]}
    assert pq.table_of(window(**two), 3)[1].tolist() == [0, 0, 1, 0]  # id 2 is last; prediction 1 lies on id 1
    assert pq.table_of(window(truth_order=[[0, 1, 0]], **two), 3)[1].tolist() == [0, 0, 1, 0]
    assert pq.table_of(window(**two), 3, last_crowd=False)[1].tolist() == [0, 0, 0, 0]


def test_truth_areas_that_are_too_small_do_not_divide_by_zero():
    table = pq.table_of(window(truth_area=[[0, -1, 6]]), 3)  # a union of 9 - 1 - 8 = 0
    assert table[1].tolist() == [0, 0, 1, 1]


def test_quality_of_hand_worked_counts():
    table = np.array([[1.5, 2, 1, 1], [0, 0, 2, 0], [0, 0, 0, 0]])
    values = pq.quality(table)
    assert values["pq"][:2].tolist() == pytest.approx([0.5, 0.0])
    assert values["sq"][:2].tolist() == pytest.approx([0.75, 0.0])
    assert values["rq"][:2].tolist() == pytest.approx([2 / 3, 0.0])
    assert all(np.isnan(value[2]) for value in values.values())


def test_means_leave_out_classes_that_do_not_occur_and_are_none_without_any():
    table = np.array([[1.5, 2, 1, 1], [0, 0, 2, 0], [0, 0, 0, 0]])
    summary = pq.summarize(table, [False, False, True])
    assert summary["all"]["pq"] == pytest.approx(25.0)
    assert summary["stuff"]["classes"] == 2
    assert summary["things"] == {"pq": None, "sq": None, "rq": None, "classes": 0}
