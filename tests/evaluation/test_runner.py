"""Folders in the official layouts, and a message of its own for everything that can be wrong with them."""

import csv
import io
import json

import numpy as np
import pytest
from label_scenes import frame, video, write_png, write_vipseg
from pycocotools import mask as coco_mask
from rich.console import Console

from vps_jax.datasets import rle
from vps_jax.evaluation import scoring
from vps_jax.evaluation.runner import evaluate_folders, print_report
from vps_jax.types import UserError

KINDS = {1: 0, 7: 2, 8: 3, 70000: 2}


def scene(frames=5, switch=2):
    """(truth, prediction): sky above, a cat whose id changes at frame `switch`, void at the right."""
    maps = np.full((frames, 4, 6), 1)
    maps[:, 2:, :4] = 7
    maps[:, :, 5] = 0
    prediction = maps.copy()
    prediction[switch:][prediction[switch:] == 7] = 70000
    return video(maps, KINDS), video(prediction, KINDS)


@pytest.fixture
def folders(tmp_path):
    """VIPSeg root and results of two videos."""
    truth, results = tmp_path / "VIPSEG", tmp_path / "results"
    write_vipseg(truth, results, {"3_b": scene(), "12_-a_x": scene(frames=3, switch=0)})
    return truth, results


def test_scores_of_a_folder_are_those_of_the_definition(folders):
    result = evaluate_folders(*folders, windows="1,2,3")
    assert (result["layout"], result["videos"], result["frames"], result["quirks_off"]) == ("vipseg", 2, 8, [])
    windows = result["vpq"]["windows"]
    assert windows["1"]["all"] == {"pq": 100.0, "sq": 100.0, "rq": 100.0, "classes": 2}
    # cat, k=2: of 4 + 2 windows the one over the switch has two halves: 5 TP, 2 FP, 1 FN
    assert windows["2"]["things"]["pq"] == pytest.approx(100 * 5 / 6.5)
    # k=3: 3 + 1 windows; 2/3 of the tube in the two over the switch: IoU 1 + 2/3 + 2/3 + 1, 4 TP, 2 FP
    assert windows["3"]["things"]["pq"] == pytest.approx(100 * (10 / 3) / 5)
    assert windows["3"]["stuff"]["pq"] == 100.0
    # the cat's two parts in the longer video: (2/5 * 2/5 + 3/5 * 3/5); the other is whole
    assert result["stq"]["aq"] == pytest.approx(100 * (13 / 25 + 1) / 2)
    assert result["miou"]["miou"] == 100.0
    assert result["pq"]["all"]["pq"] == 100.0
    assert result["vc"]["mvc8"] is None
    assert "anatomy" not in result


def test_video_order_follows_the_truth_and_suffix_does_not_matter(folders):
    predictions = json.loads((folders[1] / "pred.json").read_text())
    before = evaluate_folders(*folders)
    predictions["annotations"].reverse()
    predictions["annotations"].append({"video_id": "9_extra", "annotations": []})
    for entry in predictions["annotations"]:
        for one in entry["annotations"]:
            one["file_name"] = one.pop("image_id") + ".png"
    (folders[1] / "pred.json").write_text(json.dumps(predictions))
    assert evaluate_folders(*folders) == before


def test_more_processes_give_the_same_bits_and_files(folders, tmp_path):
    one = evaluate_folders(*folders, metrics="all", json_out=tmp_path / "1.json", per_video=tmp_path / "1.csv")
    two = evaluate_folders(
        *folders, metrics="all", processes=2, json_out=tmp_path / "2.json", per_video=tmp_path / "2.csv"
    )
    assert one == two
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
    assert json.loads((tmp_path / "1.json").read_text()) == one
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["1.csv", "1.json", "2.csv", "2.json"]


