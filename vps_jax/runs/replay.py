"""One step of a run once more, from the newest checkpoint before it: what went into it, what came out."""

import contextlib
import dataclasses
import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vps_jax.runs.experiment import set_up_jax
from vps_jax.types import UserError


class Replay(NamedTuple):
    """A step that was done again.

    Attributes:
      step: its number, the steps done before it.
      start: step of the checkpoint it was reached from, 0 for the weights that the run began with.
      task, dataset, records: of its batch.
      broken: a line for each record of the batch that could not be read.
      terms: loss, its terms and the norm of the gradient, whole and by module.
      before, change: by module, the norm of the weights before the step, and of what the step changed.
    """

    step: int
    start: int
    task: str
    dataset: str
    records: tuple[str, ...]
    broken: tuple[str, ...]
    terms: dict[str, float]
    before: dict[str, float]
    change: dict[str, float]


def replay(workdir, step: int | None = None) -> Replay:
    """Do a step of a run again; nothing in its folder changes.

    The batch and the randomness of a step depend on its number alone, so the steps from the newest checkpoint before it
    lead there bit by bit.

    Args:
      workdir: of the run.
      step: number of the step; None for the first one that was recorded as not finite.

    Raises:
      UserError: no run is there, or no step was recorded.
    """
    set_up_jax()
    from vps_jax.config import experiment
    from vps_jax.data import pipeline
    from vps_jax.train.programs import StepPrograms
    from vps_jax.train.saving import Checkpoints
    from vps_jax.train.setup import fresh_state, prepare

    workdir = pathlib.Path(workdir)
    step = first_recorded(workdir) if step is None else step
    config = read_config(workdir, experiment)
    setup = prepare(config, workdir)
    with contextlib.closing(Checkpoints(workdir, keep=config.train.keep_checkpoints)) as checkpoints:
        start = max((known for known in checkpoints.steps() if known <= step), default=0)
        state = checkpoints.restore_step(start, setup.abstract, setup.shardings) if start else fresh_state(setup)
    programs = StepPrograms(setup)
    batches = pipeline.train_batches(setup.experiment.data, first_step=start)
    with contextlib.closing(batches):
        for number in range(start, step + 1):
            batch = next(batches)
            before = jax.tree.map(jnp.copy, state.variables["params"]) if number == step else None
            state, scalars = programs(number, state, batch)
    change = jax.tree.map(jnp.subtract, state.variables["params"], before)
    terms = {name: float(value) for name, value in sorted(scalars.items())}
    return Replay(
        step, start, batch.task, batch.dataset, batch.records, batch.broken, terms, norms(before), norms(change)
    )  # fmt: skip


def read_config(workdir: pathlib.Path, experiment):
    """The config of a run, which then stops at no step that is not finite."""
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(f"{file} is not there; expected the workdir of a run")
    config = experiment(json.loads(file.read_text()))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, num_workers=0))


def first_recorded(workdir: pathlib.Path) -> int:
    """Number of the first step that was recorded as not finite."""
    steps = [int(path.stem.removeprefix("nonfinite_step")) for path in workdir.glob("nonfinite_step*.json")]
    if not steps:
        raise UserError(f"{workdir} has no record of a step that was not finite; name one with --step")
    return min(steps)


def norms(tree) -> dict[str, float]:
    """Norm of the numbers of each module: the first two names of a parameter's path."""
    sums: dict[str, float] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = "/".join(str(key.key) for key in path[:2])
        sums[name] = sums.get(name, 0.0) + float(jnp.sum(jnp.square(leaf.astype(jnp.float32))))
    return {name: total**0.5 for name, total in sorted(sums.items())}


def lines(result: Replay) -> list[str]:
    """What `vps-jax replay` prints."""
    rows = [
        f"step {result.step}: task {result.task}, data {result.dataset}, reached from checkpoint {result.start}",
        f"clips: {', '.join(result.records)}",
        *(f"broken: {line}" for line in result.broken),
        *(f"  {name:<28} {value:.6g}" for name, value in result.terms.items()),
        f"  {'module':<40} {'norm before':>12} {'change':>12}",
    ]
    return rows + [f"  {name:<40} {result.before[name]:>12.5g} {result.change[name]:>12.5g}" for name in result.before]
