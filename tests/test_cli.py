"""Commands: help with an example, one line and exit code 2 for whatever the user gets wrong, nothing left behind."""

import gc
import os
import pathlib
import subprocess
import sys
import time
from types import SimpleNamespace

import cv2
import jax
import micro_checkpoint
import numpy as np
import pytest
from typer.testing import CliRunner

from vps_jax import cli, command_line, convert
from vps_jax.runs import config_files, predict_files
from vps_jax.train.checkpoint import save_converted

ROOT = pathlib.Path(cli.__file__).parents[1]
COMMANDS = [
    "predict", "tune-ensemble", "evaluate", "convert", "demo", "data synthesize", "data convert", "data prepare",
    "data check", "data instances", "app", "weights list", "weights get",
]  # fmt: skip
ENSEMBLE = ROOT / "configs" / "ensemble.py"
OWN = ["own", "--source", "/nowhere", "--classes", "none.yaml"]
PREDICT = ["predict", "a.mp4", "--output", "y"]
TUNE = ["tune-ensemble", "--ensemble", ENSEMBLE, "--predictions", "x"]


def run(*arguments, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def complaint(*arguments, capsys) -> str:
    """The one line of bad input."""
    code, _, err = run(*arguments, capsys=capsys)
    assert code == cli.BAD_INPUT
    assert err.startswith("error: ") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command):
    result = CliRunner().invoke(cli.app, [*command.split(), "--help"])
    assert result.exit_code == 0 and f"Example: vps-jax {command}" in result.output


