"""A step done again is the step that was done."""

import json
import pathlib
import sys

import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "train"))
from micro_experiment import micro_config, use_micro_rooms

from vps_jax.parsing import plain
from vps_jax.runs import replay
from vps_jax.train import loop
from vps_jax.types import UserError


def test_the_recorded_step_is_done_again(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch, broken_step=5)
    with pytest.raises(UserError, match="step 5: .* `vps-jax replay"):
        loop.train(micro_config(checkpoint_every=2), tmp_path)
    record = json.loads((tmp_path / "nonfinite_step5.json").read_text())
    files = sorted(tmp_path.rglob("*"))
    found = replay.replay(tmp_path)
    assert (found.step, found.start, found.dataset) == (5, 4, "clips")
    assert list(found.records) == record["records"]
    assert {name for name, value in found.terms.items() if not np.isfinite(value)} == {
        name for name, value in record["terms"].items() if value == "nan"
    }
    assert sorted(tmp_path.rglob("*")) == files
    assert "video5/00000" in "\n".join(replay.lines(found))


def test_a_step_before_any_checkpoint_is_reached_from_the_start(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    rows = []
    monkeypatch.setattr("vps_jax.train.report.Report.add", lambda self, task, scalars: rows.append(scalars["loss"]))
    loop.train(micro_config(steps=2, checkpoint_every=0), tmp_path)
    found = replay.replay(tmp_path, 1)
    assert found.terms["loss"] == rows[1] and found.start == 0
    assert found.before["backbone/kernel"] > 0 and found.change["backbone/kernel"] > 0


def test_a_step_before_any_checkpoint_starts_from_the_weights_that_the_run_was_given(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(steps=5), tmp_path / "first")
    rows = []
    monkeypatch.setattr("vps_jax.train.report.Report.add", lambda self, task, scalars: rows.append(scalars["loss"]))
    given = {"path": str(tmp_path / "first")}
    loop.train(micro_config(steps=2, checkpoint_every=2, init_from=given), tmp_path / "second")
    assert replay.replay(tmp_path / "second", 1).terms["loss"] == rows[1]


def test_damaged_checkpoints_and_more_devices_than_are_here_do_not_matter(tmp_path, monkeypatch, capsys):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(steps=4, keep_checkpoints=2), tmp_path)
    whole = replay.replay(tmp_path, 3)
    (tmp_path / "checkpoints" / "2" / "meta" / "metadata").write_text("{")
    config = json.loads((tmp_path / "config.json").read_text())
    config["train"] |= {"fsdp": 24, "wandb_project": "x"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    files = sorted(tmp_path.rglob("*"))
    found = replay.replay(tmp_path, 3)
    assert (whole.start, found.start) == (2, 0) and found.terms["loss"] == pytest.approx(whole.terms["loss"], rel=1e-5)
    assert "warning: checkpoint 2 is damaged (meta/metadata has 1 bytes" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize("step", [-1, 6, 10**9])
def test_a_step_that_the_run_does_not_have_is_refused(tmp_path, monkeypatch, step):
    use_micro_rooms(monkeypatch)
    (tmp_path / "config.json").write_text(json.dumps(plain(micro_config())))
    with pytest.raises(UserError, match=f"--step {step}: expected one of the steps 0 to 5"):
        replay.replay(tmp_path, step)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_a_config_that_no_run_has_written_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json: .*; expected the config that a run has written") as error:
        replay.replay(tmp_path, 3)
    assert "\n" not in str(error.value)


def test_without_a_record_the_step_must_be_named(tmp_path, monkeypatch):
    (tmp_path / "nonfinite_step_mine.json").write_text("")
    with pytest.raises(UserError, match="has no record of a step that was not finite; name one with --step"):
        replay.replay(tmp_path)
    with pytest.raises(UserError, match="config.json is not there; expected the workdir of a run"):
        replay.replay(tmp_path, 3)
