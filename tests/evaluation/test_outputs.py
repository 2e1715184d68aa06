"""Where scores are written: refused before the scoring, whole or not at all, never over an input."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from label_scenes import video, write_vipseg

from vps_jax.evaluation import outputs
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.types import UserError

SCENE = (video(np.array([[[1, 1, 7, 7]]]), {1: 0, 7: 2}),) * 2


@pytest.fixture
def folders(tmp_path):
    write_vipseg(tmp_path / "truth", tmp_path / "results", {"1_a": SCENE})
    return tmp_path / "truth", tmp_path / "results"


def command(folders, *options, stdout=subprocess.PIPE):
    main = [sys.executable, "-m", "vps_jax", "evaluate", "--truth", folders[0], "--predictions", folders[1]]
    return subprocess.run([*main, *options], stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_inputs_are_never_written_over(folders, tmp_path):
    truth, results = folders
    (tmp_path / "link").symlink_to(results / "pred.json")
    os.link(results / "pred.json", tmp_path / "second_name")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    wrong = [
        results / "pred.json", tmp_path / "link", tmp_path / "second_name", truth / "panoptic_gt_VIPSeg_val.json",
        results / "pan_pred/1_a/00000002.png", results / "pan_pred/new.csv", truth / "panomasksRGB",
    ]  # fmt: skip
    for path in wrong:
        for option in ("json_out", "per_video"):
            with pytest.raises(UserError, match="is an input|is a folder"):
                evaluate_folders(*folders, **{option: path})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    evaluate_folders(*folders, json_out=results / "scores.json")  # beside them is a fine place


def test_what_cannot_be_written_is_refused_before_the_scoring(folders, tmp_path):
    (tmp_path / "file").write_text("")
    (folders[1] / "pan_pred/1_a/00000002.png").write_text("would be complained about")
    for path, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "x.json", "is no folder"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate_folders(*folders, json_out=path)
    with pytest.raises(UserError, match="asked for twice"):
        evaluate_folders(*folders, json_out=tmp_path / "x", per_video=tmp_path / "truth/../x")


def test_a_link_stays_a_link_and_a_mode_a_mode(folders, tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "real.json").chmod(0o640)
    (tmp_path / "link.json").symlink_to("real.json")
    result = evaluate_folders(*folders, json_out=tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text()) == result
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "real.json", "results", "truth"]


def test_pipes_get_the_text_and_stay_pipes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    outputs.check([tmp_path / "pipe"], [tmp_path / "other"])
    outputs.write(tmp_path / "pipe", "text")
    reader.join(10)
    assert got == ["text"] and (tmp_path / "pipe").is_fifo()


def test_devices(folders):
    outputs.write("/dev/null", "text")
    with pytest.raises(UserError, match="/dev/full: No space left on device"):
        outputs.write("/dev/full", "text")


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1"])
def test_standard_output_gets_the_json_alone(folders, tmp_path, path):
    done = command(folders, "--json", path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pq"]["all"]["pq"] == 100.0
    assert "VPQ in percent" in done.stderr
    with open(tmp_path / "out.json", "w") as file:
        assert command(folders, "--json", path, stdout=file).returncode == 0
    assert json.loads((tmp_path / "out.json").read_text())["frames"] == 1


def test_standard_error_is_an_output_too(folders):
    done = command(folders, "--json", "/dev/stderr")
    assert done.returncode == 0 and json.loads(done.stderr)["frames"] == 1
    assert "VPQ in percent" in done.stdout


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "x.json").write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="x.json: No space left on device"):
        outputs.write(tmp_path / "x.json", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
