"""The loop on a model of a few numbers: resume, evaluation, files, what stops it."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
from micro_experiment import OPTIM, micro_config, use_micro_rooms
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vps_jax.parsing import plain
from vps_jax.train import loop, report
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
from micro_experiment import OPTIM, micro_config, use_micro_rooms
from vps_jax.train import loop
patch = pytest.MonkeyPatch()
use_micro_rooms(patch)
batches = loop.pipeline.train_batches
def slow(data, **where):
    for batch in batches(data, **where):
        print("batch", flush=True)
        time.sleep(float(sys.argv[2]))
        yield batch
patch.setattr(loop.pipeline, "train_batches", slow)
loop.train(micro_config(steps=40, checkpoint_every=3, log_every=40), sys.argv[1])
"""


def start_run(workdir, slow: float = 0.02) -> subprocess.Popen:
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(workdir), str(slow)], env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
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


def test_pictures_of_a_first_evaluation_are_told_of(tmp_path, monkeypatch, capsys):
    use_micro_rooms(monkeypatch)

    def evaluate(variables, step, label):
        return {"vpq": 1.0}, {"video": np.zeros((1, 4, 4, 3), np.uint8)}

    history = loop.train(micro_config(first_evaluation=1), tmp_path, evaluate=evaluate)
    assert [row["step"] for row in history if row["weights"] == "ema"] == [1, 4, 6]
    assert f"step 1, ema weights: vpq 1.00; pictures in {tmp_path / 'samples'}\n" in capsys.readouterr().err
    assert loop.train(micro_config(first_evaluation=1), tmp_path, evaluate=evaluate) == history  # none is done again
    history = loop.train(micro_config(first_evaluation=1, evaluate_every=0), tmp_path / "other", evaluate=evaluate)
    assert history == []


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
    assert {"train/steps_per_second", "train/clips_per_second", "train/share_of_time_waiting_for_data"} <= set(
        events.Tags()["tensors"]
    )
    backbone = [e.tensor_proto.float_val[0] for e in events.Tensors("learning_rate/backbone")]
    assert backbone == pytest.approx([0.01] * 3)  # a tenth of the rest's
    assert [e.tensor_proto.float_val[0] for e in events.Tensors("train/compilations")][0] >= 1


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_first(tmp_path, monkeypatch, number, code):
    use_micro_rooms(monkeypatch)
    batches, before = loop.pipeline.train_batches, signal.getsignal(number)

    def interrupted(data, *, first_step=0, **kwargs):
        for step, batch in enumerate(batches(data, first_step=first_step), first_step):
            if step == 2:
                os.kill(os.getpid(), number)
            yield batch

    monkeypatch.setattr(loop.pipeline, "train_batches", interrupted)
    with pytest.raises(SystemExit) as stop:
        loop.train(micro_config(checkpoint_every=100), tmp_path)
    assert stop.value.code == code
    assert find_step(tmp_path).name == "3"
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_an_evaluation_whose_step_is_saved_and_evaluated_again(tmp_path, monkeypatch, number, code):
    use_micro_rooms(monkeypatch)
    seen = []

    def evaluate(variables, step, label):
        seen.append((step, label))
        if len(seen) == 2:
            os.kill(os.getpid(), number)
            time.sleep(60)
        return {"vpq": float(step)}, {}

    with pytest.raises(SystemExit) as stop:
        loop.train(micro_config(checkpoint_every=100), tmp_path, evaluate=evaluate)
    assert stop.value.code == code and find_step(tmp_path).name == "4"
    history = loop.train(micro_config(checkpoint_every=100), tmp_path, evaluate=evaluate)
    assert seen == [(4, "raw"), (4, "ema"), (4, "raw"), (4, "ema"), (6, "raw"), (6, "ema")]
    assert [(row["step"], row["weights"]) for row in history] == [(4, "raw"), (4, "ema"), (6, "raw"), (6, "ema")]


def test_an_error_in_an_evaluation_loses_nothing(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)

    def evaluate(variables, step, label):
        raise RuntimeError("no video")

    with pytest.raises(RuntimeError):
        loop.train(micro_config(checkpoint_every=100), tmp_path, evaluate=evaluate)
    assert find_step(tmp_path).name == "4"


def test_a_second_signal_ends_at_once(tmp_path):
    run = start_run(tmp_path, slow=30)
    run.stdout.readline()
    start = time.monotonic()
    run.send_signal(signal.SIGINT)
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=20) == 130 and time.monotonic() - start < 10


WORKER = """
import multiprocessing, os, time
from vps_jax.data.pipeline import keep_to_parent
def work(ready):
    keep_to_parent(0, 1)
    ready.set()
    time.sleep(60)
if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    worker = spawn.Process(target=work, args=(ready,), daemon=True)
    worker.start()
    ready.wait()
    print(worker.pid, flush=True)
    time.sleep(60)
"""


