"""A truth is looked at before it scores, and nothing but what is used is looked at."""

import json
import struct
import zlib

import numpy as np
import pytest
from label_scenes import frame, video, write_vipseg
from rich.console import Console

from vps_jax.evaluation.runner import evaluate_folders, print_report
from vps_jax.types import UserError

MAPS = np.array([[[1, 1, 7, 7]], [[1, 1, 7, 7]]])
KINDS = {1: 0, 7: 2}


@pytest.fixture
def folders(tmp_path):
    """Root and results of two videos that are predicted without fault."""
    scene = (video(MAPS, KINDS), video(MAPS, KINDS))
    write_vipseg(tmp_path / "truth", tmp_path / "results", {"1_a": scene, "2_b": scene})
    return tmp_path / "truth", tmp_path / "results"


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def source(folders):
    return folders[0] / "panoptic_gt_VIPSeg_val.json"


def first_row(content):
    return content["annotations"][0]["annotations"][0]["segments_info"][1]


def vpq(folders, **options):
    return evaluate_folders(*folders, windows=(1,), metrics="vpq", **options)["vpq"]["vpq"]["all"]


@pytest.mark.parametrize("area", [0, 1, 3])
def test_an_area_that_differs_from_the_pixels_is_refused(folders, area):
    change(source(folders), lambda c: first_row(c).update(area=area))
    with pytest.raises(UserError, match=rf"1_a, frame 00000002: segment 7 has area {area}, but 2 pixels.*json_area"):
        evaluate_folders(*folders, metrics="stq")
    if area < 2:
        with pytest.raises(UserError, match="1_a.*segment 7 has area.*IoU above 1"):
            vpq(folders, quirks_on=["json_area"])
    else:  # as the official script: IoU 2/3 in one of four tubes
        assert vpq(folders, quirks_on=["json_area"]) == pytest.approx(100 * (1 + (3 + 2 / 3) / 4) / 2)


def test_without_areas_pixels_are_counted(folders):
    change(source(folders), lambda c: [first_row(c).pop("area"), c["annotations"][1].update()])
    assert vpq(folders) == 100.0


def test_a_listed_segment_without_pixels_is_no_truth(folders):
    change(source(folders), lambda c: first_row(c).update(id=9, area=0))
    with pytest.raises(UserError, match="segment 9 has area 0, but 0 pixels"):
        vpq(folders)


def test_videos_that_are_listed_are_scored(folders):
    change(folders[1] / "pred.json", lambda c: c["annotations"].pop(1))
    with pytest.raises(UserError, match="2_b is missing"):
        vpq(folders)
    change(source(folders), lambda c: c["videos"].pop(1))
    assert vpq(folders) == 100.0


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda c: c["annotations"].pop(0), ["1_a", "without annotations"]),
        (lambda c: c["annotations"][0]["annotations"].pop(), ["1_a", "frame 00000005 is missing"]),
        (lambda c: c["videos"][0]["images"].pop(), ["1_a", "frame 00000005 is not"]),
        (lambda c: c["videos"].append(c["videos"][0]), ["1_a", "videos twice"]),
        (lambda c: c["videos"][0]["images"].append(c["videos"][0]["images"][0]), ["1_a", "00000002", "twice"]),
        (lambda c: c.update(videos=[]), ["no video in it"]),
        (lambda c: c.update(videos={}), ["videos is {}", "a list"]),
        (lambda c: c["videos"][0].update(video_id=None), ["videos[0]", "null"]),
        (lambda c: c["videos"][0]["images"][0].update(width="6"), ["width", "'6'"]),
        (lambda c: c.update(categories={"1": 2}), ["categories", "a list"]),
        (lambda c: c["categories"][1].pop("id"), ["category 1", "id is missing"]),
        (lambda c: c["categories"][1].pop("isthing"), ["isthing is missing"]),
        (lambda c: c["categories"][1].update(isthing="no"), ["isthing of category 1", "'no'", "0 or 1"]),
        (lambda c: c["categories"][1].update(id=10**6), ["id of category 1", "1000000", "0..2047"]),
        (lambda c: c["categories"].append(c["categories"][1]), ["category", "1 stands in categories twice"]),
        (lambda c: first_row(c).update(area="n/a"), ["1_a", "00000002", "area of segment 7", "'n/a'"]),
        (lambda c: first_row(c).update(area=-1), ["area of segment 7", "-1"]),
        (lambda c: first_row(c).update(iscrowd=2), ["iscrowd of segment 7", "2"]),
        (lambda c: first_row(c).update(iscrowd=None), ["iscrowd of segment 7", "null"]),
        (lambda c: first_row(c).update(category_id=True), ["segment 7 has category True"]),
        (lambda c: first_row(c).update(id=True), ["segment id True"]),
        (lambda c: c["annotations"].append(None), ["annotations[2]", "null"]),
        (lambda c: c["annotations"][0].update(annotations=None), ["1_a", "null"]),
        (lambda c: c["annotations"][0]["annotations"].insert(0, None), ["1_a", "frame number 0", "null"]),
        (lambda c: c["annotations"][0]["annotations"][0].update(segments_info=None), ["00000002", "null"]),
        (lambda c: c["annotations"][0]["annotations"][0].update(file_name=["x"]), ["1_a", "file_name", "['x']"]),
        (lambda c: c["annotations"][0].update(video_id="../1_a"), ["annotations[0]", "'../1_a'", "a name"]),
        (lambda c: c["annotations"][0].update(video_id=[1]), ["annotations[0]", "[1]"]),
        (lambda c: c["annotations"][0].update(video_id="a" * 300), ["annotations[0]", "255 bytes"]),
        (lambda c: c["annotations"][0].update(video_id="a\0b"), ["annotations[0]", "a name"]),
        (lambda c: c["annotations"][0].update(video_id="\ud800"), ["annotations[0]", "a name"]),
    ],
)
def test_faults_of_the_truth_json_are_named(folders, edit, words):
    change(source(folders), edit)
    with pytest.raises(UserError) as error:
        evaluate_folders(*folders)
    message = str(error.value)
    assert "\n" not in message and source(folders).name in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    "text, words",
    [("[]", "an object"), ("[" * 100_000, "nested too deeply"), ("null", "null"), ('"\xff"', "not valid json")],
)
def test_files_that_are_no_table_at_all_are_named(folders, side, text, words):
    path = (source(folders), folders[1] / "pred.json")[side]
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=f"{path.name}.*{words}"):
        evaluate_folders(*folders)


