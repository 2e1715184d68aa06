"""Several processes as one run: who takes part, whether they want the same, and one end for all.

A launcher says the layout in environment variables. What it leaves open is refused in one line, since processes that do
not join would each train alone in the same folder.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from vps_jax.types import UserError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

HEARTBEAT = 20  # seconds without a sign of life after which a process counts as lost
PORTS = (61440, 4096)  # the first of the ephemeral ports that jobs are spread over, and how many
LAST = 5  # seconds that process 0 waits for the others to go
FAILED = "vps_jax/failed"
LOCK, PROBE = ".lock", ".shared"


class Layout(NamedTuple):
    """The place of this process among those of the run.

    Attributes:
      coordinator: `host:port` of process 0.
      processes: how many there are.
      process: number of this one.
      device: index of the only device that it may use on its machine; None for all of them.
    """

    coordinator: str
    processes: int
    process: int
    device: int | None = None


def layout(environ: Mapping[str, str]) -> Layout | None:
    """What the launcher's variables say; None for a process of its own.

    Raises:
      UserError: they announce other processes, but not how to join them.
    """
    if environ.get("JAX_COORDINATOR_ADDRESS"):
        return plain_layout(environ)
    if int(environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return open_mpi_layout(environ)
    if int(environ.get("SLURM_NTASKS", "1")) > 1:
        return slurm_layout(environ)
    indexed_pod = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(environ)
    if indexed_pod and environ.get("JAX_NUM_PROCESSES") != "1":
        raise UserError(
            "a pod of an indexed Kubernetes job without JAX_COORDINATOR_ADDRESS; set it and JAX_NUM_PROCESSES as "
            "examples/jobset.yaml does, or JAX_NUM_PROCESSES=1 for pods that run alone"
        )
    return None


def plain_layout(environ: Mapping[str, str]) -> Layout | None:
    """JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or a pod's index in place of the last."""
    address = environ["JAX_COORDINATOR_ADDRESS"]
    count, number = environ.get("JAX_NUM_PROCESSES"), environ.get("JAX_PROCESS_ID", environ.get("JOB_COMPLETION_INDEX"))
    for name, value in (("JAX_NUM_PROCESSES", count), ("JAX_PROCESS_ID", number)):
        if value is None or not value.isdigit():
            raise UserError(f"JAX_COORDINATOR_ADDRESS={address} with {name}={value}; expected a number, set it")
    if int(number) >= int(count):
        raise UserError(f"JAX_PROCESS_ID={number}: expected less than JAX_NUM_PROCESSES={count}")
    return Layout(address, int(count), int(number)) if int(count) > 1 else None


def open_mpi_layout(environ: Mapping[str, str]) -> Layout:
    """What mpirun sets; processes on several machines need Open MPI 4, whose variables name the first one."""
    size, rank, local, on_machine = (
        int(environ[f"OMPI_COMM_WORLD_{name}"]) for name in ("SIZE", "RANK", "LOCAL_RANK", "LOCAL_SIZE")
    )
    uri = environ.get("OMPI_MCA_orte_hnp_uri", "")
    job = environ.get("PMIX_NAMESPACE", uri.split(";")[0])
    if on_machine == size:
        host = "127.0.0.1"
    else:
        match = re.search(r"tcp://([^,:]+)", uri)
        if match is None:
            raise UserError(
                f"{size} processes of mpirun on several machines; set JAX_COORDINATOR_ADDRESS=HOST:PORT of the first "
                "one, JAX_NUM_PROCESSES and JAX_PROCESS_ID, see examples/"
            )
        host = match.group(1)
    return Layout(f"{host}:{port_of(job)}", size, rank, device_of(environ, local, on_machine))


def slurm_layout(environ: Mapping[str, str]) -> Layout:
    """What srun sets."""
    nodes, tasks = environ.get("SLURM_STEP_NODELIST"), int(environ["SLURM_NTASKS"])
    if nodes is None or "SLURM_PROCID" not in environ:
        raise UserError(
            f"SLURM_NTASKS={tasks}, but srun did not start this process; start it with srun, see examples/slurm.sh, or "
            "unset SLURM_NTASKS for a run on this machine alone"
        )
    first = re.match(r"[^,\[]+(?:\[[^,\-\]]+)?", nodes).group().replace("[", "")
    per_node = environ.get("SLURM_STEP_TASKS_PER_NODE", environ.get("SLURM_TASKS_PER_NODE", "1"))
    on_machine, local = int(re.match(r"\d+", per_node).group()), int(environ.get("SLURM_LOCALID", "0"))
    address = f"{first}:{port_of(environ.get('SLURM_JOB_ID', ''))}"
    return Layout(address, tasks, int(environ["SLURM_PROCID"]), device_of(environ, local, on_machine))


