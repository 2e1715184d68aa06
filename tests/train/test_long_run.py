"""What a long run costs beside its steps: nothing grows, nothing is compiled again, the host has little to do."""

import gc
import os
import pathlib
import time

import jax.numpy as jnp
import numpy as np
import pytest
from micro_experiment import micro_config, use_micro_rooms
from tensorboard.backend.event_processing import event_accumulator

from vps_jax.train import loop
from vps_jax.train.sharding import put_batch

MIB = 2**20


def compilations(workdir) -> dict[int, int]:
    """How many there were until the end of each step."""
    events = event_accumulator.EventAccumulator(str(workdir), {event_accumulator.TENSORS: 0}).Reload()
    return {e.step: int(e.tensor_proto.float_val[0]) for e in events.Tensors("train/compilations")}


def held() -> tuple[int, int, int]:
    """MiB in memory, open files and threads of this process."""
    gc.collect()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return (
        pages * os.sysconf("SC_PAGE_SIZE") // MIB,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
    )


def test_no_step_but_the_first_and_no_evaluation_but_the_first_compiles(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    config = micro_config(steps=12, log_every=1, checkpoint_every=4, evaluate_every=4)
    loop.train(config, tmp_path, evaluate=lambda variables, step, label: ({"vpq": 1.0}, {}))
    found = compilations(tmp_path)
    assert found[1] > 0 and found[2] == found[3] == found[4]
    assert found[5] == found[12]


@pytest.mark.acceptance
@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_thousand_steps_and_twenty_evaluations_hold_no_more_than_a_few(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    seen = []

    def evaluate(variables, step, label):
        if label == "raw":
            seen.append(held())
            print(f"step {step}: {seen[-1]} MiB, files, threads")
        return {"vpq": float(step)}, {"video": np.zeros((1, 90, 160, 3), np.uint8)}

    loop.train(
        micro_config(steps=1000, log_every=1, checkpoint_every=25, evaluate_every=50), tmp_path, evaluate=evaluate
    )
    assert len(seen) == 20
    (memory, files, threads), (last_memory, last_files, last_threads) = seen[9], seen[-1]
    assert last_memory - memory < 8 and last_memory - seen[3][0] < 16 and last_files <= files
    # tensorstore's pool grows to its size at busy moments, and a save has a thread or two of its own while it lasts
    assert last_threads - threads <= 2
    found = compilations(tmp_path)
    assert len(found) == 1000 and found[2] == found[25] and found[51] == found[1000]


def test_the_host_takes_little_of_a_step(tmp_path, monkeypatch):
    """Under 5 % of a step that takes a device a tenth of a second; as time of the processor, which others share."""
    use_micro_rooms(monkeypatch)
    device, first, last = 0.1, 5, 25
    marks = []

    class Programs:
        def __init__(self, setup):
            self.seen, self.mesh = {"one"}, setup.mesh
            self.scalars = dict.fromkeys(("loss", "grad_norm", *"abcdefgh"), jnp.float32(1))

        def name(self, step, batch):
            return "one"

        def __call__(self, step, state, batch):
            marks.append(time.process_time())
            put_batch(self.mesh, batch.clip)
            time.sleep(device)
            return state, self.scalars

    monkeypatch.setattr(loop, "StepPrograms", Programs)
    loop.train(micro_config(steps=last + 1, log_every=5, checkpoint_every=0, evaluate_every=0), tmp_path)
    share = (marks[last] - marks[first]) / (last - first) / device
    print(f"host: {share:.2%} of a step")
    assert 0 < share < 0.05
