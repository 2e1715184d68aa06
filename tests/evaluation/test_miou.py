import numpy as np
import pytest
from hypothesis import given, settings
from label_scenes import CLASSES, random_videos, video

from vps_jax.evaluation import counts as counting
from vps_jax.evaluation import miou


def test_hand_worked_confusion():
    truth = np.array([[0, 0, 0, 1], [1, 1, 2, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1], [1, 255, 3, 0]], np.uint8)
    confusion = miou.confusion_of_maps(truth, prediction, 4)
    assert confusion.tolist() == [
        [2, 1, 0, 0, 0],
        [0, 2, 0, 0, 1],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
    ]
    scores = miou.semantic_scores(confusion)
    # IoU: sky 2 of 3, grass 2 of 4, cat 0 of 1; the dog is predicted but not in the truth, the void pixel is out
    assert scores["miou"] == pytest.approx(100 * (2 / 3 + 2 / 4 + 0) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(100 * 4 / 7)
    assert scores["class_accuracy"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 0) / 3)
    assert scores["frequency_weighted_iou"] == pytest.approx(100 * (3 / 7 * 2 / 3 + 3 / 7 * 2 / 4))
    assert scores["classes"] == 3


def test_class_iou_counts_predicted_void_as_no_class():
    confusion = np.array([[1, 0, 1], [0, 0, 0], [5, 5, 5]])
    iou = miou.class_iou(confusion)
    assert iou[0] == 0.5 and np.isnan(iou[1]) and iou[2] == 0.0


def test_without_a_labelled_pixel_nothing_is_defined():
    void = np.full((1, 2), 255, np.uint8)
    scores = miou.semantic_scores(miou.confusion_of_maps(void, void, 4))
    assert scores == {
        "miou": None,
        "pixel_accuracy": None,
        "class_accuracy": None,
        "frequency_weighted_iou": None,
        "classes": 0,
    }


@settings(deadline=None, max_examples=40)
@given(random_videos())
def test_confusion_of_a_panoptic_video_is_that_of_its_class_maps(both):
    total = 0
    for truth, prediction in zip(*both, strict=True):
        maps = []
        for one in (truth, prediction):
            classes = np.full(6, 255)
            classes[one.segments.ids] = one.segments.categories
            maps.append(classes[one.pixels])
        total = total + miou.confusion_of_maps(*maps, 4)
    np.testing.assert_array_equal(miou.confusion_of_counts(counting.count_video(*both), 4), total)


def test_merge_of_parts_equals_the_whole():
    maps = [video([[[1, 1, 7]]], {1: 0, 7: 2}), video([[[1, 7, 7]]], {1: 0, 7: 2})]
    confusions = [
        miou.confusion_of_counts(counting.count_video(a, b), 4) for a, b in ((maps[0], maps[1]), (maps[1], maps[1]))
    ]
    whole, one, other = (miou.MeanIoU(CLASSES) for _ in range(3))
    for state, names in ((whole, "ab"), (one, "b"), (other, "a")):
        for name in names:
            state.add(name, confusions["ab".index(name)])
    one.merge(other)
    assert one.compute() == whole.compute()
    assert whole.compute()["per_video"]["b"]["miou"] == 100.0
    assert whole.compute()["per_class"]["0"]["iou"] == pytest.approx(100 * 2 / 3)
    with pytest.raises(ValueError, match="twice"):
        one.merge(other)
    with pytest.raises(ValueError, match="twice"):
        one.add("a", confusions[0])


def test_negative_labels_are_no_class():
    truth, prediction = np.array([[0, -1, 1, 1]]), np.array([[0, 0, -1, 1]], np.int8)
    unsigned = miou.confusion_of_maps(truth.astype(np.uint8), prediction.astype(np.uint8), 4)
    np.testing.assert_array_equal(miou.confusion_of_maps(truth, prediction, 4), unsigned)
    assert unsigned[4, 0] == unsigned[1, 4] == unsigned[1, 1] == unsigned[0, 0] == 1
