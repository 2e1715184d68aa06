"""What Weights & Biases is told, by a module that stands in for it."""

import sys
import types

import numpy as np
import pytest
from micro_experiment import micro_config, use_micro_rooms

from vps_jax.train import loop
from vps_jax.types import UserError


class Run:
    """A run of the service."""

    def __init__(self, **given):
        self.given, self.logged, self.finished = given, [], False

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def runs(monkeypatch) -> list[Run]:
    """Those that were begun."""
    begun: list[Run] = []

    def init(**given):
        begun.append(Run(**given))
        return begun[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Image=tuple, __spec__="there"))
    return begun


def evaluate(variables, step, label):
    return {"vpq": 10.0 * step}, {"video": np.zeros((1, 2, 3, 3), np.uint8)}


def test_it_gets_what_tensorboard_gets(tmp_path, monkeypatch, runs):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(steps=4, wandb_project="videos"), tmp_path / "mine", evaluate=evaluate)
    (run,) = runs
    assert run.finished
    assert (run.given["project"], run.given["name"], run.given["resume"]) == ("videos", "mine", "allow")
    assert run.given["config"]["train"]["steps"] == 4
    by_step = {}
    for step, values in run.logged:
        by_step[step] = by_step.get(step, {}) | values
    assert list(by_step) == [2, 4]
    assert {"train_micro/loss", "train/learning_rate", "train/seconds_per_step"} < set(by_step[2])
    assert by_step[4]["eval_ema/vpq"] == 40.0 and len(by_step[4]["ema/video"]) == 1


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path, monkeypatch, runs):
    use_micro_rooms(monkeypatch)
    for steps in (2, 4):
        loop.train(micro_config(steps=steps, wandb_project="videos"), tmp_path)
    first, second = runs
    assert first.given["id"] == second.given["id"] and second.logged[0][0] == 4
    loop.train(micro_config(steps=6), tmp_path)
    assert len(runs) == 2  # no project, no run


def test_a_failure_is_a_warning_and_tensorboard_goes_on(tmp_path, monkeypatch, runs, capsys):
    use_micro_rooms(monkeypatch)

    def refused(self, values, step):
        raise RuntimeError("no network")

    monkeypatch.setattr(Run, "log", refused)
    loop.train(micro_config(steps=4, wandb_project="videos"), tmp_path)
    text = capsys.readouterr().err
    assert text.count("warning: Weights & Biases cannot be written (no network)") == 1
    assert "TensorBoard events cannot" not in text


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    monkeypatch.setattr("vps_jax.train.wandb_writer.PACKAGE", "no_such_package")
    message = "train.wandb_project='videos': no_such_package is not installed; pip install"
    with pytest.raises(UserError, match=message) as error:
        loop.train(micro_config(wandb_project="videos"), tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("events*"))