def test_no_command_is_help(capsys):
    code, out, _ = run(capsys=capsys)
    assert code == 0 and "Commands:" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paint"], "No such command 'paint'"),
        (["data"], "Missing command"),
        (["predict", "a.mp4"], "Missing option '--output'"),
        (PREDICT, "neither of --checkpoint and --ensemble; give one of them"),
        ([*PREDICT, "--checkpoint", "x", "--ensemble", ENSEMBLE], "both of --checkpoint and --ensemble"),
        ([*PREDICT, "--ensemble", ENSEMBLE, "--weights", "raw"], "--weights raw means nothing with --ensemble"),
        ([*PREDICT, "--ensemble", ENSEMBLE, "--short-side", "9"], "--short-side 9 means nothing with --ensemble"),
        ([*PREDICT, "--checkpoint", "x", "--keep-scores", "z"], "--keep-scores z means nothing with --checkpoint"),
        ([*PREDICT, "--ensemble", "/nowhere.py"], "/nowhere.py is not there"),
        ([*PREDICT, "--ensemble", ROOT / "configs" / "tiny.py"], "tiny.py has no members"),
        ([*PREDICT, "--ensemble", ENSEMBLE], "members.image: "),
        ([*TUNE, "--output", "y"], "no folder of kept scores"),
        ([*TUNE, "--output", ENSEMBLE, "--keep-scores", "z"], "ensemble.py exists; choose a new file"),
        ([*TUNE, "--output", "y", "--keep-scores", "z", "--parts", "0"], "--parts 0: expected at least 1"),
        (["data", "synthesize", "--out", "x", "--seed", "many"], "Invalid value for '--seed'"),
        (["data", "convert", "davis", "--source", "x", "--out", "y"], "data set 'davis' has no conversion"),
        (["data", "convert", "vipseg", "--source", "x", "--out", "y", "--height", "tall"], "--height 'tall'"),
        (["data", "prepare", "imagenet", "--source", "x", "--out", "y"], "data set 'imagenet' is unknown"),
        (["data", "prepare", "vipseg", "--source", "/nowhere", "--out", "y"], "/nowhere is no folder"),
        (["data", "prepare", *OWN, "--out", "y"], "--source /nowhere: no such folder"),
        (["data", "prepare", *OWN, "--out", "y", "--short-side", "-1"], "--short-side -1; expected 16 or more"),
        (["data", "prepare", *OWN, "--out", "y", "--short-side", "0"], "--short-side 0; expected 16 or more"),
        (["data", "prepare", *OWN, "--out", "y", "--max-gap", "-3"], "--max-gap -3; expected 1 or more"),
        (["data", "prepare", *OWN, "--out", "y", "--workers", "0"], "--workers 0; expected 1 or more"),
        (["data", "prepare", "vipseg", "--source", "x", "--out", "y", "--workers", "-2"], "--workers -2; expected 1"),
        (["data", "check", *OWN], "--source /nowhere: no such folder"),
        (["data", "check", *OWN, "--max-gap", "0"], "--max-gap 0; expected 1 or more"),
        (["data", "check", *OWN, "--json", "nodir/x.json"], "nodir/x.json: nodir is no folder; expected a file in"),
        (["data", "check", *OWN, "--json", "."], ". is a folder; expected a file to write"),
        (["data", "check", "vipseg", "--source", "/nowhere"], "there is no such folder; expected VIPSeg"),
        (["evaluate", "--truth", "/nowhere", "--predictions", "x"], "/nowhere: no truth"),
        (["convert", "x.pth", "--config", "/nowhere.py", "--output", "y"], "/nowhere.py is not there"),
        (["convert", "x.pth", "--output", "y"], "--config is missing"),
        (["convert", "x.pth", "--config", ENSEMBLE, "--output", "y"], "is an ensemble; expected the experiment of one"),
        (["configs", "stage2:swin_huge"], "model.backbone='swin_huge': expected one of"),
        (["data", "synthesize", "--out", "x", "--train", "-1"], "Invalid value for '--train'"),
        (["compare", "a.json", "b.json", "--rows", "-1"], "Invalid value for '--rows'"),
        (["evaluate", "--truth", "a", "--predictions", "b", "--classes", "-1"], "Invalid value for '--classes'"),
        ([*PREDICT, "--checkpoint", "x", "--archive", "."], "is a folder; expected a file to write"),
        ([*PREDICT, "--checkpoint", "x", "--archive", ROOT / "LICENSE" / "x.zip"], "LICENSE is no folder"),
        (["convert", "x", "--to", "torch", "--config", "c.py", "--output", "y"], "carries its own config"),
        (["convert", "x", "--to", "torch", "--output", "y"], "x"),
        ([*PREDICT, "--checkpoint", "/nowhere"], "/nowhere holds no checkpoint"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in complaint(*arguments, capsys=capsys)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_command_says_what_is_finished(capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt("3 of 8 videos are finished in results; run the same again to go on")

    monkeypatch.setattr(predict_files, "predict", stop)
    code, out, err = run(*PREDICT, "--checkpoint", "x", capsys=capsys)
    assert (code, out) == (cli.INTERRUPTED, "")
    assert err == "interrupted: 3 of 8 videos are finished in results; run the same again to go on\n"


def test_an_experiment_file_takes_an_argument_as_in_main():
    config = config_files.load(ROOT / "configs" / "stage2.py:resnet50")
    assert config["model"]["backbone"] == "resnet50" and config["name"] == "stage2_resnet50"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> pathlib.Path:
    """A checkpoint of configs/tiny.py whose numbers are all zero."""
    folder = tmp_path_factory.mktemp("run") / "weights"
    config = config_files.load(ROOT / "configs" / "tiny.py")
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), convert.expected(config["model"]))
    save_converted(folder, config, zeros)
    return folder


