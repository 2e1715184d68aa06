import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vps_jax.datasets import rle
from vps_jax.evaluation import ap
from vps_jax.evaluation.quirks import OFFICIAL, without

WIDTH = 40


def bar(start, end):
    """Mask of one row: pixels start .. end-1."""
    mask = np.zeros((1, WIDTH), bool)
    mask[0, start:end] = True
    return rle.of_mask(mask)


def square(side):
    mask = np.zeros((520, 520), bool)
    mask[:side, :side] = True
    return rle.of_mask(mask)


def track(*frames, category=1, **options):
    return ap.Track(category, frames, **options)


def score(*videos, categories=(1,), quirks=OFFICIAL):
    state = ap.AveragePrecision({c: f"class {c}" for c in categories}, quirks=quirks)
    for i, (truth, predictions) in enumerate(videos):
        state.update(i, ap.TrackPair(truth, predictions))
    return state.compute()


def test_iou_of_tubes_sums_over_frames_in_which_either_is():
    truth = track(bar(0, 4), bar(0, 4), None)
    predictions = [track(None, bar(0, 4), bar(0, 4)), track(bar(2, 4), bar(2, 6), None), track(None, None, None)]
    # 4 of 12; 2 + 2 of 4 + 6; nothing
    assert ap.tube_ious(predictions, [truth]).ravel().tolist() == pytest.approx([1 / 3, 4 / 10, 0.0])
    assert ap.tube_ious([predictions[2]], [track(None, None, None)]).tolist() == [[0.0]]


def test_tracks_of_two_lengths_are_refused():
    with pytest.raises(ValueError):
        ap.tube_ious([track(bar(0, 1))], [track(bar(0, 1), None)])


def test_hand_worked_curve():
    truth = [track(bar(0, 4)), track(bar(10, 14))]
    predictions = [track(bar(0, 4), score=0.9), track(bar(30, 34), score=0.8), track(bar(10, 14), score=0.7)]
    result = score((truth, predictions))
    # precision 1 up to recall 1/2 (51 of the 101 points), 2/3 from there to recall 1
    expected = 100 * (51 + 50 * 2 / 3) / 101
    assert [result[name] for name in ("ap", "ap50", "ap75")] == pytest.approx([expected] * 3)
    assert result["ar100"] == pytest.approx(100.0)
    assert result["per_class"]["1"]["ap"] == pytest.approx(expected)


def test_thresholds_are_reached_from_half_up_in_steps_of_a_twentieth():
    # IoU 8/11 = 0.727 is enough for .50, .55, .60, .65, .70
    result = score(([track(bar(0, 10))], [track(bar(2, 11), score=0.5)]))
    assert (result["ap50"], result["ap75"]) == pytest.approx((100.0, 0.0))
    assert result["ap"] == pytest.approx(50.0)
    # an IoU of exactly a half is a match here
    assert score(([track(bar(0, 8))], [track(bar(0, 4), score=0.5)]))["ap50"] == pytest.approx(100.0)


def test_absent_frames():
    # 4 + 4 of 4 + 4 + 2 pixels: IoU 0.8
    truth = [track(bar(0, 4), None, bar(0, 4))]
    result = score((truth, [track(bar(0, 4), bar(0, 2), bar(0, 4), score=1.0)]))
    assert result["ap"] == pytest.approx(70.0)
    assert score((truth, [track(None, None, None, score=1.0)]))["ap"] == 0.0


def test_of_equal_ious_the_later_track_is_taken():
    truth = [track(bar(0, 5)), track(bar(3, 8))]
    predictions = [track(bar(0, 8), score=0.9), track(bar(4, 8), score=0.8)]
    # the first has IoU 5/8 with both and takes the second, which the other prediction would have had
    assert score((truth, predictions))["ap50"] == pytest.approx(100 * 51 / 101)


