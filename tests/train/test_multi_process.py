"""Two processes that join over a port do what one does."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from vps_jax.train.checkpoint import find_step, read_tree

RUN = """
import sys, pytest
from vps_jax.train import launch
launch.join()
from micro_experiment import OPTIM, micro_config, use_micro_rooms
from vps_jax.train import loop
import jax
patch = pytest.MonkeyPatch()
use_micro_rooms(patch)
sgd = {**OPTIM, "name": "sgd", "clip_norm": 0.0, "lr": 0.01}
config = micro_config(steps=5, evaluate_every=5, fsdp=int(sys.argv[2]), optim=sgd)
patch.setattr("vps_jax.train.sharding.MIN_SHARDED_SIZE", 1)
loop.train(config, sys.argv[1], evaluate=lambda variables, step, label: ({"vpq": 7.0}, {}))
assert jax.process_count() == int(sys.argv[3])
"""


def run(workdir, *, processes: int, fsdp: int = 1) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    if processes > 1:
        environment |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, str(workdir), str(fsdp), str(processes)],
            env=environment | {"JAX_PROCESS_ID": str(i)}, stderr=subprocess.PIPE, text=True,
        )
        for i in range(processes)
    ]  # fmt: skip
    for process in started:
        text = process.communicate(timeout=300)[1]
        assert process.returncode == 0, text


@pytest.mark.acceptance
@pytest.mark.parametrize("fsdp", [1, 2])
def test_two_processes_equal_one(tmp_path, fsdp):
    run(tmp_path / "one", processes=1)
    run(tmp_path / "two", processes=2, fsdp=fsdp)
    one, two = (read_tree(find_step(tmp_path / name) / "ema") for name in ("one", "two"))
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-6 * float(np.abs(x).max()))
    assert (tmp_path / "two" / "metrics.json").is_file()