def test_csv_has_a_row_per_video(folders, tmp_path):
    result = evaluate_folders(*folders, windows=(1, 4), per_video=tmp_path / "new" / "videos.csv")
    rows = {row["video"]: row for row in csv.DictReader(io.StringIO((tmp_path / "new" / "videos.csv").read_text()))}
    assert rows.keys() == {"3_b", "12_-a_x"}
    assert float(rows["3_b"]["vpq4"]) == result["vpq"]["per_video"]["3_b"]["windows"]["4"]
    assert rows["12_-a_x"]["vpq4"] == ""
    assert float(rows["12_-a_x"]["stq"]) == 100.0
    assert rows["3_b"]["frames"] == "5"


def test_metrics_can_be_chosen_and_quirks_left(folders):
    result = evaluate_folders(
        *folders, metrics="stq,vpq", quirks_off=["void_class", "short_videos_absent"], windows=(6,)
    )
    assert {"vpq", "stq"} <= result.keys() and not {"miou", "vc", "pq"} & result.keys()
    assert result["vpq"]["windows"]["6"]["stuff"]["pq"] == 100.0
    assert result["quirks_off"] == ["short_videos_absent", "void_class"]
    with pytest.raises(UserError, match="'nosuch'.*vpq, stq"):
        evaluate_folders(*folders, metrics=["nosuch"])
    with pytest.raises(UserError, match="'nosuch'.*json_area"):
        evaluate_folders(*folders, quirks_off=["nosuch"])


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


FRAME = "00000005"  # the second of each video
PNG = f"pan_pred/3_b/{FRAME}.png"


def rows(content, side=0, t=1):
    return content["annotations"][side]["annotations"][t]["segments_info"]


