"""Cityscapes-VPS and KITTI-STEP: flat files with gaps in the categories, and classes in the red channel."""

import json

import cv2
import numpy as np
import pytest
from label_scenes import write_png

from vps_jax.evaluation import submission
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.types import UserError


def step_png(path, classes, numbers):
    """Class in red, number of the thing as 256 green + blue."""
    classes, numbers = np.broadcast_arrays(np.asarray(classes), np.asarray(numbers))
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.stack([numbers & 255, numbers >> 8, classes], axis=-1).astype(np.uint8))


@pytest.fixture
def step(tmp_path):
    """Road, car 300 and a crowd of people; the results call the car 1 and see a person in the crowd."""
    for t in range(3):
        stem = f"{t:06d}.png"
        step_png(tmp_path / "kitti/panoptic_maps/val/0002" / stem, [[0, 0, 13, 11, 255]], [[0, 0, 300, 0, 0]])
        step_png(tmp_path / "results/0002" / stem, [[0, 0, 13, 11, 0]], [[7, 7, 1, 4, 0]])
    return tmp_path / "kitti", tmp_path / "results"


def test_kitti_step(step):
    result = evaluate_folders(*step, metrics="all", windows=(1, 3))
    assert (result["layout"], result["videos"], result["frames"]) == ("kitti_step", 1, 3)
    assert result["quirks_off"] == ["crowd_tracks", "first_thing_crowd"]
    # void is no fault, a stuff number no segment, and a crowd neither track nor false positive
    assert result["vpq"]["windows"]["3"]["all"]["pq"] == 100.0
    assert (result["stq"]["stq"], result["stq"]["tracks"]) == (100.0, 1)
    assert result["hota"]["hota"] == pytest.approx(100.0)
    assert evaluate_folders(*step, metrics="stq", quirks_on=["crowd_tracks"])["stq"]["tracks"] == 2


@pytest.mark.parametrize("below", ["val", "panoptic_maps/val"])
def test_step_results_may_lie_as_the_truth_does(step, below):
    expected = evaluate_folders(*step)["stq"]
    (step[1] / below).mkdir(parents=True)
    (step[1] / "0002").rename(step[1] / below / "0002")
    assert evaluate_folders(*step)["stq"] == expected


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda r: step_png(r / "000001.png", [[19, 0, 0, 0, 0]], 0), ["000001.png", "class 19", "0..18"]),
        (lambda r: step_png(r / "000001.png", [[0, 0]], 0), ["000001.png", "size is 2x1", "5x1"]),
        (lambda r: (r / "000001.png").unlink(), ["000001.png", "frame 000001", "missing"]),
        (lambda r: step_png(r / "000009.png", [[0]], 0), ["000009.png", "not in the truth"]),
        (lambda r: r.rename(r.parent / "0006"), ["0002", "no such folder"]),
        (lambda r: write_png(r / "000001.png", np.zeros((1, 5), np.uint8)), ["000001.png", "8-bit grey"]),
    ],
)
def test_faults_of_step_results_are_named(step, change, words):
    change(step[1] / "0002")
    with pytest.raises(UserError) as error:
        evaluate_folders(*step)
    assert all(word in str(error.value) for word in words), str(error.value)


CATEGORIES = [{"id": 7, "name": "road", "isthing": 0}, {"id": 26, "name": "car", "isthing": 1}]


@pytest.fixture
def cityscapes(tmp_path):
    """Two videos of two images; the second video's car is missed."""
    root, results = tmp_path / "city", tmp_path / "results"
    truth, found = {"images": [], "annotations": [], "categories": CATEGORIES}, {"annotations": []}
    for v, name in enumerate(f"{v:04d}_{2 * v + k:04d}_aachen_0000" for v in (5, 15) for k in (1, 2)):
        ending = "_gtFine_color.png" if v == 1 else "_final_mask.png"
        truth["images"].append({"id": name, "file_name": f"{name}_newImg8bit.png", "width": 4, "height": 1})
        ids = np.array([[70000, 70000, 3, 3]])
        rows = [{"id": 70000, "category_id": 7, "iscrowd": 0, "area": 2}, {"id": 3, "category_id": 26, "iscrowd": 0}]
        truth["annotations"].append({"image_id": name, "file_name": name + ending, "segments_info": rows})
        write_png(root / "val/panoptic_video" / (name + ending), ids)
        if v > 1:
            ids, rows = np.full((1, 4), 70000), rows[:1]
        write_png(results / "pan_pred" / f"{name}.png", ids)
        found["annotations"].append({"image_id": name, "segments_info": rows})
    (root / "panoptic_gt_val_city_vps.json").write_text(json.dumps(truth))
    (results / "pred.json").write_text(json.dumps(found))
    return root, results


