"""Who takes part in a run, by the variables of the launchers; one run in a workdir; one end for all processes."""

import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest
import quick_compile
from micro_experiment import micro_config, use_micro_rooms

from vps_jax.train import launch, launchers, loop
from vps_jax.train.workdir import locked
from vps_jax.types import UserError

SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "gpu[03-04,9]", "SLURM_NTASKS": "16", "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
}  # fmt: skip
MPI = {
    "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "prterun-host-1@1",
}  # fmt: skip
PLAIN = {"JAX_COORDINATOR_ADDRESS": "host:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}


def test_a_process_of_its_own():
    assert launchers.layout({}) is None
    assert launchers.layout({"SLURM_NTASKS": "1"}) is None and launchers.layout({"OMPI_COMM_WORLD_SIZE": "1"}) is None
    assert launchers.layout({**POD, "JAX_NUM_PROCESSES": "1"}) is None


def test_slurm_with_a_process_per_gpu_and_per_node():
    found = launchers.layout(SLURM)
    assert found == launchers.Layout(f"gpu03:{launchers.port_of('7')}", 16, 9, device=1)
    per_node = {**SLURM, "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
    per_node["SLURM_STEP_TASKS_PER_NODE"] = "1(x2)"
    assert launchers.layout(per_node)[1:] == (2, 1, None)  # all GPUs of the node
    assert launchers.layout({**SLURM, "CUDA_VISIBLE_DEVICES": "5"}).device is None  # the launcher shows one alone
    for nodes, first in (("a7", "a7"), ("a7,b[1-2]", "a7"), ("n[1,3-4]", "n1"), ("r[1-2]n[07-8]", "r1n07")):
        assert launchers.layout({**SLURM, "SLURM_STEP_NODELIST": nodes}).coordinator.split(":")[0] == first


def test_open_mpi_on_one_machine_and_on_several():
    assert launchers.layout(MPI) == launchers.Layout(
        f"127.0.0.1:{launchers.port_of('prterun-host-1@1')}", 2, 1, device=1
    )
    uri = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}
    found = launchers.layout({**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0", **uri})
    assert found.coordinator.startswith("10.96.0.1:") and found.device is None


def test_a_coordinator_and_pods():
    assert launchers.layout(PLAIN) == launchers.Layout("host:1234", 4, 3)
    pod = {"JAX_COORDINATOR_ADDRESS": "run-0:1234", "JAX_NUM_PROCESSES": "4", **POD}
    assert launchers.layout(pod) == launchers.Layout("run-0:1234", 4, 2)


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "h:1"}, "JAX_NUM_PROCESSES is not set: expected a number"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}, "JAX_NUM_PROCESSES=2 without JAX_COORDINATOR_ADDRESS; set"),
        ({**PLAIN, "JAX_PROCESS_ID": "x"}, "JAX_PROCESS_ID=x: expected a number"),
        ({**PLAIN, "JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID=-1: expected a number"),
        ({**PLAIN, "JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4: expected less than JAX_NUM_PROCESSES=4"),
        *(
            ({**PLAIN, "JAX_COORDINATOR_ADDRESS": wrong}, "JAX_COORDINATOR_ADDRESS=.*: expected HOST:PORT of process 0")
            for wrong in ("host", "host:port", "host:99999", ":1234", "http://host:1234")
        ),
        ({"SLURM_NTASKS": "8"}, "SLURM_NTASKS=8, but srun did not start this process"),
        ({"SLURM_NTASKS": "x"}, "SLURM_NTASKS=x: expected a number"),
        (SLURM | {"SLURM_PROCID": "x"}, "SLURM_PROCID=x: expected a number"),
        (SLURM | {"SLURM_LOCALID": "x"}, "SLURM_LOCALID=x: expected a number"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "x"}, "SLURM_STEP_TASKS_PER_NODE=x: expected a number"),
        (SLURM | {"SLURM_STEP_NODELIST": "gpu["}, "SLURM_STEP_NODELIST=gpu.: expected hosts such as"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK is not set: expected a number"),
        (MPI | {"OMPI_COMM_WORLD_RANK": "2"}, "OMPI_COMM_WORLD_RANK=2: expected less than OMPI_COMM_WORLD_SIZE=2"),
        (MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, "2 processes of mpirun on sev"),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, "PMI_SIZE=4, as mpirun of MPICH sets it, which is not read here; set JAX"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE=2, as torchrun sets it, which is not read here; set JAX"),
        (POD, "a pod of an indexed Kubernetes job without JAX_COORDINATOR_ADDRESS"),
    ],
)
def test_what_a_launcher_leaves_open_is_refused_in_one_line(environ, line):
    with pytest.raises(UserError, match=line) as error:
        launchers.layout(environ)
    assert "\n" not in str(error.value)