def broken_png(results):
    data = (results / PNG).read_bytes()
    (results / PNG).write_bytes(data[: len(data) // 2])


JSON_FAULTS = {
    "missing video": (lambda c: c["annotations"].pop(0), ["video 3_b is missing"]),
    "missing frame": (lambda c: c["annotations"][0]["annotations"].pop(1), ["3_b", FRAME, "missing"]),
    "extra frame": (
        lambda c: c["annotations"][0]["annotations"].append({"file_name": "00000099.png", "segments_info": []}),
        ["3_b", "00000099", "not in the truth"],
    ),
    "frame twice": (
        lambda c: c["annotations"][0]["annotations"].append(c["annotations"][0]["annotations"][1]),
        ["3_b", FRAME, "twice"],
    ),
    "frames out of order": (
        lambda c: c["annotations"][0]["annotations"].reverse(),
        ["3_b", "00000014", "00000002", "order"],
    ),
    "video twice": (lambda c: c["annotations"].append(c["annotations"][0]), ["3_b", "twice"]),
    "id only in json": (
        lambda c: rows(c).append({"id": 66000, "category_id": 1}),
        [PNG, FRAME, "66000", "(208, 1, 1)", "no pixel"],
    ),
    "id only in png": (lambda c: rows(c).pop(0), [PNG, FRAME, "id 1", "not in pred.json"]),
    "category too high": (lambda c: rows(c)[0].update(category_id=4), ["3_b", FRAME, "category 4", "0..3"]),
    "category negative": (lambda c: rows(c)[0].update(category_id=-1), ["3_b", FRAME, "category -1"]),
    "category no number": (lambda c: rows(c)[0].update(category_id="cat"), ["3_b", FRAME, "'cat'"]),
    "id listed twice": (lambda c: rows(c).append(rows(c)[0]), ["3_b", FRAME, "twice"]),
    "void listed": (lambda c: rows(c).append({"id": 0, "category_id": 1}), ["3_b", FRAME, "id 0", "void"]),
    "row without category": (lambda c: rows(c)[0].pop("category_id"), ["3_b", FRAME, "category_id"]),
    "no annotations": (lambda c: c.pop("annotations"), ["pred.json", "annotations"]),
}


@pytest.mark.parametrize("fault", JSON_FAULTS)
def test_faults_of_the_result_json_are_named(folders, fault):
    change, words = JSON_FAULTS[fault]
    change_json(folders[1] / "pred.json", change)
    with pytest.raises(UserError) as error:
        evaluate_folders(*folders)
    message = str(error.value)
    assert "\n" not in message and "pred.json" in message
    assert all(word in message for word in words), message


GREY = np.zeros((4, 6), np.uint8)
FILE_FAULTS = {
    "missing png": (lambda r: (r / PNG).unlink(), [PNG, FRAME]),
    "extra png": (lambda r: (r / PNG).with_name("00000099.png").write_bytes(b""), ["00000099.png", "not in the truth"]),
    "missing folder": (lambda r: (r / "pan_pred" / "3_b").rename(r / "elsewhere"), ["pan_pred/3_b", "no such folder"]),
    "another size": (lambda r: write_png(r / PNG, np.ones((5, 6), int)), [PNG, "6x5", "6x4", FRAME]),
    "grey": (lambda r: write_png(r / PNG, GREY), [PNG, "8-bit grey", "RGB"]),
    "16-bit grey": (lambda r: write_png(r / PNG, GREY.astype(np.uint16)), [PNG, "16-bit grey"]),
    "alpha": (lambda r: write_png(r / PNG, np.zeros((4, 6, 4), np.uint8)), [PNG, "RGB with alpha"]),
    "no png": (lambda r: (r / PNG).write_bytes(b"\xff\xd8\xff" + bytes(99)), [PNG, "not a PNG"]),
    "empty file": (lambda r: (r / PNG).write_bytes(b""), [PNG, "not a PNG"]),
    "cut off": (broken_png, [PNG, "cut off"]),
    "no json": (lambda r: (r / "pred.json").unlink(), ["pred.json", "No such file"]),
    "broken json": (lambda r: (r / "pred.json").write_text('{"annotations": ['), ["pred.json", "not valid json"]),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_faults_of_the_result_files_are_named(folders, fault):
    change, words = FILE_FAULTS[fault]
    change(folders[1])
    with pytest.raises(UserError) as error:
        evaluate_folders(*folders)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_faults_are_named_from_another_process_too(folders):
    write_png(folders[1] / PNG, GREY)
    with pytest.raises(UserError, match=FRAME):
        evaluate_folders(*folders, processes=2)


def test_faults_of_the_truth_are_named(folders):
    with pytest.raises(UserError, match="panoptic_gt_VIPSeg_test.json"):
        evaluate_folders(*folders, split="test")
    source = folders[0] / "panoptic_gt_VIPSeg_val.json"
    change_json(source, lambda c: rows(c)[0].update(category_id=124))
    with pytest.raises(UserError, match="panoptic_gt_VIPSeg_val.json.*3_b.*category 124"):
        evaluate_folders(*folders)
    source.write_text('{"annotations": []}')
    with pytest.raises(UserError, match="no video"):
        evaluate_folders(*folders)


def test_frames_of_one_video_have_one_size(folders):
    for path in (folders[0] / "panomasksRGB/3_b" / f"{FRAME}.png", folders[1] / PNG):
        write_png(path, np.ones((5, 6), int))
    with pytest.raises(UserError, match="frames before are 6x4"):
        evaluate_folders(*folders)


def test_vipseg_classes_are_taken_when_the_truth_lists_none(tmp_path):
    write_vipseg(tmp_path / "t", tmp_path / "r", {"1_a": (video([[[5]]], {5: 61}), video([[[9]]], {9: 61}))})
    change_json(tmp_path / "t" / "panoptic_gt_VIPSeg_val.json", lambda c: c.pop("categories"))
    result = evaluate_folders(tmp_path / "t", tmp_path / "r", metrics="vpq", windows=(1,))
    assert result["vpq"]["per_class"]["61"]["isthing"] is True


def test_one_video_of_one_frame_all_void(tmp_path):
    empty = [frame(np.zeros((2, 2), int), {})]
    write_vipseg(tmp_path / "t", tmp_path / "r", {"1_a": (empty, empty)})
    result = evaluate_folders(tmp_path / "t", tmp_path / "r", metrics="all")
    assert result["vpq"]["vpq"] == {"all": None, "things": None, "stuff": None}
    print_report(result, console=Console(file=io.StringIO()))


def write_vspw(tmp_path):
    truth = np.array([[[1, 2], [0, 255]], [[1, 2], [252, 2]], [[1, 1], [1, 2]]], np.uint8)
    prediction = np.array([[[0, 1], [5, 6]], [[0, 0], [1, 1]], [[0, 0], [255, 1]]], np.uint8)
    for t, (one, other) in enumerate(zip(truth, prediction, strict=True)):
        write_png(tmp_path / "VSPW/data/5_c/mask" / f"{t:08d}.png", one)
        write_png(tmp_path / "results/5_c" / f"{t:08d}.png", other)
    (tmp_path / "VSPW/val.txt").write_text("5_c\n")
    return tmp_path / "VSPW", tmp_path / "results"


def test_vspw_folders(tmp_path):
    folders = write_vspw(tmp_path)
    result = evaluate_folders(*folders)
    # wall: 5 in the truth, 4 hit, 1 false positive: 4/6; next class: 4 in the truth, 3 hit; void and strays are out
    assert result["miou"]["miou"] == pytest.approx(100 * (4 / 6 + 3 / 4) / 2)
    assert (result["layout"], result["miou"]["classes"], result["vc"]["mvc8"]) == ("vspw", 2, None)
    assert evaluate_folders(*folders, processes=2) == result
    (folders[1] / "5_c/00000001.png").unlink()
    with pytest.raises(UserError, match="00000001"):
        evaluate_folders(*folders)


def test_class_maps_without_labelled_pixels_say_so(tmp_path):
    truth, results = write_vspw(tmp_path)
    for path in (truth / "data/5_c/mask").iterdir():
        write_png(path, np.full((2, 2), 255, np.uint8))
    result = evaluate_folders(truth, results)
    assert result["miou"]["miou"] is None and "no score is defined" in result["notes"][0]


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda r: write_png(r / "5_c/00000007.png", GREY), ["00000007", "not in the truth"]),
        (lambda r: write_png(r / "5_c/00000001.png", GREY), ["00000001", "6x4", "2x2"]),
        (lambda r: write_png(r / "5_c/00000001.png", np.ones((2, 2), int)), ["00000001", "8-bit RGB", "grey"]),
        (lambda r: (r / "5_c").rename(r / "elsewhere"), ["5_c", "no such folder"]),
        (lambda r: [path.unlink() for path in (r / "5_c").iterdir()], ["5_c", "no PNG"]),
    ],
)
def test_faults_of_vspw_results_are_named(tmp_path, change, words):
    folders = write_vspw(tmp_path)
    change(folders[1])
    with pytest.raises(UserError) as error:
        evaluate_folders(*folders)
    assert all(word in str(error.value) for word in words), str(error.value)