def test_of_equal_scores_the_earlier_video_and_the_earlier_row_come_first():
    right, wrong = track(bar(0, 4), score=0.5), track(bar(20, 24), score=0.5)
    truth = [track(bar(0, 4))]
    assert score((truth, [right, wrong]))["ap"] == pytest.approx(100.0)
    assert score((truth, [wrong, right]))["ap"] == pytest.approx(50.0)
    assert score((truth, [right]), (truth, [wrong]))["ap"] == pytest.approx(100 * 51 / 101)
    assert score((truth, [wrong]), (truth, [right]))["ap"] == pytest.approx(100 * 51 / 101 / 2)


def test_numbers_of_detections():
    truth = [track(bar(0, 4))]
    predictions = [track(bar(20, 24), score=0.9), track(bar(0, 4), score=0.8)]
    result = score((truth, predictions))
    assert (result["ar1"], result["ar10"], result["ar100"]) == pytest.approx((0.0, 100.0, 100.0))
    many = [track(bar(20, 24), score=0.9)] * 100
    assert score((truth, [*many, track(bar(0, 4), score=0.8)]))["ar100"] == 0.0
    assert score((truth, [*many[1:], track(bar(0, 4), score=0.8)]))["ar100"] == pytest.approx(100.0)


def test_size_ranges_on_the_mean_area_of_present_frames():
    truth = [track(square(200), None), track(square(500), square(300))]
    predictions = [track(square(50), None, score=0.9), *(one._replace(score=0.5) for one in truth)]
    result = score((truth, predictions))
    # 200^2 is medium, (500^2 + 300^2) / 2 is large; the wrong small one is left out of both, and small has no truth
    assert (result["ap_small"], result["ap_medium"], result["ap_large"]) == pytest.approx((None, 100.0, 100.0))
    assert (result["ar_small"], result["ar_medium"]) == pytest.approx((None, 100.0))
    assert result["ap"] == pytest.approx(100 * 2 / 3)


def test_mean_area_leaves_out_frames_without_the_object():
    assert ap.mean_area(track(square(10), None, square(0))) == 100.0
    assert ap.mean_area(track(square(1), areas=[4, None, 0, 8])) == 6.0
    assert ap.mean_area(track(None)) == 0.0


def test_both_ends_belong_to_a_size_range():
    truth = [track(square(128))]
    result = score((truth, [truth[0]._replace(score=0.5)]))
    assert (result["ap_small"], result["ap_medium"], result["ap_large"]) == pytest.approx((100.0, 100.0, None))


def test_areas_of_the_json_decide_the_range_of_truth():
    truth = [track(square(10), areas=[300.0**2])]
    assert ap.mean_area(truth[0]) == 300.0**2
    result = score((truth, [truth[0]._replace(areas=None, score=0.5)]))
    assert (result["ap_small"], result["ap_large"]) == pytest.approx((None, 100.0))


def test_crowd_is_ignored_and_may_be_taken_many_times():
    truth = [track(bar(0, 4)), track(bar(10, 20), crowd=True)]
    on_crowd = [track(bar(10, 20), score=0.9), track(bar(10, 19), score=0.8)]
    result = score((truth, [*on_crowd, track(bar(0, 4), score=0.1)]))
    assert (result["ap50"], result["ar100"]) == pytest.approx((100.0, 100.0))
    assert score((truth[1:], on_crowd))["ap"] is None


def test_union_with_a_crowd_is_that_of_both_unless_switched_off():
    truth = [track(bar(0, 4)), track(bar(10, 30), crowd=True)]
    predictions = [track(bar(10, 14), score=0.9), track(bar(0, 4), score=0.1)]
    assert score((truth, predictions))["ap50"] == pytest.approx(50.0)  # IoU 4/20: a false positive
    assert score((truth, predictions), quirks=without("crowd_union"))["ap50"] == pytest.approx(100.0)


def test_a_track_that_counts_is_taken_before_a_crowd():
    truth = [track(bar(0, 10), crowd=True), track(bar(0, 8))]
    assert score((truth, [track(bar(0, 10), score=0.9)]))["ap50"] == pytest.approx(100.0)


