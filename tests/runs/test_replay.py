"""A step done again is the step that was done."""

import json
import pathlib
import sys

import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "train"))
from micro_experiment import micro_config, use_micro_rooms

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


def test_without_a_record_the_step_must_be_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="has no record of a step that was not finite; name one with --step"):
        replay.replay(tmp_path)
    with pytest.raises(UserError, match="config.json is not there; expected the workdir of a run"):
        replay.replay(tmp_path, 3)
