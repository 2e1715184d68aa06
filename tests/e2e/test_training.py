"""main.py for real on a few synthetic videos: it learns, survives SIGKILL bit for bit, and devices do not matter."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import quick_compile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vps_jax.config import Synthetic
from vps_jax.runs import experiment
from vps_jax.train.checkpoint import find_step, read_tree

ROOT = pathlib.Path(__file__).resolve().parents[2]
MICRO = {
    "model.hidden_dim": 32, "model.neck_layers": 1, "model.neck_ffn_dim": 32, "model.decoder_layers": 3,
    "model.decoder_ffn_dim": 32, "model.instance_queries": 8, "data.sources.vipseg.short_side": 54,
    "data.sources.vipseg.max_side": 64, "tasks.panoptic.match_points": 64, "tasks.panoptic.mask_points": 64,
    "tasks.panoptic.semantic_points": 64, "optim.warmup_steps": 5, "train.batch_size": 2, "train.log_every": 1,
    "train.evaluate_every": 0,
    "synthetic.train": 5, "synthetic.val": 2, "synthetic.test": 1,
}  # fmt: skip
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("data")
    # the second validation video has six frames, which the longest window needs
    experiment.make_synthetic(Synthetic(folder=str(folder), seed=0, train=5, val=2, test=1))
    return folder


def start(data, workdir, devices: int = 1, **changes) -> subprocess.Popen:
    settings = {**MICRO, "synthetic.folder": str(data), **{k.replace("__", "."): v for k, v in changes.items()}}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    # half the compile time; what is compared is compiled alike
    environment = os.environ | {"XLA_FLAGS": quick_compile.xla_flags(devices)}
    command = [sys.executable, str(ROOT / "main.py"), f"--workdir={workdir}", *flags]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> str:
    text = process.communicate(timeout=600)[1]
    assert process.returncode == 0, text
    return text


def kill_after_step(process: subprocess.Popen, step: int, rng: random.Random) -> None:
    """SIGKILL once the progress line of a step is out, a random moment later."""
    for line in process.stderr:
        if line.startswith(f"step {step}/"):
            break
    else:
        pytest.fail("the run ended before it could be killed")
    time.sleep(rng.random() * 0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()


def assert_same_state(a, b) -> None:
    assert find_step(a).name == find_step(b).name
    for item in ("variables", "ema", "optimizer"):
        trees = [read_tree(find_step(folder) / item) for folder in (a, b)]
        assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
        for x, y in zip(*map(jax.tree.leaves, trees), strict=True):
            np.testing.assert_array_equal(x, y)


def losses(workdir) -> list[float]:
    events = EventAccumulator(str(workdir)).Reload()
    return [e.tensor_proto.float_val[0] for e in events.Tensors("train_panoptic/loss")]


@pytest.mark.early
def test_a_run_learns_is_evaluated_and_survives_a_kill(data, tmp_path):
    run = {"train__steps": 30, "train__checkpoint_every": 10}
    text = finish(start(data, tmp_path / "whole", **run, train__evaluate_every=30))
    assert "1 step program(s): panoptic vipseg 2x64x64" in text and "ema weights: vpq" in text
    assert f"; pictures in {tmp_path / 'whole' / 'samples'}\n" in text
    history = losses(tmp_path / "whole")
    assert np.mean(history[-5:]) < 0.75 * np.mean(history[:3])
    rows = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert [(row["step"], row["weights"]) for row in rows] == [(30, "raw"), (30, "ema")]
    assert {"vpq", "vpq_things", "vpq_stuff", "vpq1", "vpq2", "vpq4", "vpq6", "stq", "miou"} <= set(rows[1])
    assert len(list((tmp_path / "whole" / "samples").glob("step30_ema_*.jpg"))) == 2

    rng = random.Random(0)
    kill_after_step(start(data, tmp_path / "killed", **run), rng.randint(11, 28), rng)
    assert "resumed after step" in finish(start(data, tmp_path / "killed", **run))
    assert_same_state(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.acceptance
def test_one_device_and_eight_agree_over_five_steps(data, tmp_path):
    """The real model; tests/train/test_step.py does it with one of a few numbers."""
    run = {"train__steps": 5, "train__batch_size": 8, "optim__name": "sgd", "optim__lr": 1e-3, "optim__warmup_steps": 0}
    for devices in (1, 8):
        finish(start(data, tmp_path / str(devices), devices, **run))
    one, eight = (losses(tmp_path / n) for n in "18")
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    one, eight = (read_tree(find_step(tmp_path / n) / "variables") for n in "18")
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        # five steps move no parameter by more than 5e-3; biases of true gradient zero hold nothing but rounding
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-8)