def port_of(job: str) -> int:
    """A port that the processes of a job agree on."""
    return PORTS[0] + zlib.crc32(job.encode()) % PORTS[1]


def device_of(environ: Mapping[str, str], local: int, on_machine: int) -> int | None:
    """The device of a process that shares its machine; None if it has it alone, or the launcher shows it only one."""
    seen = [name for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return None if on_machine == 1 or len(seen) == 1 else local


def join() -> None:
    """Join the other processes of this run, if the environment announces any; see `layout`."""
    if jax.distributed.is_initialized():
        return
    place = layout(os.environ)
    if place is None:
        return
    jax.distributed.initialize(
        place.coordinator, place.processes, place.process,
        local_device_ids=None if place.device is None else [place.device], heartbeat_timeout_seconds=HEARTBEAT,
    )  # fmt: skip


def check_agreement(config: Any, workdir: pathlib.Path) -> None:
    """Raise UserError, on every process, unless all have one config and see one workdir.

    Args:
      config: as json can hold it.
      workdir: exists on process 0.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).digest()
    digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = [i for i, row in enumerate(digests) if not np.array_equal(row, digests[0])]
    if others:
        raise UserError(f"process {others[0]} has another config than process 0; start all with the same command")
    token = np.frombuffer(secrets.token_bytes(8), np.uint8)
    token = bytes(np.asarray(multihost_utils.broadcast_one_to_all(token), np.uint8)).hex()
    probe = workdir / PROBE
    if jax.process_index() == 0:
        probe.write_text(token)
    multihost_utils.sync_global_devices("probe is written")
    sees = probe.is_file() and probe.read_text() == token
    seen = np.ravel(multihost_utils.process_allgather(np.asarray(sees)))
    if jax.process_index() == 0:
        probe.unlink()
    if not seen.all():
        blind = int(np.flatnonzero(~seen)[0])
        raise UserError(f"process {blind} does not see what process 0 writes in {workdir}; expected a shared folder")


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keep other runs out of a workdir as long as this one is in it.

    Raises:
      UserError: another run is in it.
    """
    if jax.process_index() or fcntl is None:
        yield
        return
    with (workdir / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{workdir} is in use by {file.read().strip() or 'another run'}; wait for its end, or choose another "
                "--workdir"
            ) from None
        except OSError:  # a file system without locks
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield


@contextlib.contextmanager
def ending_together(code_of) -> Iterator[None]:
    """An error in one process of a run ends all of them within seconds, with its line.

    Args:
      code_of: exception -> exit code.
    """
    if jax.process_count() == 1:
        yield
        return
    from jax._src import distributed  # jax offers no public way to its key-value store

    client, me = distributed.global_state.client, jax.process_index()
    over = threading.Event()
    threading.Thread(target=watch, args=(client, me, over), daemon=True).start()
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit):  # all processes stopped after the same step
            raise
        if not isinstance(error, UserError):
            traceback.print_exc()
        line = f"error: process {me}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        print(line, file=sys.stderr, flush=True)
        code = code_of(error)
        with contextlib.suppress(Exception):
            client.key_value_set(FAILED, f"{code} {line}")
        leave(me, code)
    finally:
        over.set()


def watch(client, me: int, over: threading.Event) -> None:
    """End this process when another one has failed."""
    while not over.is_set():
        try:
            code, _, line = client.blocking_key_value_get(FAILED, 1000).partition(" ")
        except Exception:  # nothing yet; or process 0 is gone, which jax notices by its heartbeat
            time.sleep(0.2)
            continue
        if not over.is_set() and f"process {me}:" not in line:
            print(line, file=sys.stderr, flush=True)
            leave(me, int(code))
        return


def leave(me: int, code: int) -> None:
    """End this process without asking the others; process 0, which they hold on to, goes last."""
    time.sleep(1 if me else LAST)
    os._exit(code)
