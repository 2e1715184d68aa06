"""The folder of a run: whose it is, that one run at a time is in it, and what its disk says."""

import contextlib
import pathlib
import secrets
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from vps_jax import files
from vps_jax.files import write_text
from vps_jax.train.checkpoint import FOLDER, SHOWN, is_of_training, newest_step
from vps_jax.types import UserError

MARK = "run_id"  # file that tells one run from another, see `run_mark`
SAMPLES = "samples"  # folder of the pictures of evaluations
COMPILE_SECONDS = "compile_seconds.json"  # of the programs of a run, for the next start of it
WRITTEN = ("config.json", "metrics.json", COMPILE_SECONDS, "predictions", SAMPLES)  # what else a run writes
LOCK = ".lock"


def check_workdir(workdir) -> None:
    """Raise UserError if a folder has files that a run would write over, but that no run has written."""
    workdir = pathlib.Path(workdir)
    steps = [path for path in (workdir / FOLDER).glob("*") if path.name.isdigit() and (path / "meta").is_dir()]
    if steps and not any(map(is_of_training, steps)):
        raise UserError(
            f"{workdir} holds converted weights, expected a new folder or that of a run; choose another --workdir and "
            f"start from them with --config.init_from.path={workdir}, or score them with vps-jax predict and evaluate"
        )
    if steps or (workdir / MARK).is_file():
        return
    others = [name for name in WRITTEN if (workdir / name).exists()]
    others += [f"{FOLDER}/{path.name}" for path in sorted((workdir / FOLDER).glob("*"))][:SHOWN]
    if others:
        raise UserError(
            f"{workdir} holds {', '.join(others)}, which no run has written; expected a new folder or that of a run: "
            "choose another --workdir"
        )


def run_mark(workdir: pathlib.Path) -> str:
    """What tells the checkpoints of this run from those that others left in its folder; kept in a file there."""
    file = workdir / MARK
    if jax.process_index() == 0 and not (file.exists() and file.read_text().strip()):
        write_text(file, secrets.token_hex(8))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("run mark")
    return file.read_text()


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keep other runs out of a workdir as long as this one is in it.

    Raises:
      UserError: another run is in it.
    """
    if jax.process_index():
        yield
        return
    try:
        file = (workdir / LOCK).open("a+")
    except OSError as error:
        raise UserError(f"cannot write to {workdir / LOCK} ({error.strerror}); choose another folder") from None
    with file:
        try:
            files.lock(file.fileno())
        except files.InUse as owner:
            raise UserError(
                f"{workdir} is in use by {str(owner) or 'another run'}; wait for its end, or choose another --workdir"
            ) from None
        yield


@contextlib.contextmanager
def readable_errors(workdir: pathlib.Path):
    """A disk that fails while a run writes to it becomes one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or workdir}: {error.strerror or error}; the newest checkpoint is "
            f"{newest_step(workdir)}; make room or restore {workdir}, and start again"
        ) from error
