"""The loop on a model of a few numbers: resume, evaluation, files, what stops it."""

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
from micro_experiment import micro_config, use_micro_rooms
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vps_jax.parsing import plain
from vps_jax.train import loop
from vps_jax.train.checkpoint import find_step, read_tree, restore_for_inference
from vps_jax.types import UserError


def final_state(workdir) -> dict:
    folder = find_step(workdir)
    return {item: read_tree(folder / item) for item in ("variables", "ema", "optimizer")}


def assert_same_bits(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_run_in_two_parts_ends_in_the_same_bits(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(), tmp_path / "whole")
    loop.train(micro_config(steps=2), tmp_path / "parts")
    middle = final_state(tmp_path / "parts")
    loop.train(micro_config(), tmp_path / "parts")
    assert find_step(tmp_path / "parts").name == "6"
    end = final_state(tmp_path / "parts")
    assert_same_bits(end, final_state(tmp_path / "whole"))
    assert not np.array_equal(end["ema"]["params"]["head"]["kernel"], middle["ema"]["params"]["head"]["kernel"])


RUN = """
import sys, time, pytest
from micro_experiment import micro_config, use_micro_rooms
from vps_jax.train import loop
patch = pytest.MonkeyPatch()
use_micro_rooms(patch)
batches = loop.pipeline.train_batches
def slow(data, **where):
    for batch in batches(data, **where):
        print("batch", flush=True)
        time.sleep(0.02)
        yield batch
patch.setattr(loop.pipeline, "train_batches", slow)
loop.train(micro_config(steps=40, checkpoint_every=3, log_every=40), sys.argv[1])
"""


def start_run(workdir) -> subprocess.Popen:
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(workdir)], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def test_runs_that_are_killed_at_any_moment_end_in_the_same_bits(tmp_path):
    whole = start_run(tmp_path / "whole")
    assert whole.wait() == 0
    rng = random.Random(0)
    for _ in range(3):
        victim, moment = start_run(tmp_path / "killed"), rng.randint(5, 30)
        for _ in range(moment):
            victim.stdout.readline()
        time.sleep(rng.random() * 0.02)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        print(f"killed after {moment} batches; kept {sorted(p.name for p in (tmp_path / 'killed').glob('*/*'))}")
    last = start_run(tmp_path / "killed")
    last.communicate()
    assert last.returncode == 0 and find_step(tmp_path / "killed").name == "40"
    assert_same_bits(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))


def test_a_resumed_run_says_what_changed(tmp_path, monkeypatch, capsys):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(steps=2), tmp_path)
    monkeypatch.setattr(loop.pipeline, "fingerprint", lambda data: "other")
    loop.train(micro_config(steps=2, seed=5), tmp_path)
    text = capsys.readouterr().err
    assert "changed since the checkpoint: train.seed 0 -> 5\n" in text
    assert "the batches will differ" in text
    assert "all 2 steps were done before" in text


def test_evaluation_sees_both_weights_and_its_numbers_are_kept(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    seen = []

    def evaluate(variables, step, label):
        seen.append((step, label, np.asarray(variables["params"]["head"]["bias"])))
        assert len(jax.tree.leaves(variables)[0].devices()) == 1
        return {"vpq": 10.0 * step + (label == "ema")}, {"video": np.zeros((1, 4, 4, 3), np.uint8)}

    history = loop.train(micro_config(), tmp_path, evaluate=evaluate)
    assert [(step, label) for step, label, _ in seen] == [(4, "raw"), (4, "ema"), (6, "raw"), (6, "ema")]
    assert not np.array_equal(seen[2][2], seen[3][2])
    np.testing.assert_array_equal(seen[3][2], final_state(tmp_path)["ema"]["params"]["head"]["bias"])
    assert history[-1] == {"step": 6, "weights": "ema", "vpq": 61.0}
    assert json.loads((tmp_path / "metrics.json").read_text()) == history
    assert json.loads((find_step(tmp_path) / "score.json").read_text()) == 61.0
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [e.step for e in events.Tensors("train_micro/squared")] == [2, 4, 6]
    assert events.Tensors("train/learning_rate")[0].tensor_proto.float_val[0] == pytest.approx(0.1)
    assert [e.tensor_proto.float_val[0] for e in events.Tensors("eval_ema/vpq")] == [41.0, 61.0]
    assert [e.step for e in events.Images("ema/video/0")] == [4, 6]
    assert "train/steps_per_second" in events.Tags()["tensors"]


def test_checkpoint_carries_the_resolved_config(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    config = micro_config(steps=2)
    loop.train(config, tmp_path)
    assert restore_for_inference(tmp_path)[0] == config
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(json.dumps(plain(config)))


def test_the_newest_checkpoint_can_be_evaluated_alone(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(steps=2), tmp_path)
    history = loop.evaluate_newest(micro_config(), tmp_path, evaluate=lambda v, step, label: ({"vpq": 1.0}, {}))
    assert history == [{"step": 2, "weights": w, "vpq": 1.0} for w in ("raw", "ema")]
    with pytest.raises(UserError, match="holds no checkpoint to evaluate"):
        loop.evaluate_newest(micro_config(), tmp_path / "empty", evaluate=None)


def test_loss_that_is_not_finite_stops_and_names_its_clips(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch, broken_step=3)
    with pytest.raises(UserError, match="step 3: grad_norm, loss, squared not finite on 8 clips of clips"):
        loop.train(micro_config(), tmp_path)
    left = json.loads((tmp_path / "nonfinite_step3.json").read_text())
    assert left["records"][:2] == ["video3/00000", "video3/00001"]
    assert left["terms"]["squared"] == "nan" and left["task"] == "micro"
    assert find_step(tmp_path).name == "2"  # nothing after the broken step was saved


def test_loss_that_is_not_finite_can_be_skipped(tmp_path, monkeypatch, capsys):
    use_micro_rooms(monkeypatch, broken_step=3)
    loop.train(micro_config(on_nonfinite="skip"), tmp_path)
    assert find_step(tmp_path).name == "6"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(final_state(tmp_path)))
    assert "step 3: grad_norm, loss, squared not finite" in capsys.readouterr().err


def test_a_termination_signal_saves_first(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    batches = loop.pipeline.train_batches

    def interrupted(data, *, first_step=0, **kwargs):
        for step, batch in enumerate(batches(data, first_step=first_step), first_step):
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(loop.pipeline, "train_batches", interrupted)
    with pytest.raises(SystemExit) as stop:
        loop.train(micro_config(checkpoint_every=100), tmp_path)
    assert stop.value.code == 143
    assert find_step(tmp_path).name == "3"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 12}, "train.batch_size=12 cannot be split over 8 devices"),
        ({"fsdp": 3}, "train.fsdp=3 does not divide the 8 devices"),
        ({"on_nonfinite": "ignore"}, "train.on_nonfinite='ignore': expected one of stop, skip"),
    ],
)
def test_settings_that_do_not_fit_are_met_before_anything_compiles(tmp_path, monkeypatch, change, message):
    use_micro_rooms(monkeypatch)
    with pytest.raises(UserError, match=message):
        loop.train(micro_config(**change), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_sources_need_the_settings_of_their_task(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    with pytest.raises(UserError, match="data.sources.clips.task='micro': config.tasks has no task"):
        loop.train(micro_config(tasks={}), tmp_path)


def test_programs_and_compilations_are_counted(tmp_path, monkeypatch, capsys):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(steps=2), tmp_path)
    text = capsys.readouterr().err
    assert "1 step program(s): micro clips 2x4x4" in text
    assert "XLA compilations in all" in text
