"""One step of a run once more, from the newest checkpoint before it: what went into it, what came out."""

import contextlib
import dataclasses
import json
import math
import pathlib
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vps_jax.config import Experiment, experiment
from vps_jax.data import pipeline
from vps_jax.files import track
from vps_jax.runs.experiment import set_up_jax
from vps_jax.train.checkpoint import ITEMS, damage_of
from vps_jax.train.programs import StepPrograms
from vps_jax.train.saving import Checkpoints
from vps_jax.train.setup import Setup, fresh_state, plan_handover, prepare
from vps_jax.train.state import TrainState
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
      UserError: no run is there, no step was recorded, or the run has no such step.
    """
    set_up_jax()
    workdir = pathlib.Path(workdir)
    step = first_recorded(workdir) if step is None else step
    config = read_config(workdir)
    if not 0 <= step < config.train.steps:
        raise UserError(f"--step {step}: expected one of the steps 0 to {config.train.steps - 1} of {workdir}")
    setup = prepare(config, workdir)
    start, state = state_before(setup, step)
    programs = StepPrograms(setup)
    batches = pipeline.train_batches(setup.experiment.data, first_step=start)
    with contextlib.closing(batches):
        for number in track(range(start, step + 1), f"steps from checkpoint {start}"):
            batch = next(batches)
            before = jax.tree.map(jnp.copy, state.variables["params"]) if number == step else None
            state, scalars = programs(number, state, batch)
    change = jax.tree.map(jnp.subtract, state.variables["params"], before)
    terms = {name: float(value) for name, value in sorted(scalars.items())}
    return Replay(
        step, start, batch.task, batch.dataset, batch.records, batch.broken, terms, norms(before), norms(change)
    )  # fmt: skip


def state_before(setup: Setup, step: int) -> tuple[int, TrainState]:
    """The step and the state of the newest sound checkpoint that is no later, or those that the run began with."""
    with contextlib.closing(Checkpoints(setup.workdir, keep=1)) as checkpoints:
        for known in reversed([known for known in checkpoints.steps() if known <= step]):
            wrong = damage_of(checkpoints.folder / str(known), ITEMS)
            if wrong is None:
                return known, checkpoints.restore_step(known, setup.abstract, setup.shardings)
            print(f"warning: checkpoint {known} is damaged ({wrong}), left out", file=sys.stderr)
    plan = plan_handover(setup.experiment, setup.abstract.variables)
    return 0, fresh_state(setup._replace(plan=plan))


def read_config(workdir: pathlib.Path) -> Experiment:
    """The config of a run, for as many devices as are here, read in this process and told to no service."""
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(f"{file} is not there; expected the workdir of a run")
    try:
        config = experiment(json.loads(file.read_text()))
    except (ValueError, AttributeError, UserError) as error:
        raise UserError(f"{file}: {error}; expected the config that a run has written") from None
    fsdp = math.gcd(config.train.fsdp, jax.device_count())
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, num_workers=0),
        train=dataclasses.replace(config.train, fsdp=fsdp, wandb_project=""),
    )


def first_recorded(workdir: pathlib.Path) -> int:
    """Number of the first step that was recorded as not finite."""
    names = [path.stem.removeprefix("nonfinite_step") for path in workdir.glob("nonfinite_step*.json")]
    steps = [int(name) for name in names if name.isdigit()]
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