def test_cityscapes_vps(cityscapes):
    result = evaluate_folders(*cityscapes, windows="1,2")
    assert (result["layout"], result["videos"], result["frames"]) == ("cityscapes_vps", 2, 4)
    assert result["vpq"]["per_class"].keys() == {"7", "26"}
    # car: one of two found; road: whole, and 2 of 4 pixels, which is no match
    assert result["vpq"]["windows"]["2"]["things"]["pq"] == pytest.approx(100 / 1.5)
    assert result["vpq"]["windows"]["2"]["stuff"]["pq"] == pytest.approx(100 / 2)
    assert evaluate_folders(*cityscapes, windows="cityscapes-vps")["vpq"]["window_set"] == "cityscapes-vps"
    content = json.loads((cityscapes[1] / "pred.json").read_text())
    content["annotations"].reverse()
    for row in content["annotations"]:
        row["file_name"] = row.pop("image_id") + "_newImg8bit.png"
    (cityscapes[1] / "pred.json").write_text(json.dumps(content))
    assert evaluate_folders(*cityscapes, windows="1,2")["vpq"] == result["vpq"]


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["annotations"].pop(0), ["0005_0011_aachen_0000", "missing"]),
        (lambda c: c["annotations"].append(c["annotations"][0]), ["0005_0011_aachen_0000", "twice"]),
        (lambda c: c["annotations"][0].update(image_id="9_x"), ["9_x.png", "no PNG"]),
        (lambda c: c["annotations"][0].update(image_id=None), ["annotation 0", "image_id", "null"]),
        (lambda c: c["annotations"][0]["segments_info"][0].update(category_id=8), ["category 8", "7..26 without"]),
        (lambda c: c.pop("annotations"), ["annotations is missing"]),
    ],
)
def test_faults_of_cityscapes_results_are_named(cityscapes, change, words):
    content = json.loads((cityscapes[1] / "pred.json").read_text())
    change(content)
    (cityscapes[1] / "pred.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        evaluate_folders(*cityscapes)
    assert all(word in str(error.value) for word in words), str(error.value)


def faults(folders, videos=None):
    return submission.check(*folders, split="val", videos=videos)


def test_step_results_are_checked(step):
    for path in (step[0] / "panoptic_maps/val/0002").iterdir():  # only names and sizes of the truth are read
        path.write_bytes(path.read_bytes()[:30])
    assert faults(step) == (1, [])
    results = step[1] / "0002"
    for path in (results, step[0] / "panoptic_maps/val/0002"):
        (path.parent / "0006").mkdir()
        for stem in ("000000", "000003"):
            (path.parent / "0006" / f"{stem}.png").write_bytes((path / "000000.png").read_bytes())
    assert faults(step) == (2, [])
    (results / "000000.png").unlink()
    step_png(results / "000001.png", [[0, 0]], 0)
    step_png(results / "000009.png", [[0]], 0)
    step_png(results.parent / "0006/000003.png", [[19, 0, 0, 0, 0]], 0)
    count, lines = faults(step)
    for line, words in zip(lines, ("000000.png: no such", "no such frame", "2x1", "class 19"), strict=True):
        assert words in line
    assert count == 2
    assert faults(step, ["0006"]) == (1, lines[3:])


def test_step_results_with_red_and_blue_exchanged(step):
    path = step[1] / "0002/000001.png"
    cv2.imwrite(str(path), cv2.imread(str(path))[..., ::-1])
    assert faults(step) == (1, [])  # a road with numbers may be meant: the results call it 7
    step_png(path, [[0, 8, 13, 11, 10]], [[0, 0, 1, 4, 0]])
    assert faults(step) == (1, [])
    cv2.imwrite(str(path), cv2.imread(str(path))[..., ::-1])
    (line,) = faults(step)[1]
    assert "000001.png: red and blue are exchanged" in line


def test_flat_results_are_checked(cityscapes):
    (cityscapes[0] / "val").rename(cityscapes[0] / "gone")
    assert faults(cityscapes) == (2, [])
    results = cityscapes[1]
    content = json.loads((results / "pred.json").read_text())
    content["annotations"][1]["segments_info"][0]["category_id"] = 8
    content["annotations"].pop()
    (results / "pred.json").write_text(json.dumps(content))
    (results / "pan_pred/0005_0011_aachen_0000.png").unlink()
    write_png(results / "pan_pred/0015_0031_aachen_0000.png", np.full((1, 5), 70000))
    count, lines = faults(cityscapes)
    expected = ("0005_0011_aachen_0000.png: no such file", "category 8", "0015_0032_aachen_0000 is missing", "5x1")
    for line, words in zip(lines, expected, strict=True):
        assert words in line
    assert count == 2
    assert faults(cityscapes, ["0015"]) == (1, lines[2:])
    (results / "pred.json").write_text("[]")
    assert "the file is []" in faults(cityscapes)[1][0]
