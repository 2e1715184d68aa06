"""The scalars of steps, read one step late so that the device never waits; what is left of a step that went wrong."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.files import write_json
from vps_jax.train.report import Report
from vps_jax.train.setup import Setup
from vps_jax.train.step import MODULE_NORM
from vps_jax.types import UserError


class Recorder:
    """Passes scalars on to the report, and stops the run, or lets it go on, after a step that is not finite.

    Args:
      setup: of the run.
      report: gets the scalars.
      sound: step of a checkpoint before the given one whose weights gave a finite loss, or None.
    """

    def __init__(self, setup: Setup, report: Report, sound):
        self._setup, self._report, self._sound = setup, report, sound
        self._pending: list = []
        self._skipped = 0  # in a row

    def add(self, step: int, batch, scalars) -> None:
        """Remember the scalars of one step, and read those of the step before."""
        self._pending.append((step, batch.task, batch.dataset, batch.records, scalars))
        while len(self._pending) > 1:
            self._read(*self._pending.pop(0))

    def check_records(self, step: int, batch) -> None:
        """Count records that could not be read, or stop because of one, as `data.broken_records` says."""
        for line in batch.broken:
            if self._setup.experiment.data.broken_records == "stop":
                raise UserError(
                    f"step {step}: {line}; restore the file or prepare the set again, or set data.broken_records=skip"
                )
            self._report.broken_record(step + 1, line)

    def drain(self) -> None:
        """Read all steps that were started."""
        while self._pending:
            self._read(*self._pending.pop(0))

    def check_state(self, state) -> None:
        """Raise UserError if the weights are not finite, since a checkpoint of them would be of no use."""
        if not all_finite(state.variables):
            step = int(state.step)
            raise UserError(f"step {step}: weights that are not finite are not saved; {self._advice(step)}")

    def _read(self, step: int, task: str, dataset: str, records, scalars) -> None:
        values = {name: float(value) for name, value in jax.device_get(scalars).items()}
        self._report.add(task, values)
        broken = sorted(n for n, value in values.items() if not (np.isfinite(value) or n.startswith(MODULE_NORM)))
        if not broken:
            self._skipped = 0
            return
        self._skipped += 1
        file = record_path(self._setup.workdir, step)
        terms = {name: value if np.isfinite(value) else str(value) for name, value in values.items()}
        content = {"step": step, "task": task, "dataset": dataset, "records": list(records), "terms": terms}
        write_json(file, content, indent=1)
        line = f"step {step}: {', '.join(broken)} not finite on {len(records)} clips of {dataset}, listed in {file}"
        train = self._setup.experiment.train
        if train.on_nonfinite == "stop":
            raise UserError(f"{line}; {self._advice(step)}, or set train.on_nonfinite=skip")
        if self._skipped > train.skip_at_most:
            raise UserError(f"{line}; train.skip_at_most={train.skip_at_most} steps in a row: {self._advice(step)}")
        self._report.skipped(step + 1)
        self._report.progress.say(f"{line}; step skipped")

    def _advice(self, step: int) -> str:
        sound = self._sound(step)
        newest = f"the newest sound checkpoint is {sound}" if sound is not None else "there is no sound checkpoint"
        return f"{newest}; look at `vps-jax replay {self._setup.workdir}`, lower optim.lr"


def record_path(workdir: pathlib.Path, step: int) -> pathlib.Path:
    """Where the record of a step that was not finite lies."""
    return workdir / f"nonfinite_step{step}.json"


@jax.jit
def all_finite(tree):
    """Whether every number of a tree is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
