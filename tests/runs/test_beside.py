"""A training in a process beside this one: its config, its output, its end."""

import dataclasses
import os
import subprocess
import sys

import pytest

from configs import tiny
from vps_jax.config import experiment as read_config
from vps_jax.runs import beside, demo, experiment
from vps_jax.types import UserError


@pytest.fixture
def config(tmp_path):
    settings = tiny.get_config()
    settings.synthetic.folder = str(tmp_path / "data")
    return read_config(settings)


def test_what_it_prints_is_shown_and_its_failure_is_an_error(config, tmp_path, capfd):
    lost = dataclasses.replace(config, init_from=dataclasses.replace(config.init_from, path=str(tmp_path / "nowhere")))
    log = tmp_path / "new" / "image.log"
    failed = pytest.raises(UserError, match=f"ended with exit code 1, its output is above and in {log}; mend")
    with beside.training(lost, log.with_suffix("")) as finish, failed:
        finish()
    said = log.read_text()
    assert said.startswith("error: ") and "nowhere" in said and said.count("\n") == 1
    assert capfd.readouterr().out == said
    assert not (tmp_path / "data").exists()


def test_it_stops_when_the_block_ends(config, tmp_path):
    """It would make 10,000 videos otherwise."""
    endless = dataclasses.replace(config, synthetic=dataclasses.replace(config.synthetic, train=10_000))
    with beside.training(endless, tmp_path / "image"):
        pass
    assert (tmp_path / "image.log").exists() and not (tmp_path / "data" / "prepared").exists()


def test_a_log_is_followed_to_its_last_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(beside, "LOOK_SECONDS", 0.05)
    log = tmp_path / "log"
    code = "import time; print('first', flush=True); time.sleep(0.3); print('last')"
    with open(log, "w") as out:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=out)
    beside.follow(process, log)
    assert capsys.readouterr().out == "first\nlast\n"


@pytest.mark.parametrize("cores, gpu, place", [(2, False, "beside"), (1, False, "here"), (2, True, "here")])
def test_the_demo_trains_both_models_at_once_where_cores_are_left(monkeypatch, tmp_path, cores, gpu, place):
    trained = []
    monkeypatch.setattr(demo, "cores", lambda: cores)
    monkeypatch.setattr(experiment, "has_gpu", lambda: gpu)
    monkeypatch.setattr(experiment, "run", lambda config, workdir: trained.append((config.name, "here")))
    monkeypatch.setattr(beside, "training", lambda config, workdir: Started(trained, config.name))
    image = demo.image_config(demo.tiny_config(tmp_path, 3, 5), tmp_path, 5)
    assert (image.train.seed, image.train.steps, image.synthetic.folder) == (3, 5, str(tmp_path / "data_vspw"))
    with demo.image_training(image, tmp_path / "image") as train:
        assert trained == ([("vspw_tiny", "started")] if place == "beside" else [])
        train()
    assert trained[-1] == ("vspw_tiny", place)


class Started:
    """Stands in for `beside.training`."""

    def __init__(self, trained: list, name: str):
        self.trained, self.name = trained, name

    def __enter__(self):
        self.trained.append((self.name, "started"))
        return lambda: self.trained.append((self.name, "beside"))

    def __exit__(self, *_):
        pass


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has this policy")
def test_it_computes_only_while_cores_are_idle():
    code = "import os; from vps_jax.runs import beside; beside.step_back(); print(os.sched_getscheduler(0), os.nice(0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(os.SCHED_IDLE), "19"]