def test_what_is_not_used_is_not_looked_at(folders):
    def edit(content):
        first_row(content).update(area="n/a", iscrowd=[], bbox=float("nan"), color={"deep": [None]})
        content.update(videos=7, categories="none", info=None)

    change(folders[1] / "pred.json", edit)
    change(source(folders), lambda c: c["categories"][0].update(color=None))
    assert vpq(folders) == 100.0


def test_category_ids_may_have_gaps(tmp_path):
    scene = (video(MAPS, {1: 0, 7: 3}), video(MAPS, {1: 0, 7: 3}))
    write_vipseg(tmp_path / "truth", tmp_path / "results", {"1_a": scene})
    change(tmp_path / "truth/panoptic_gt_VIPSeg_val.json", lambda c: [c["categories"].pop(1) for _ in range(2)])
    result = evaluate_folders(tmp_path / "truth", tmp_path / "results", windows=(1,), metrics="all")
    assert result["vpq"]["per_class"].keys() == {"0", "3"} and result["vpq"]["vpq"]["all"] == 100.0
    change(tmp_path / "results/pred.json", lambda c: first_row(c).update(category_id=2))
    with pytest.raises(UserError, match="category 2; expected 0..3 without those that the truth does not list"):
        evaluate_folders(tmp_path / "truth", tmp_path / "results")


def test_a_truth_without_labelled_pixels_has_no_stq(tmp_path, capsys):
    void, something = [frame(np.zeros((2, 5), int), {})], [frame(np.full((2, 5), 9), {9: 2})]
    write_vipseg(tmp_path / "truth", tmp_path / "results", {"1_a": (void, something)})
    result = evaluate_folders(tmp_path / "truth", tmp_path / "results", metrics="all")
    assert [result["stq"][name] for name in ("stq", "sq")] == [None, None]
    assert result["stq"]["per_video"]["1_a"]["stq"] is None
    assert result["vpq"]["vpq"]["all"] is result["miou"]["miou"] is None
    print_report(result, console=Console(width=300))
    assert "lists no segment in any frame" in capsys.readouterr().out


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_only_the_pixels_of_a_png_count(folders, capfd):
    path = folders[1] / "pan_pred/1_a/00000002.png"
    data = path.read_bytes()
    head, rest = data[:33], data[33:]
    strange = chunk(b"tRNS", bytes(6)) + chunk(b"gAMA", bytes(3)) + chunk(b"abCd", b"x") + chunk(b"eXIf", b"MM")
    path.write_bytes(head + strange + rest + bytes(1000))
    assert vpq(folders) == 100.0
    for broken in (data[:-20], data[:60] + b"\xff" + data[61:], head + chunk(b"ABCD", b"") + rest, data[:33]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="00000002.png: the PNG is cut off or broken"):
            vpq(folders)
    assert capfd.readouterr().err == ""


def test_lists_of_videos_are_text(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "val.txt").write_bytes(b"1_a\n\xff\n")
    with pytest.raises(UserError, match="val.txt: not UTF-8 text"):
        evaluate_folders(tmp_path, tmp_path)
    (tmp_path / "val.txt").write_text("1_a\n1_a\n")
    with pytest.raises(UserError, match="val.txt: video 1_a stands in it twice"):
        evaluate_folders(tmp_path, tmp_path)
    (tmp_path / "val.txt").write_text("../x\n")
    with pytest.raises(UserError, match="val.txt: line 1"):
        evaluate_folders(tmp_path, tmp_path)


def test_a_subset_of_videos(folders):
    assert evaluate_folders(*folders, videos=["2_b"])["videos"] == 1
    with pytest.raises(UserError, match="video 9_x is not in it; it has 2, 1_a, 2_b"):
        evaluate_folders(*folders, videos=["9_x"])