def write_ytvis(tmp_path):
    mask = np.zeros((4, 6), bool)
    mask[1:3, 1:5] = True
    text = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    code = {"size": [4, 6], "counts": rle.of_mask(mask).tolist()}
    truth = {
        "videos": [{"id": 1, "height": 4, "width": 6, "file_names": ["a/0.jpg", "a/1.jpg"]}],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 3, "iscrowd": 0, "segmentations": [code, None], "areas": [8, None]}
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    predictions = [
        {
            "video_id": 1,
            "category_id": 3,
            "score": 0.9,
            "segmentations": [{"size": [4, 6], "counts": text}, None],
        }
    ]
    (tmp_path / "ytvis/val").mkdir(parents=True)
    (tmp_path / "ytvis/val/instances.json").write_text(json.dumps(truth))
    (tmp_path / "results").mkdir()
    (tmp_path / "results/results.json").write_text(json.dumps(predictions))
    return tmp_path / "ytvis", tmp_path / "results"


def test_youtube_vis_files(tmp_path):
    truth, results = write_ytvis(tmp_path)
    result = evaluate_folders(truth, results)
    assert (result["layout"], result["videos"], result["frames"]) == ("ytvis", 1, 2)
    assert result["ap"]["ap"] == pytest.approx(100.0)
    again = evaluate_folders(truth / "val/instances.json", results / "results.json", metrics=["ap"])
    assert again["ap"] == result["ap"]
    evaluate_folders(truth, results, per_video=tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text().splitlines()[0] == "video,ap,ap50,ap75"
    assert result["ap"]["per_video"] == {"1": dict.fromkeys(("ap", "ap50", "ap75"), pytest.approx(100.0))}


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c[0]["segmentations"].pop(), ["prediction 0", "1 masks", "2 frames", "null"]),
        (lambda c: c[0].pop("score"), ["prediction 0", "score"]),
        (lambda c: c[0].update(video_id=9), ["prediction 0", "video 9"]),
        (lambda c: c[0].update(category_id=5), ["prediction 0", "category 5", "3..4"]),
        (lambda c: c[0]["segmentations"][0].update(size=[6, 4]), ["video 1", "frame 0", "[6, 4]"]),
        (lambda c: c[0]["segmentations"][0].update(counts="\x01"), ["video 1", "frame 0", "run-length"]),
        (lambda c: c[0]["segmentations"][0].update(counts=[3]), ["video 1", "frame 0", "size"]),
        (lambda c: c[0].update(score=None), ["prediction 0", "score of video 1", "null"]),
        (lambda c: c[0].update(score="0.9"), ["prediction 0", "score of video 1", "'0.9'"]),
        (lambda c: c[0].update(score=[0.9]), ["prediction 0", "score of video 1", "[0.9]"]),
        (lambda c: c[0].update(score=float("nan")), ["prediction 0", "score of video 1", "nan"]),
        (lambda c: c[0].update(score=True), ["prediction 0", "score of video 1", "True"]),
        (lambda c: c[0].update(category_id=[3]), ["prediction 0", "category [3]"]),
        (lambda c: c[0].update(category_id=True), ["prediction 0", "category True"]),
        (lambda c: c[0].update(video_id=[1]), ["prediction 0", "video_id", "[1]"]),
        (lambda c: c[0].update(video_id="1"), ["prediction 0", "video '1' is not in"]),
        (lambda c: c[0].update(segmentations=None), ["prediction 0", "segmentations of video 1", "null"]),
        (lambda c: c[0].update(segmentations="x"), ["prediction 0", "segmentations of video 1", "'x'"]),
        (lambda c: c[0]["segmentations"].__setitem__(0, [1]), ["video 1", "frame 0", "[1]"]),
        (lambda c: c[0]["segmentations"].__setitem__(0, "x"), ["video 1", "frame 0", "'x'"]),
        (lambda c: c[0]["segmentations"][0].update(size=None), ["video 1", "frame 0", "size null"]),
        (lambda c: c[0]["segmentations"][0].pop("size"), ["video 1", "frame 0", "size is missing"]),
        (lambda c: c[0]["segmentations"][0].pop("counts"), ["video 1", "frame 0", "counts is missing"]),
        (lambda c: c[0]["segmentations"][0].update(counts=None), ["video 1", "frame 0", "run-length"]),
        (lambda c: c[0]["segmentations"][0].update(counts=[24.0]), ["video 1", "frame 0", "whole numbers"]),
        (lambda c: c[0]["segmentations"][0].update(counts=[10**30]), ["video 1", "frame 0", "longer"]),
        (lambda c: c[0]["segmentations"][0].update(counts=[30, -6]), ["video 1", "frame 0", "negative"]),
        (lambda c: c[0]["segmentations"][0].update(counts="oooooooooooooooo0"), ["video 1", "frame 0", "run-length"]),
        (lambda c: c[0]["segmentations"][0].update(counts="é"), ["video 1", "frame 0", "run-length"]),
        (lambda c: c.insert(0, None), ["prediction 0", "null"]),
        (lambda c: c.insert(0, "row"), ["prediction 0", "'row'"]),
    ],
)
def test_faults_of_youtube_vis_results_are_named(tmp_path, change, words):
    truth, results = write_ytvis(tmp_path)
    change_json(results / "results.json", change)
    with pytest.raises(UserError) as error:
        evaluate_folders(truth, results)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["annotations"][0].update(video_id=7), ["annotation 0", "video 7"]),
        (lambda c: c["annotations"].append(None), ["annotation 1", "null"]),
        (lambda c: c["annotations"][0].update(areas=["8", None]), ["annotation 0", "area of video 1, frame 0", "'8'"]),
        (lambda c: c["annotations"][0].update(areas=[8]), ["annotation 0", "1 areas", "2 frames"]),
        (lambda c: c["annotations"][0].update(areas=[-8, 0]), ["annotation 0", "-8"]),
        (lambda c: c["annotations"][0].update(iscrowd="no"), ["annotation 0", "iscrowd", "'no'"]),
        (lambda c: c["annotations"][0].pop("segmentations"), ["annotation 0", "segmentations is missing"]),
        (lambda c: c.update(annotations=None), ["no annotations in it"]),
        (lambda c: c.update(annotations={"a": 1}), ["annotations is {'a': 1}"]),
        (lambda c: c["videos"].append({"id": "1", "height": 4, "width": 6, "length": 2}), ["numbers and texts"]),
        (lambda c: c["videos"].append(c["videos"][0]), ["video 1 stands in videos twice"]),
        (lambda c: c["videos"][0].pop("id"), ["video 0: id is missing"]),
        (lambda c: c["videos"][0].update(height=None), ["height of video 1", "null"]),
        (lambda c: c["videos"][0].update(width=10**9), ["width of video 1", "1000000000"]),
        (lambda c: c["videos"][0].pop("file_names"), ["length is missing"]),
        (lambda c: c.pop("videos"), ["videos is missing"]),
        (lambda c: c.pop("categories"), ["categories is missing"]),
        (lambda c: c.update(categories=[]), ["categories is empty"]),
        (lambda c: c["categories"][0].pop("id"), ["category 0: id is missing"]),
        (lambda c: c["categories"][0].update(id=4), ["category 4 stands in categories twice"]),
    ],
)
def test_faults_of_youtube_vis_truth_are_named(tmp_path, change, words):
    truth, results = write_ytvis(tmp_path)
    change_json(truth / "val/instances.json", change)
    with pytest.raises(UserError) as error:
        evaluate_folders(truth, results)
    assert all(word in str(error.value) for word in (*words, "instances.json")), str(error.value)