def frames(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    for i in range(2):
        cv2.imwrite(str(folder / f"{i:05d}.jpg"), np.random.default_rng(i).integers(0, 256, (32, 48, 3), np.uint8))
    return folder


def test_inputs_that_are_no_videos(checkpoint, tmp_path, capsys):
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    empty = tmp_path / "empty"
    empty.mkdir()
    cut = frames(tmp_path / "cut")
    whole = (cut / "00001.jpg").read_bytes()
    (cut / "00001.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    for given, expected in ((text, "notes.mp4"), (empty, "empty"), (cut, "00001.jpg"), (tmp_path / "no", "no")):
        line = complaint("predict", given, "--checkpoint", checkpoint, "--output", out, capsys=capsys)
        assert expected in line
        assert not list(out.rglob("*.png")) and not (out / "pred.json").exists()


@pytest.mark.parametrize("layout", ["ytvis", "burst", "davis", "youtube_vis_2021"])
def test_a_format_of_tracks_is_refused_for_a_task_without_any(checkpoint, tmp_path, capsys, layout):
    asked = ("--task", "semantic", "--format", layout, "--output", tmp_path / "out")
    line = complaint("predict", frames(tmp_path / "v"), "--checkpoint", checkpoint, *asked, capsys=capsys)
    assert f"format {layout!r}: holds tracks, and task 'semantic' has none; choose another format" in line
    assert not (tmp_path / "out").exists()


def test_a_task_that_needs_objects_is_checked_against_the_model_first(checkpoint, tmp_path, capsys):
    video, asked = frames(tmp_path / "v"), ("--task", "vos", "--output", tmp_path / "out")
    line = complaint("predict", video, "--checkpoint", checkpoint, *asked, capsys=capsys)
    assert "--task vos: no objects to follow; give --first-masks or --points" in line
    other = micro_checkpoint.videomt(tmp_path / "videomt")
    line = complaint("predict", video, "--checkpoint", other, *asked, capsys=capsys)
    assert "task='vos': a videomt model does panoptic, semantic, instance" in line
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(checkpoint, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    video = frames(tmp_path / "video")
    line = complaint("predict", video, "--checkpoint", checkpoint, "--output", tmp_path / "file" / "out", capsys=capsys)
    assert "cannot be written" in line
    line = complaint("data", "synthesize", "--out", tmp_path / "file" / "out", capsys=capsys)
    assert "file" in line


def test_checkpoint_of_another_architecture(tmp_path, capsys):
    config = config_files.load(ROOT / "configs" / "tiny.py")
    save_converted(tmp_path / "w", config, {"params": {"level_embed": np.zeros((3, 5), np.float32)}})
    line = complaint(
        "predict", frames(tmp_path / "v"), "--checkpoint", tmp_path / "w", "--output", tmp_path / "out", capsys=capsys
    )
    assert "another architecture" in line and "missing" in line and "level_embed (3, 5) instead of (3, 64)" in line
    assert not (tmp_path / "out").exists()


def test_weights_go_to_torch_and_come_back(checkpoint, tmp_path, capsys):
    config = config_files.load(ROOT / "configs" / "tiny.py")
    rng = np.random.default_rng(0)
    shapes = convert.expected(config["model"])
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    save_converted(tmp_path / "ours", config, variables)
    file = tmp_path / "weights.pth"
    with pytest.raises(SystemExit) as stop:
        cli.main(["convert", str(tmp_path / "ours"), "--to", "torch", "--output", str(file)])
    assert stop.value.code == 0 and f"-> {file}" in capsys.readouterr().out
    arrays = convert.read_checkpoint(file)
    assert "pixel_mean" in arrays  # a constant that only the published files hold
    back = convert.to_params(arrays, config["model"])
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    line = complaint("convert", tmp_path / "ours", "--to", "torch", "--output", file, capsys=capsys)
    assert "exists; choose a new file" in line


def main_py(*flags, cwd) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "main.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.train.stepz=3"], "no config key"),
        (["--config.train.steps=many"], "invalid literal for int() with base 10: 'many'"),
        (["--config.train.steps", "3", "4"], "['4'] is left over"),
        (["--config=/nowhere.py"], "/nowhere.py is not there"),
        ([f"--config={ROOT}/configs/tiny_stages.py:stage9"], "'stage9' of the experiment: expected one of stage1, "),
        ([f"--config={ROOT}/configs/stage4.py:swin_huge"], "model.backbone='swin_huge': expected one of"),
        (
            [f"--config={ROOT}/configs/stage1.py", "--config.data.without=mapillari"],
            "mapillari is no data set of these",
        ),
        (["--config.evaluate.metrics=vpq,sqt"], "evaluate.metrics: "),
        (["--config.evaluate.windows=0"], "evaluate.windows=0: expected"),
        (["--config.train.best_metric=VPQ"], "train.best_metric='VPQ' is none of the numbers of evaluate.metrics=vpq"),
        (["--config.train.batch_size=-8"], "train.batch_size=-8: expected a number of at least 1"),
        (["--mode=dream"], "should be one of <train|plan|predict|evaluate>"),
        (["--gpu=a100"], "--gpu and --devices are of --mode plan, this is --mode train"),
        (["--mode=plan", "--gpu=tpu"], "gpu 'tpu': expected one of a10, "),
        (["--mode=plan", "--devices=3"], "train.batch_size=4 cannot be split over 3 devices"),
        ([f"--config={ENSEMBLE}"], "mode 'train': an ensemble has nothing to train; choose --mode predict or"),
        ([f"--config={ENSEMBLE}", "--mode=evaluate"], "evaluate.truth: data/VIPSeg_720P/panoptic_gt_VIPSeg_val.json"),
        ([f"--config={ENSEMBLE}", "--mode=predict"], "members.image: "),
        (["--mode=predict", "--config.synthetic.folder="], "runs/tiny holds no checkpoint"),
        (["--config.synthetic.folder=", "--config.evaluate.truth=/nowhere"], "/nowhere/panoptic_gt_VIPSeg_val.json"),
    ],
)
def test_main_refuses_in_one_line(flags, message, tmp_path):
    done = main_py(*flags, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_ctrl_c_before_the_steps_is_one_line(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config():\n    raise KeyboardInterrupt\n")
    done = main_py("--config=mine.py", cwd=tmp_path)
    assert done.returncode == 130
    assert done.stderr == "interrupted; the same command goes on from what is finished\n"


BROKEN = {
    "def get_config()\n    return 1\n": "line 1: SyntaxError: expected ':'",
    "import nothing_here\n": "line 1: ModuleNotFoundError: No module named 'nothing_here'",
    "def get_config():\n    return {'name': 1}\n": "get_config() gives a dict; expected an ml_collections.ConfigDict",
    "\ndef get_config():\n    raise ValueError('too large')\n": "line 3: ValueError: too large",
    "x = 1\n": "has no get_config()",
}


@pytest.mark.parametrize("text", BROKEN, ids=["syntax", "import", "dict", "exception", "no get_config"])
def test_a_broken_experiment_file_is_one_line(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    pathlib.Path("mine.py").write_text(text)
    for command in (["configs", "mine.py"], [*PREDICT, "--ensemble", "mine.py"]):
        line = complaint(*command, capsys=capsys)
        assert "mine.py" in line and BROKEN[text] in line
    done = main_py("--config=mine.py", cwd=tmp_path)
    assert done.returncode == 2 and BROKEN[text] in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_ctrl_c_that_a_callback_of_a_library_has_swallowed_comes_again():
    seen = []
    told = command_line.interrupt_again(seen.append)
    told(SimpleNamespace(exc_type=ValueError))
    assert len(seen) == 1
    with pytest.raises(KeyboardInterrupt):
        told(SimpleNamespace(exc_type=KeyboardInterrupt))
        time.sleep(5)
    assert len(seen) == 1


@pytest.mark.parametrize("closed, code", [(">/dev/full", 2), ("| true", None), (">&-", 0)])
def test_an_output_that_takes_nothing(closed, code):
    command = f"{sys.executable} -m vps_jax configs {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert code is None or done.returncode == code  # of a pipe it is that of its last command
    expected = "error: standard output: No space left on device\n"
    assert done.stderr == (expected if code else "")


def test_too_little_memory_is_one_line(capsys, monkeypatch):
    def full(*_, **__):
        raise MemoryError("Unable to allocate 49.7 GiB")

    monkeypatch.setattr(cli, "app", full)
    assert "out of memory (Unable to allocate 49.7 GiB); choose smaller frames" in complaint("configs", capsys=capsys)


def test_a_command_ends_without_a_look_at_all_its_objects():
    last = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count()))"  # runs after those added later
    code = f"{last}; from vps_jax import cli; cli.main(['--version'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(shown.splitlines()[-1]) > 0


def test_a_command_lets_the_collector_look_seldom(capsys):
    before = gc.get_threshold()
    try:
        for threshold, expected in ((700, command_line.NEW_OBJECTS), (10**7, 10**7)):
            gc.set_threshold(threshold)
            with pytest.raises(SystemExit):
                cli.main(["--version"])
            assert gc.get_threshold()[0] == expected  # never more often than somebody has asked for
    finally:
        gc.set_threshold(*before)
    assert capsys.readouterr().out
