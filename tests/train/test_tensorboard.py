"""The events of a run in TensorBoard itself, in a real browser."""

import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from micro_experiment import micro_config, use_micro_rooms

from vps_jax.train import loop, report

pytestmark = pytest.mark.acceptance

SECONDS = 60
VIDEO = "12_street <a>"
TEXT = """
const texts = [];
function walk(node) {
  if (node.nodeType == Node.TEXT_NODE && node.textContent.trim()) texts.push(node.textContent.trim());
  if (node.nodeName == "STYLE" || node.nodeName == "SCRIPT") return;
  if (node.shadowRoot) walk(node.shadowRoot);
  node.childNodes.forEach(walk);
}
walk(document.body);
return texts;
"""
FETCH = "fetch(arguments[0]).then(r => r.json()).then(arguments[1])"
PICTURES = """
const found = [];
function walk(node) {
  if (node.nodeName == "IMG" && node.naturalWidth > 0) found.push([node.naturalWidth, node.naturalHeight]);
  if (node.shadowRoot) walk(node.shadowRoot);
  node.childNodes.forEach(walk);
}
walk(document.body);
return found;
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run that skipped a step, was killed after it had written events of eight steps, and was resumed."""
    folder = tmp_path_factory.mktemp("runs") / "micro"

    def evaluate(variables, step, label):
        image = np.full((1, 30, 40, 3), 20 * step, np.uint8)
        return {"vpq": 4.0 * step + (label == "ema"), "stq": 50.0}, {VIDEO: image}

    with pytest.MonkeyPatch.context() as patch:
        use_micro_rooms(patch, broken_step=5)
        patch.setattr(report, "device_memory", lambda: {"in_use_gib": 1.5, "peak_gib": 2.0})  # a CPU says nothing
        settings = {"log_every": 1, "on_nonfinite": "skip", "checkpoint_every": 2, "keep_checkpoints": 9}
        loop.train(micro_config(steps=8, **settings), folder, evaluate=evaluate)
        for step in (6, 8):
            shutil.rmtree(folder / "checkpoints" / str(step))
        time.sleep(1.1)  # files of events are told apart, and ordered, by their second
        loop.train(micro_config(steps=12, **settings), folder, evaluate=evaluate)
    return folder


@pytest.fixture(scope="module")
def address(workdir):
    """TensorBoard, serving."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "tensorboard.main", f"--logdir={workdir}", f"--port={port}", "--load_fast=false"]
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True) as server:
        for line in server.stderr:
            if "http://" in line:
                break
        else:
            pytest.fail("TensorBoard did not start")
        yield f"http://127.0.0.1:{port}"
        server.terminate()


def shown(driver, address: str, tab: str, *expected: str) -> list[str]:
    """The texts of a tab, once the expected ones are there."""
    driver.get("about:blank")
    driver.get(f"{address}/#{tab}")
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        texts = driver.execute_script(TEXT)
        if set(expected) <= set(texts):
            return texts
        time.sleep(0.5)
    pytest.fail(f"{tab} does not show {sorted(set(expected) - set(texts))}, but {texts}")


def scalars(driver, tag: str) -> list[tuple[int, float]]:
    """Step and value of what a chart draws."""
    rows = driver.execute_async_script(FETCH, f"data/plugin/scalars/scalars?run=.&tag={tag}")
    return [(step, value) for _, step, value in rows]


def test_all_scalars_are_there(driver, address):
    groups = ("train", "train_micro", "learning_rate", "eval_raw", "eval_ema", "memory")
    shown(driver, address, "timeseries", *groups)
    tags = set(driver.execute_async_script(FETCH, "data/plugin/scalars/tags")["."])
    assert tags == {
        *(f"train_micro/{name}" for name in ("loss", "squared", "grad_norm")),
        *(f"train_micro/grad_norm/{name}" for name in ("backbone", "norm", "head")),
        *(f"train/{name}" for name in ("learning_rate", "steps_per_second", "seconds_per_step", "clips_per_second")),
        *(f"train/{name}" for name in ("share_of_time_waiting_for_data", "skipped_steps", "compilations")),
        "learning_rate/backbone", "learning_rate/rest", "memory/in_use_gib", "memory/peak_gib",
        *(f"eval_{weights}/{name}" for weights in ("raw", "ema") for name in ("vpq", "stq")),
    }  # fmt: skip


def test_no_step_is_there_twice(driver, address):
    shown(driver, address, "timeseries", "train")
    assert [step for step, _ in scalars(driver, "train_micro/loss")] == list(range(1, 13))
    assert scalars(driver, "eval_ema/vpq") == [(4, 17), (8, 33), (12, 49)]
    assert scalars(driver, "train/skipped_steps") == [(6, 1)]


def test_scores_of_both_weights_share_a_chart(driver, address):
    titles = ("vpq, raw and EMA weights", "loss by task", "gradient norm by module", "learning rate by group")
    texts = shown(driver, address, "custom_scalars", *titles, "Matches (2)")
    below = texts[texts.index(titles[0]) :]  # numbers of the axes come first
    assert next(text for text in below if text.startswith("Matches")) == "Matches (2)"


def test_overlays_have_the_names_of_their_videos(driver, address):
    names = (f"raw/{VIDEO}/0", f"ema/{VIDEO}/0")
    shown(driver, address, "images", *names)
    pictures = driver.execute_script(PICTURES)
    assert pictures.count([40, 30]) == 2
