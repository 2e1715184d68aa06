"""Zip files, the submission checker, subsets, tables, pictures, and the commands around them."""

import csv
import io
import json
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest
from label_scenes import CLASSES, video, write_png, write_vipseg

from vps_jax import cli
from vps_jax.evaluation import archives, metrics, submission, tables
from vps_jax.evaluation.runner import evaluate_folders, result_of
from vps_jax.types import UserError

KINDS = {1: 0, 7: 2, 70000: 2}
MAPS = np.array([[[1, 1, 7, 7]], [[1, 1, 7, 7]]])
STEM = "00000002"


@pytest.fixture
def folders(tmp_path):
    """Root and results of two videos, the second with half of the cat missed."""
    missed = np.where(np.arange(4) == 3, 1, MAPS)
    whole = video(MAPS, KINDS)
    scenes = {"1_a": (whole, whole), "2_b": (whole, video(missed, KINDS))}
    write_vipseg(tmp_path / "truth", tmp_path / "results", scenes)
    return tmp_path / "truth", tmp_path / "results"


def pack(folder, archive, *, below=""):
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, below + str(path.relative_to(folder)))
    return archive


def main(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return end.value.code


@pytest.mark.parametrize("below", ["", "my results/"])
def test_a_zip_file_of_results_scores_as_its_folder(folders, tmp_path, below):
    expected = evaluate_folders(*folders)
    result = evaluate_folders(folders[0], pack(folders[1], tmp_path / "r.zip", below=below), processes=2)
    assert result.pop("predictions").endswith("r.zip") and expected.pop("predictions")
    assert result == expected


def test_pngs_may_be_packed_once_more(folders, tmp_path):
    inner = pack(folders[1] / "pan_pred", tmp_path / "pan_pred.zip", below="pan_pred/")
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as file:
        file.write(folders[1] / "pred.json", "pred.json")
        file.write(inner, "pan_pred.zip")
    assert evaluate_folders(folders[0], tmp_path / "r.zip")["vpq"] == evaluate_folders(*folders)["vpq"]


def test_broken_and_missing_zip_files_are_named(folders, tmp_path):
    (tmp_path / "r.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="r.zip: not a zip file that can be read"):
        evaluate_folders(folders[0], tmp_path / "r.zip")
    with pytest.raises(UserError, match="gone.zip: No such file"):
        evaluate_folders(folders[0], tmp_path / "gone.zip")
    with pytest.raises(UserError, match="is an input"):
        evaluate_folders(folders[0], pack(folders[1], tmp_path / "r.zip"), json_out=tmp_path / "r.zip")


def test_an_entry_of_a_zip_file_cannot_leave_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as file:
        file.writestr("../outside.txt", "x")
        file.writestr("pred.json", "{}")
    with archives.opened(tmp_path / "r.zip") as folder:
        assert (folder / "outside.txt").is_file()
    assert not (tmp_path / "outside.txt").exists() and not folder.exists()


def faults(folders, **options):
    return submission.check(*folders, split=options.pop("split", "val"), **options)


def test_results_without_fault(folders):
    (folders[0] / "panomasksRGB").rename(folders[0] / "gone")  # no truth pixel is looked at
    assert faults(folders) == (2, [])
    assert faults(folders, videos=["2_b"]) == (1, [])


def test_all_faults_are_told_at_once(folders):
    for path in (folders[1] / "pan_pred/1_a").iterdir():
        write_png(path, np.ones((2, 4), int))
    content = json.loads((folders[1] / "pred.json").read_text())
    content["annotations"][1]["video_id"] = "3_c"
    (folders[1] / "pred.json").write_text(json.dumps(content))
    count, lines = faults(folders)
    assert count == 2
    for words in ("size is 4x2, expected 4x1", "id 7 is listed in pred.json but has no pixel", "2_b is missing"):
        assert any(words in line for line in lines), lines
    assert len(lines) == 5  # two frames of 1_a with two faults each


def test_exchanged_red_and_blue_are_recognised(folders):
    truth = video(np.array([[[70000, 5]]]), {70000: 2, 5: 0})
    (folders[1] / "pan_pred/1_a/00000005.png").unlink()
    write_vipseg(*folders, {"1_a": (truth, truth)})
    path = folders[1] / f"pan_pred/1_a/{STEM}.png"
    cv2.imwrite(str(path), cv2.imread(str(path))[..., ::-1])
    _, lines = faults(folders)
    assert len(lines) == 1 and "red and blue are exchanged" in lines[0]


def test_a_split_without_truth_has_videos_alone(folders):
    content = json.loads((folders[0] / "panoptic_gt_VIPSeg_val.json").read_text())
    del content["annotations"]
    (folders[0] / "panoptic_gt_VIPSeg_test.json").write_text(json.dumps(content))
    assert faults(folders, split="test") == (2, [])
    (folders[0] / "panoptic_gt_VIPSeg_test.json").unlink()
    with pytest.raises(UserError, match="no frames of split 'test' are known"):
        faults(folders, split="test")
    (folders[0] / "test.txt").write_text("1_a\n")
    for stem in (STEM, "00000005"):
        write_png(folders[0] / f"images/1_a/{stem}.png", np.zeros((1, 4, 3), np.uint8))
    count, lines = faults(folders, split="test")
    assert (count, lines) == (1, [])
    (folders[1] / f"pan_pred/1_a/{STEM}.png").unlink()
    assert "no such file" in faults(folders, split="test")[1][0]


def test_class_maps_are_checked(tmp_path):
    (tmp_path / "truth/data/1_a/origin").mkdir(parents=True)
    (tmp_path / "truth/data/1_a/origin/00000001.jpg").write_bytes(b"")
    (tmp_path / "truth/val.txt").write_text("1_a\n2_b\n")
    write_png(tmp_path / "results/1_a/00000001.png", np.full((2, 2), 124, np.uint8))
    count, lines = faults((tmp_path / "truth", tmp_path / "results"))
    assert count == 2 and len(lines) == 2
    assert "class 124; expected 0..123" in lines[0] and "2_b" in lines[1] and "no such folder" in lines[1]
    # without images the masks say which frames there are and of which size
    (tmp_path / "truth/data/1_a/origin").rename(tmp_path / "gone")
    for stem in ("00000001", "00000002"):
        write_png(tmp_path / f"truth/data/1_a/mask/{stem}.png", np.ones((2, 3), np.uint8))
    _, lines = faults((tmp_path / "truth", tmp_path / "results"), videos=["1_a"])
    assert "00000002.png: no such file" in lines[0] and "size is 2x2; expected 3x2" in lines[1] and len(lines) == 2


def test_result_files_of_instances_are_checked(tmp_path):
    videos = [{"id": 1, "height": 1, "width": 4, "length": 1}]
    (tmp_path / "valid.json").write_text(json.dumps({"videos": videos, "categories": [{"id": 3, "name": "cat"}]}))
    row = {"video_id": 1, "category_id": 3, "score": 1, "segmentations": [{"size": [1, 4], "counts": [2, 2]}]}
    (tmp_path / "results.json").write_text(json.dumps([row]))
    both = tmp_path / "valid.json", tmp_path / "results.json"
    assert faults(both) == (1, [])
    row["segmentations"][0]["counts"] = [5]
    (tmp_path / "results.json").write_text(json.dumps([row]))
    assert "runs of 5 pixels" in faults(both)[1][0]
    videos.append(videos[0] | {"id": 2})
    (tmp_path / "valid.json").write_text(json.dumps({"videos": videos, "categories": [{"id": 3, "name": "cat"}]}))
    assert faults(both, videos=["2"]) == (1, [])


def test_check_is_a_command(folders, capsys):
    assert main("evaluate", "--truth", folders[0], "--predictions", folders[1], "--check") == 0
    assert capsys.readouterr().out == "2 videos, 0 faults\n"
    (folders[1] / f"pan_pred/1_a/{STEM}.png").unlink()
    assert main("evaluate", "--truth", folders[0], "--predictions", folders[1], "--check") == 1
    assert "2 videos, 1 faults" in capsys.readouterr().out


def test_videos_by_name_or_file(folders, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("2_b\n")
    for chosen in ("2_b", tmp_path / "names.txt"):
        options = ("--windows", "1", "--metrics", "vpq", "--json", tmp_path / "out.json", "--videos", chosen)
        assert main("evaluate", "--truth", folders[0], "--predictions", folders[1], *options) == 0
        assert list(json.loads((tmp_path / "out.json").read_text())["vpq"]["per_video"]) == ["2_b"]


def test_tables_of_classes_are_whole_as_csv_and_markdown(folders, tmp_path):
    result = evaluate_folders(
        *folders, metrics="all", windows=(1, 2), per_class=tmp_path / "c.csv", confusion=tmp_path / "m.csv"
    )
    rows = list(csv.DictReader(io.StringIO((tmp_path / "c.csv").read_text())))
    assert [(row["id"], row["class"], row["kind"]) for row in rows] == [("0", "sky", "stuff"), ("2", "cat", "thing")]
    assert float(rows[1]["vpq2"]) == result["vpq"]["per_class"]["2"]["windows"]["2"]["pq"]
    assert float(rows[1]["hota"]) == result["hota"]["per_class"]["2"]["hota"] and rows[0]["hota"] == ""
    evaluate_folders(*folders, per_class=tmp_path / "c.md", metrics="miou")
    lines = (tmp_path / "c.md").read_text().splitlines()
    assert lines[:2] == ["| id | class | kind | iou |", "| --- | --- | --- | --- |"]
    assert lines[2].startswith("| 0 | sky | stuff | ")
    matrix = list(csv.reader(io.StringIO((tmp_path / "m.csv").read_text())))
    assert matrix == [["truth", "sky", "cat"], ["sky", "8", "0"], ["cat", "2", "6"]]
    with pytest.raises(UserError, match="none of the metrics has a table of matrix"):
        evaluate_folders(*folders, metrics="vpq", confusion=tmp_path / "m.csv")


def test_pictures(folders, tmp_path):
    evaluate_folders(*folders, metrics="all", windows=(1, 2), plots=tmp_path / "plots")
    pictures = {path.stem: cv2.imread(str(path)) for path in (tmp_path / "plots").iterdir()}
    assert pictures.keys() == {"vpq_of_classes", "anatomy", "confusion"}
    blue, green = (0xB6, 0x6F, 0x3B), (0x3F, 0x9A, 0x7F)  # B, G, R of things and stuff
    for color in (blue, green):  # a bar each
        assert (pictures["vpq_of_classes"] == color).all(axis=-1).sum() > 1000


def test_leaderboard_row():
    numbers = dict(zip(tables.LEADERBOARD_COLUMNS, (50.03941, 51.6104, 50.5923, 49.4210, 48.5340, 52), strict=True))
    assert tables.leaderboard_row(numbers) == "50.0394 | 51.6104 | 50.5923 | 49.4210 | 48.5340 | 52.0000"
    assert tables.leaderboard_row({"vpq": 50.0}) is None


def test_compare_is_a_command(folders, tmp_path, capsys):
    perfect = tmp_path / "perfect"
    whole = video(MAPS, KINDS)
    write_vipseg(tmp_path / "again", perfect, {"1_a": (whole, whole), "2_b": (whole, whole)})
    result = evaluate_folders(*folders, json_out=tmp_path / "a.json", windows=(1, 2))
    options = ("--truth", folders[0], "--windows", "1,2")
    assert main("compare", tmp_path / "a.json", perfect, *options) == 0
    out = capsys.readouterr().out
    assert f"{100 - result['vpq']['vpq']['all']:.2f}" in out and "95 % interval" in out and "2_b" in out
    assert main("compare", tmp_path / "a.json", perfect) == 2
    assert "results are scored against a truth" in capsys.readouterr().err
    (tmp_path / "b.json").write_text("[]")
    assert main("compare", tmp_path / "a.json", tmp_path / "b.json") == 2
    assert "not what `vps-jax evaluate --json` writes" in capsys.readouterr().err
    assert result_of(tmp_path / "a.json", None) == json.loads((tmp_path / "a.json").read_text())


def test_every_metric_has_the_tables_that_reports_want(folders):
    result = evaluate_folders(*folders, metrics="all", windows=(1, 2))
    for name, row in metrics.METRICS.items():
        if name in result:
            for table in row.load().rows(result[name]):
                assert all(len(cells) == len(table.columns) for cells in table.rows), (name, table.title)
    assert len(CLASSES.names) == 4


@pytest.mark.parametrize(
    "path, value",
    [
        (("vpq",), None),
        (("vpq", "vpq"), {}),
        (("vpq", "windows", "1", "things"), "x"),
        (("vpq", "windows", "1", "all", "pq"), float("nan")),
        (("vpq", "per_video", "1_a", "counts"), []),
        (("vpq", "per_class", "2", "name"), {}),
        (("stq", "per_class"), True),
        (("stq", "stq"), "x"),
        (("miou", "per_class"), [[]]),
        (("pq", "per_video", "1_a"), 1e308),
        (("hota",), -1),
    ],
)
def test_a_damaged_result_is_named_and_not_compared(folders, tmp_path, capsys, path, value):
    evaluate_folders(*folders, json_out=tmp_path / "a.json", windows=(1, 2), metrics="all")
    content = json.loads((tmp_path / "a.json").read_text())
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    (tmp_path / "b.json").write_text(json.dumps(content))
    assert main("compare", tmp_path / "a.json", tmp_path / "b.json") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "report it" not in err
    assert f"{tmp_path / 'b.json'}: not whole as a result of `vps-jax evaluate --json`" in err


@pytest.mark.parametrize("option", [("--samples", -1), ("--samples", 10**12), ("--seed", -1), ("--rows", -1)])
def test_numbers_that_a_comparison_cannot_use_are_refused(folders, tmp_path, capsys, option):
    evaluate_folders(*folders, json_out=tmp_path / "a.json", windows=(1, 2), metrics="vpq")
    assert main("compare", tmp_path / "a.json", tmp_path / "a.json", *option) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and option[0].strip("-") in err and "report it" not in err


def test_a_check_writes_nothing_and_says_so(folders, tmp_path, capsys):
    both = ("--truth", folders[0], "--predictions", folders[1])
    assert main("evaluate", *both, "--check", "--json", tmp_path / "out.json") == 2
    assert "--check scores nothing" in capsys.readouterr().err
    assert main("evaluate", *both, "--classes", -1) == 2
    assert "--classes" in capsys.readouterr().err


LONG = "x" * 300


def test_names_that_no_file_can_have_are_one_line(folders, capsys):
    whole = {"--truth": folders[0], "--predictions": folders[1]}
    for option in ("--truth", "--predictions", "--json", "--per-class", "--split"):
        chosen = whole | {option: LONG}
        assert main("evaluate", *(part for pair in chosen.items() for part in pair)) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and LONG in err and "report it" not in err, option
        assert "name too long" in err or "no truth of split" in err, option
    assert main("compare", f"{LONG}.json", f"{LONG}.json") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_many_videos_are_asked_for_by_name(folders, capsys):
    names = ",".join(["1_a", "2_b"] * 200)
    assert main("evaluate", "--truth", folders[0], "--predictions", folders[1], "--windows", 1, "--videos", names) == 0
    assert "2 videos" in capsys.readouterr().out


def test_the_file_of_names_is_no_output(folders, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("2_b\n")
    options = ("--truth", folders[0], "--predictions", folders[1], "--videos", names)
    assert main("evaluate", *options, "--json", names) == 2
    assert "names.txt is an input" in capsys.readouterr().err
    assert names.read_text() == "2_b\n"


def test_the_json_of_another_layout_is_told_from_youtube_vis(folders, capsys):
    truth = folders[0] / "panoptic_gt_VIPSeg_val.json"
    for check in ((), ("--check",)):
        assert main("evaluate", "--truth", truth, "--predictions", folders[1], *check) == 2
        assert f"{truth}: the truth of VIPSeg; give its folder, {folders[0]}" in capsys.readouterr().err


def test_a_wrong_value_is_shown_short(folders):
    content = {"videos": [{"file_names": ["a" * 200] * 50, "height": 4}], "categories": [{"id": 1}]}
    (folders[0] / "own.json").write_text(json.dumps(content))
    (line,) = faults((folders[0] / "own.json", folders[1]))[1]
    assert "id is missing in" in line and len(line) < len(str(folders[0])) + 200


@pytest.mark.parametrize("closed, code", [("2>&-", 0), (">&-", 0), (">/dev/full", 2)])
def test_a_report_that_nobody_can_read(folders, closed, code):
    command = f"exec {sys.executable} -m vps_jax evaluate --truth {folders[0]} --predictions {folders[1]} {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stderr == ("" if code == 0 else "error: standard output: No space left on device\n")