def test_who_meets_no_others_says_so_and_ends_with_one_line(monkeypatch, capsys):
    ended, codes = threading.Event(), []
    monkeypatch.setattr(launch, "PATIENCE", 0.05)
    monkeypatch.setattr(launch.os, "_exit", lambda code: (codes.append(code), ended.set()))
    with launch.waiting_for_others(launchers.Layout("host:1234", 2, 1)):
        assert ended.wait(10)
    assert codes == [2]
    text = capsys.readouterr().err
    assert text.startswith("error: process 1 of 2 met no others at host:1234 in 0.05 seconds; start all of them")
    assert text.count("\n") == 1
    with launch.waiting_for_others(launchers.Layout("host:1234", 2, 1)):
        pass
    time.sleep(0.1)
    assert codes == [2]


def test_a_port_that_is_taken_is_one_line(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for name, value in {**PLAIN, "JAX_COORDINATOR_ADDRESS": address, "JAX_PROCESS_ID": "0"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(
            UserError, match=f"process 0 of 4 cannot listen at {address} .*use.*; end what uses the port"
        ):
            launch.join()
    launch.check_port(launchers.Layout(address, 4, 0))  # free now


def test_a_second_run_stays_out_of_a_workdir(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch)
    with locked(tmp_path), pytest.raises(UserError, match=f"is in use by process {os.getpid()} on"):
        loop.train(micro_config(steps=2), tmp_path)
    loop.train(micro_config(steps=2), tmp_path)  # the lock goes with the run


RUN = """
import sys, time, pytest
from vps_jax.train import launch
launch.join()
from micro_experiment import micro_config, use_micro_rooms
from vps_jax.train import loop
import jax
patch = pytest.MonkeyPatch()
use_micro_rooms(patch)
workdir, seed, fail = sys.argv[1:]
if fail == "evaluation":
    def evaluate(variables, step, label):
        raise RuntimeError("a frame is broken")
else:
    evaluate = None
with launch.ending_together(lambda error: 2 if isinstance(error, launch.UserError) else 1):
    loop.train(micro_config(steps=4, seed=int(seed)), workdir, evaluate=evaluate)
"""


def start(arguments) -> list[tuple[int, str]]:
    """Exit code and stderr of two processes that join."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
    environment = os.environ | {
        "PYTHONPATH": path, "XLA_FLAGS": quick_compile.xla_flags(devices=2),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, *map(str, given)], env=environment | {"JAX_PROCESS_ID": str(i)},
            stderr=subprocess.PIPE, text=True,
        )
        for i, given in enumerate(arguments)
    ]  # fmt: skip
    ends = []
    for process in processes:
        text = process.communicate(timeout=300)[1]
        ends.append((process.returncode, text))
    return ends


def test_processes_with_other_configs_end_with_one_line(tmp_path):
    ends = start([(tmp_path, 0, ""), (tmp_path, 1, "")])
    for code, text in ends:
        assert code == 2 and "process 1 has another config than process 0" in text, text
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.acceptance
def test_processes_that_see_other_folders_end_with_one_line(tmp_path):
    ends = start([(tmp_path / "a", 0, ""), (tmp_path / "b", 0, "")])
    for code, text in ends:
        assert code == 2 and "process 1 does not see what process 0 writes" in text, text


@pytest.mark.acceptance
def test_an_error_in_one_process_ends_all(tmp_path):
    begin = time.monotonic()
    ends = start([(tmp_path, 0, "evaluation"), (tmp_path, 0, "evaluation")])  # process 0 evaluates
    assert time.monotonic() - begin < 120
    for code, text in ends:
        assert code == 1 and "error: process 0: a frame is broken" in text, text