def test_classes_are_apart_and_those_without_truth_do_not_count():
    truth = [track(bar(0, 4), category=1)]
    predictions = [track(bar(0, 4), category=2, score=0.9)]
    result = score((truth, predictions), categories=(1, 2, 3))
    assert result["ap"] == 0.0
    assert list(result["per_class"]) == ["1"]


def test_merge_of_parts_equals_the_whole():
    truth = [track(bar(0, 4))]
    videos = [(truth, [track(bar(0, 4 + i), score=0.5)]) for i in range(3)]
    states = [ap.AveragePrecision({1: "one"}) for _ in range(4)]
    for i, both in enumerate(videos):
        states[0].update(i, ap.TrackPair(*both))
        states[3 - i].update(i, ap.TrackPair(*both))
    states[1].merge(states[3])
    states[1].merge(states[2])
    assert states[1].compute() == states[0].compute()
    with pytest.raises(ValueError, match="twice"):
        states[1].merge(states[2])


def random_images(rng, *, crowds):
    """Images of up to 4 true and 12 predicted blobs of 2 classes, as masks."""
    images = []
    for _ in range(10):
        truth, predictions = [], []
        for _ in range(rng.integers(0, 5)):
            y, x, h, w = rng.integers(0, 14), rng.integers(0, 14), rng.integers(2, 12), rng.integers(2, 12)
            mask = np.zeros((24, 24), bool)
            mask[y : y + h, x : x + w] = True
            category, crowd = int(rng.integers(1, 3)), bool(crowds and rng.random() < 0.3)
            truth.append((mask, category, crowd))
            for _ in range(rng.integers(0, 4)):
                moved = np.roll(mask, rng.integers(-1, 2, 2), axis=(0, 1))
                predictions.append((moved, category, float(rng.choice([0.1, 0.2, 0.3, 0.4, 0.5]))))
        images.append((truth, predictions))
    return images


def pycocotools_says(images, sizes):
    """COCO's twelve numbers, with our size ranges."""

    def encode(mask):
        return coco_mask.encode(np.asfortranarray(mask, np.uint8))

    annotations = [
        {
            "image_id": i,
            "category_id": category,
            "iscrowd": int(crowd),
            "area": int(mask.sum()),
            "segmentation": encode(mask),
        }
        for i, (truth, _) in enumerate(images)
        for mask, category, crowd in truth
    ]
    for number, row in enumerate(annotations):
        row["id"] = number + 1
    results = [
        {"image_id": i, "category_id": category, "score": score_, "segmentation": encode(mask)}
        for i, (_, predictions) in enumerate(images)
        for mask, category, score_ in predictions
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": 24, "width": 24} for i in range(len(images))],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.params.areaRng = [list(limits) for limits in sizes.values()]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_one_frame_videos_agree_with_pycocotools(seed, crowds, monkeypatch):
    monkeypatch.setattr(ap, "SIZES", {"all": (0, 1e10), "small": (0, 20), "medium": (20, 60), "large": (60, 1e10)})
    images = random_images(np.random.default_rng([seed, crowds]), crowds=crowds)
    state = ap.AveragePrecision({1: "a", 2: "b"}, quirks=without("crowd_union") if crowds else OFFICIAL)
    for i, (truth, predictions) in enumerate(images):
        true = [track(rle.of_mask(mask), category=c, crowd=crowd) for mask, c, crowd in truth]
        predicted = [track(rle.of_mask(mask), category=c, score=s) for mask, c, s in predictions]
        state.update(i, ap.TrackPair(true, predicted))
    result = state.compute()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")
    names += ("ar_small", "ar_medium", "ar_large")
    expected = [None if value == -1 else 100 * value for value in pycocotools_says(images, ap.SIZES)]
    for name, value in zip(names, expected, strict=True):
        assert result[name] == (None if value is None else pytest.approx(value, rel=0, abs=1e-9)), name
    assert 5 < result["ap"] < 95  # the case says something
