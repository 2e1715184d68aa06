"""Which processes make up a run, as the launcher's environment variables say it.

What a launcher leaves open is refused in one line, since processes that do not join would each train alone in the same
folder.
"""

import re
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from vps_jax.types import UserError

PORTS = (61440, 4096)  # the first of the ephemeral ports that jobs are spread over, and how many
UNKNOWN = {"PMI_SIZE": "mpirun of MPICH", "WORLD_SIZE": "torchrun"}  # launchers that are not read, by their count


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
    if number(environ, "JAX_NUM_PROCESSES", 1) > 1:
        raise UserError(
            f"JAX_NUM_PROCESSES={environ['JAX_NUM_PROCESSES']} without JAX_COORDINATOR_ADDRESS; set that to HOST:PORT "
            "of process 0, or unset JAX_NUM_PROCESSES for a run on this machine alone"
        )
    if number(environ, "OMPI_COMM_WORLD_SIZE", 1) > 1:
        return open_mpi_layout(environ)
    if number(environ, "SLURM_NTASKS", 1) > 1:
        return slurm_layout(environ)
    indexed_pod = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(environ)
    if indexed_pod and environ.get("JAX_NUM_PROCESSES") != "1":
        raise UserError(
            "a pod of an indexed Kubernetes job without JAX_COORDINATOR_ADDRESS; set it and JAX_NUM_PROCESSES as "
            "examples/jobset.yaml does, or JAX_NUM_PROCESSES=1 for pods that run alone"
        )
    refuse_unknown(environ)
    return None


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raise UserError for the variables of a launcher whose processes would not join."""
    for name, launcher in UNKNOWN.items():
        if name in environ and number(environ, name, 1) > 1:
            raise UserError(
                f"{name}={environ[name]}, as {launcher} sets it, which is not read here; set JAX_COORDINATOR_ADDRESS, "
                f"JAX_NUM_PROCESSES and JAX_PROCESS_ID for each process, or unset {name} for runs that are alone"
            )


def number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A variable that counts something.

    Raises:
      UserError: it is no number, or is not set and has no default.
    """
    value = environ.get(name)
    if not value and default is not None:
        return default
    if not re.fullmatch(r"\d{1,9}", value or "", re.ASCII):
        found = f"{name}={value}" if value else f"{name} is not set"
        raise UserError(f"{found}: expected a number, as the launcher gives it; set it")
    return int(value)


def count_and_rank(environ: Mapping[str, str], count: str, rank: str) -> tuple[int, int]:
    """How many processes there are and which one this is, by the names of their variables."""
    processes, process = number(environ, count), number(environ, rank)
    if process >= processes:
        raise UserError(f"{rank}={process}: expected less than {count}={processes}")
    return processes, process


def plain_layout(environ: Mapping[str, str]) -> Layout | None:
    """JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or a pod's index in place of the last."""
    address = environ["JAX_COORDINATOR_ADDRESS"]
    port = address.rpartition(":")[2]
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):\d{1,5}", address, re.ASCII) or not 0 < int(port) < 2**16:
        raise UserError(f"JAX_COORDINATOR_ADDRESS={address}: expected HOST:PORT of process 0, such as node1:1234")
    pod = "JAX_PROCESS_ID" not in environ and "JOB_COMPLETION_INDEX" in environ
    processes, process = count_and_rank(
        environ, "JAX_NUM_PROCESSES", "JOB_COMPLETION_INDEX" if pod else "JAX_PROCESS_ID"
    )
    return Layout(address, processes, process) if processes > 1 else None


def open_mpi_layout(environ: Mapping[str, str]) -> Layout:
    """What mpirun sets; processes on several machines need Open MPI 4, whose variables name the first one."""
    size, rank = count_and_rank(environ, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
    on_machine, local = count_and_rank(environ, "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
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
    nodes = environ.get("SLURM_STEP_NODELIST")
    if not nodes or "SLURM_PROCID" not in environ:
        raise UserError(
            f"SLURM_NTASKS={environ['SLURM_NTASKS']}, but srun did not start this process; start it with srun, see "
            "examples/slurm.sh, or unset SLURM_NTASKS for a run on this machine alone"
        )
    tasks, process = count_and_rank(environ, "SLURM_NTASKS", "SLURM_PROCID")
    per_node = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE") or "1"
    on_machine = number({"SLURM_STEP_TASKS_PER_NODE": re.split(r"[(,]", per_node)[0]}, "SLURM_STEP_TASKS_PER_NODE")
    address = f"{first_node(nodes)}:{port_of(environ.get('SLURM_JOB_ID', ''))}"
    return Layout(address, tasks, process, device_of(environ, number(environ, "SLURM_LOCALID", 0), on_machine))


def first_node(nodes: str) -> str:
    """The first host of a list as Slurm writes it: `gpu[03-04,9],login` -> `gpu03`.

    Raises:
      UserError: it is not of that form.
    """
    if not re.match(r"(?:[^,\[\]]|\[[^\[\],-]+[^\[\]]*\])+(?:,|$)", nodes):
        raise UserError(f"SLURM_STEP_NODELIST={nodes}: expected hosts such as gpu[01-02]; set JAX_COORDINATOR_ADDRESS")
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])+", nodes).group()
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def port_of(job: str) -> int:
    """A port that the processes of a job agree on."""
    return PORTS[0] + zlib.crc32(job.encode()) % PORTS[1]


def device_of(environ: Mapping[str, str], local: int, on_machine: int) -> int | None:
    """The device of a process that shares its machine; None if it has it alone, or the launcher shows it only one."""
    seen = [name for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return None if on_machine == 1 or len(seen) == 1 else local
