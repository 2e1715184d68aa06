"""Other numbers of processes and devices do what one does, and go on where another number stopped."""

import shutil

import jax
import joined_run
import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from vps_jax.config import Synthetic
from vps_jax.runs.experiment import make_synthetic
from vps_jax.train.checkpoint import find_step, read_tree

pytestmark = pytest.mark.acceptance


def losses(workdir) -> list[float]:
    events = EventAccumulator(str(workdir)).Reload()
    return [e.tensor_proto.float_val[0] for e in events.Tensors("train_micro/loss")]


def assert_agree(workdir, expected) -> None:
    """Losses of all steps and the numbers in the newest checkpoint, up to rounding."""
    assert find_step(workdir).name == find_step(expected).name
    np.testing.assert_allclose(losses(workdir), losses(expected), rtol=1e-5)
    for item in ("variables", "ema"):
        ours, theirs = (read_tree(find_step(folder) / item) for folder in (workdir, expected))
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6 * float(np.abs(y).max()))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Five steps on one device."""
    folder = tmp_path_factory.mktemp("one")
    joined_run.run(folder)
    return folder


@pytest.mark.parametrize("fsdp", [1, 8])
def test_two_processes_of_four_devices_equal_one_device(one, tmp_path, fsdp):
    joined_run.run(tmp_path, processes=2, devices=4, fsdp=fsdp)
    assert_agree(tmp_path, one)
    assert (tmp_path / "metrics.json").is_file()


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun: install the package openmpi-bin")
def test_two_processes_of_mpirun_are_one_run(one, tmp_path):
    clips = joined_run.run(tmp_path, processes=2, devices=2, mpirun=True)
    assert [len(names) for names in clips.values()] == [8] * 5
    assert_agree(tmp_path, one)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A few synthetic videos."""
    folder = tmp_path_factory.mktemp("data")
    make_synthetic(Synthetic(folder=str(folder), train=9, val=1, test=1))
    return folder / "prepared" / "vipseg"


def test_a_run_goes_on_with_fewer_devices_and_hosts_on_the_same_clips(prepared, tmp_path):
    """From eight devices of one process, and of two, to two devices and to one."""
    data = {"prepared": prepared}
    whole = joined_run.run(tmp_path / "whole", steps=6, **data)
    assert list(whole) == list(range(6)) and len({tuple(names) for names in whole.values()}) == 6
    for name, first, then in (
        ("two", {"devices": 8, "fsdp": 8}, {"devices": 2, "fsdp": 2}),
        ("one", {"devices": 8, "fsdp": 2}, {"devices": 1}),
        ("hosts", {"processes": 2, "devices": 4, "fsdp": 2}, {"devices": 1}),
    ):
        clips = joined_run.run(tmp_path / name, steps=3, **first, **data)
        assert list(clips) == [0, 1, 2]
        more = joined_run.run(tmp_path / name, steps=6, **then, **data)
        assert list(more) == [3, 4, 5]
        assert clips | more == whole, name
        assert_agree(tmp_path / name, tmp_path / "whole")