def test_what_nobody_expected_names_the_video_and_asks_for_a_report(folders, monkeypatch):
    monkeypatch.setattr(scoring, "count_video", lambda *_: 1 / 0)
    with pytest.raises(UserError, match="video 3_b: ZeroDivisionError: division by zero; .* please report it"):
        evaluate_folders(*folders)
    monkeypatch.setattr(scoring, "count_video", lambda *_: bytearray(1 << 62))
    with pytest.raises(UserError, match="video 3_b: not enough memory"):
        evaluate_folders(*folders)


def test_report_names_windows_classes_and_quirks(folders):
    text = io.StringIO()
    result = evaluate_folders(*folders, metrics="all", windows="1,2", quirks_off=["void_class"], progress=True)
    print_report(result, console=Console(file=text, width=100))
    lines = text.getvalue().splitlines()
    numbers = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert ["1", "100.00", "100.00", "100.00", "100.00", "100.00"] in numbers
    assert [
        "mean",
        f"{result['vpq']['vpq']['all']:.2f}",
        "",
        "",
        f"{result['vpq']['vpq']['things']:.2f}",
        "100.00",
    ] in numbers
    assert any("void_class" in line for line in lines)
    assert ["sky", "stuff", "100.00"] in numbers
    cost = result["anatomy"]["costs"]["identity"]
    assert ["identity", *(f"{cost[part]:.2f}" for part in ("all", "things", "stuff"))] in numbers
    assert ["STQ", f"{result['stq']['stq']:.2f}"] in numbers
