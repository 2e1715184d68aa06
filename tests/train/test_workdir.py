"""The folder of a run: what is left alone there, what keeps others out, and what its files say when they are odd."""

import json
import pathlib
import shutil

import pytest
from micro_experiment import micro_config, micro_variables, use_micro_rooms

from vps_jax.train import loop
from vps_jax.train.checkpoint import save_converted
from vps_jax.train.workdir import MARK, locked
from vps_jax.types import UserError


def evaluate(variables, step, label):
    return {"vpq": 1.0}, {}


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> pathlib.Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        use_micro_rooms(patch)
        loop.train(micro_config(steps=2), folder)
    return folder


@pytest.fixture
def trained(first, tmp_path, monkeypatch) -> pathlib.Path:
    """A copy of it."""
    use_micro_rooms(monkeypatch)
    return shutil.copytree(first, tmp_path / "run")


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "predictions/x.png", "checkpoints/100/model.bin"])
def test_files_that_no_run_has_written_are_left_as_they_are(tmp_path, monkeypatch, name):
    use_micro_rooms(monkeypatch)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("[]")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=f"holds {name[:11]}.*, which no run has written; expected a new") as error:
        loop.train(micro_config(steps=2), tmp_path)
    assert "\n" not in str(error.value) and contents(tmp_path) == before


def test_a_log_may_lie_there_and_so_may_a_run_without_its_mark(trained):
    (trained / "log.txt").write_text("")
    (trained / MARK).unlink()
    loop.train(micro_config(steps=4), trained)
    assert (trained / "checkpoints" / "4").is_dir() and (trained / MARK).read_text()


def test_a_mark_that_was_emptied_is_made_again(trained):
    (trained / MARK).write_text("")
    loop.train(micro_config(steps=3), trained)
    assert len((trained / MARK).read_text()) == 16


def test_converted_weights_are_no_run(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    save_converted(tmp_path, micro_config(), micro_variables())
    before = contents(tmp_path)
    message = f"holds converted weights.* start from them with --config.init_from.path={tmp_path}"
    for start in (loop.train, loop.evaluate_newest):
        with pytest.raises(UserError, match=message):
            start(micro_config(), tmp_path, evaluate=evaluate)
    assert contents(tmp_path) == before


def test_nothing_is_evaluated_where_nothing_was_trained_and_nothing_is_left_there(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    with pytest.raises(UserError, match="holds no checkpoint to evaluate"):
        loop.evaluate_newest(micro_config(), tmp_path / "none", evaluate=evaluate)
    assert not (tmp_path / "none").exists()


def test_an_evaluation_stays_out_of_a_workdir_that_a_run_is_in(trained):
    with locked(trained), pytest.raises(UserError, match="is in use by process"):
        loop.evaluate_newest(micro_config(steps=2), trained, evaluate=evaluate)
    assert not (trained / "metrics.json").exists()


@pytest.mark.parametrize("text", ['[{"step": 2', "{}", "[1]", '[{"step": 2}]'])
def test_numbers_of_evaluations_that_cannot_be_read_are_named_and_kept(trained, text):
    (trained / "metrics.json").write_text(text)
    for start in (loop.train, loop.evaluate_newest):
        with pytest.raises(UserError, match="metrics.json: .*; expected a row for each evaluation") as error:
            start(micro_config(steps=4), trained, evaluate=evaluate)
        assert "\n" not in str(error.value)
    assert (trained / "metrics.json").read_text() == text


def test_a_disk_that_fails_in_an_evaluation_is_one_line(trained):
    def full(variables, step, label):
        raise OSError(28, "No space left on device", "/disk/frame.png")

    with pytest.raises(UserError, match="/disk/frame.png: No space left on device; the newest checkpoint is 2; make"):
        loop.evaluate_newest(micro_config(steps=2), trained, evaluate=full)


@pytest.mark.parametrize("name", [MARK, ".lock", "checkpoints"])
def test_what_cannot_be_written_is_one_line_before_anything_compiles(tmp_path, monkeypatch, name):
    use_micro_rooms(monkeypatch)
    if name == "checkpoints":
        (tmp_path / MARK).write_text("0123")
        (tmp_path / name).write_text("")
    else:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(loop, "StepPrograms", None)
    with pytest.raises(UserError, match=f"{name}.*(Is a directory|File exists)") as error:
        loop.train(micro_config(), tmp_path)
    assert "\n" not in str(error.value)


def test_numbers_after_the_newest_checkpoint_are_left_out(trained):
    """They come again."""
    rows = [{"step": step, "weights": "ema", "vpq": 1.0} for step in (2, 4)]
    (trained / "metrics.json").write_text(json.dumps(rows))
    history = loop.evaluate_newest(micro_config(steps=2), trained, evaluate=evaluate)
    assert [(row["step"], row["weights"]) for row in history] == [(2, "raw"), (2, "ema")]