def test_a_data_worker_ends_with_its_parent_and_with_nothing_else(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(WORKER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker, number)
    time.sleep(0.5)
    assert is_running(worker)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not is_running(worker)


def is_running(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_steps_that_are_not_finite_are_skipped_only_so_often_in_a_row(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch, broken_step=range(3, 100))
    config = micro_config(on_nonfinite="skip", skip_at_most=2, steps=20, checkpoint_every=2)
    with pytest.raises(UserError, match="step 5: .* train.skip_at_most=2 steps in a row: .* sound checkpoint is 4"):
        loop.train(config, tmp_path)


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    optim = {**OPTIM, "name": "sgd", "clip_norm": 0.0, "lr": 3e38, "lr_groups": (("all", "", 1e30),), "no_decay": ()}
    with pytest.raises(UserError, match="there is no sound checkpoint") as error:
        loop.train(micro_config(optim=optim, checkpoint_every=1), tmp_path)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_a_failing_event_writer_is_a_warning(tmp_path, monkeypatch, capsys):
    use_micro_rooms(monkeypatch)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vps_jax.train.summaries.EventFileWriter.add_event", full)
    loop.train(micro_config(steps=4), tmp_path)
    assert find_step(tmp_path).name == "4"
    assert capsys.readouterr().err.count("warning: TensorBoard events cannot be written") == 1


def test_a_workdir_that_goes_away_is_one_line(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    batches = loop.pipeline.train_batches

    def removing(data, **where):
        for step, batch in enumerate(batches(data, **where)):
            if step == 3:
                shutil.rmtree(tmp_path / "run")
                (tmp_path / "run").write_text("")  # so that it cannot be made again
            yield batch

    monkeypatch.setattr(loop.pipeline, "train_batches", removing)
    with pytest.raises(UserError, match="checkpoint 4 cannot be written to") as error:
        loop.train(micro_config(), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_resuming_does_not_ask_for_the_weights_it_started_from(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(steps=2), tmp_path / "first")
    second = {"init_from": {"path": str(tmp_path / "first")}}
    loop.train(micro_config(steps=2, **second), tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    loop.train(micro_config(steps=4, **second), tmp_path / "second")
    assert find_step(tmp_path / "second").name == "4"


def test_events_are_not_doubled_after_a_kill(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(steps=4, log_every=1), tmp_path)
    for step in (3, 4):
        shutil.rmtree(tmp_path / "checkpoints" / str(step), ignore_errors=True)  # as if it was killed after step 2
    time.sleep(1.1)  # files of events are told apart, and ordered, by their second
    loop.train(micro_config(steps=4, log_every=1), tmp_path)
    events = plugin_event_accumulator.EventAccumulator(str(tmp_path)).Reload()  # what TensorBoard itself reads with
    assert [e.step for e in events.Tensors("train_micro/loss")] == [1, 2, 3, 4]


def test_an_evaluation_hides_no_events_of_a_run_that_is_ahead(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(steps=4, log_every=1), tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    time.sleep(1.1)
    loop.evaluate_newest(micro_config(), tmp_path, evaluate=lambda variables, step, label: ({"vpq": 1.0}, {}))
    events = plugin_event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [e.step for e in events.Tensors("train_micro/loss")] == [1, 2, 3, 4]
    assert [e.step for e in events.Tensors("eval_ema/vpq")] == [2]


def test_a_small_batch_trains_on_as_many_devices_as_it_has_clips(tmp_path, monkeypatch, capsys):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(batch_size=4, steps=1), tmp_path)
    assert "4 cpu device(s) of 8, one for each clip of a batch, batch 4, workdir" in capsys.readouterr().err


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
    assert "1 step program(s): micro clips 2x4x4" in text and text.count("compiling micro clips 2x4x4\n") == 1
    assert "XLA compilations in all" in text


def test_time_of_compilation_is_left_out_of_the_speed(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    seconds, said, lines = [0.0], [], []
    monkeypatch.setattr(report, "time", types.SimpleNamespace(monotonic=lambda: seconds[0]))
    run = report.Report(tmp_path, micro_config(), done=0)
    monkeypatch.setattr(run.progress, "report", lambda *line: said.append(line))
    monkeypatch.setattr(run.progress, "say", lines.append)
    with run.compiling("vps"):
        seconds[0] += 60.5
    seconds[0] += 1.5  # what both steps take
    run.log(2)
    run.close()
    ((done, _, speed),) = said
    assert (done, speed) == (2, 2 / 1.5)
    again = report.Report(tmp_path, micro_config(), done=2)
    monkeypatch.setattr(again.progress, "say", lines.append)
    with again.compiling("vps"), again.compiling("vss"):
        pass
    again.close()
    assert lines == ["compiling vps", "compiling vps, which took 60 s last time", "compiling vss"]
    (tmp_path / report.COMPILE_SECONDS).write_text("[]")  # as it is not written here
    assert report.read_seconds(tmp_path / report.COMPILE_SECONDS) == {}
