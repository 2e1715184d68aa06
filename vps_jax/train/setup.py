"""Everything that is settled before the first step: checks, shapes, where things lie, and the state to start from."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vps_jax import agreement, models, tasks
from vps_jax.config import Experiment, model_row, source_group
from vps_jax.data import pipeline
from vps_jax.datasets import ClassTable, from_rows
from vps_jax.parsing import plain
from vps_jax.train import handover, wandb_writer
from vps_jax.train.checkpoint import (
    newest_step,
    read_classes,
    restore_for_inference,
    shapes_for_inference,
)
from vps_jax.train.class_sources import Labels
from vps_jax.train.optimizer import make_optimizer
from vps_jax.train.saving import Checkpoints
from vps_jax.train.sharding import check_batch, make_mesh, state_sharding, used_devices
from vps_jax.train.state import TrainState, create_state
from vps_jax.types import UserError

SLOW_SCATTER = ("0.10.2", "0.11.0")  # float32 scatter-add up to 450 x slower on GPUs (spec: performance 0)
INIT_SIZE = (64, 64)  # parameters do not depend on it


class Setup(NamedTuple):
    """What stays the same through a run.

    Attributes:
      experiment: the config.
      workdir: folder of the run.
      tasks: the task of every source, by the source's name.
      model: flax module.
      mesh, tx: devices and optax transformation.
      abstract, shardings: shapes of the state, and where it lies.
      plan: what is taken from another run's weights, None for nothing, or when the run goes on from its own.
      origin: what every checkpoint says of its origin, as json.
    """

    experiment: Experiment
    workdir: pathlib.Path
    tasks: Mapping[str, tasks.Task]
    model: Any
    mesh: jax.sharding.Mesh
    tx: Any
    abstract: TrainState
    shardings: TrainState
    plan: handover.Plan | None
    origin: Mapping


def prepare(experiment: Experiment, workdir) -> Setup:
    """Check everything and describe the run, without compiling.

    Raises:
      UserError: config, data, devices, disk or another run's weights do not fit.
    """
    agreement.check(experiment)
    settings = experiment.train
    wandb_writer.check(settings.wandb_project)
    warn_of_slow_jax()
    devices = jax.devices()
    used = used_devices(len(devices), settings.batch_size, settings.accumulate, settings.fsdp)
    mesh = make_mesh(settings.fsdp, devices=devices[:used])
    check_batch(settings.batch_size, settings.accumulate, mesh.size)
    pipeline.describe(experiment.data)  # opens the data
    model, tx, abstract = model_and_state(experiment)
    return Setup(
        experiment=experiment,
        workdir=pathlib.Path(workdir),
        tasks={name: source_task(experiment, name) for name in experiment.data.sources},
        model=model,
        mesh=mesh,
        tx=tx,
        abstract=abstract,
        shardings=state_sharding(mesh, abstract),
        plan=None if newest_step(workdir) is not None else plan_handover(experiment, abstract.variables),
        origin=origin(experiment, mesh),
    )


def model_and_state(experiment: Experiment) -> tuple[Any, Any, TrainState]:
    """The flax module, the optax transformation and the shapes of the state."""
    model = models.build(experiment.model)
    variables = models.shapes(model, INIT_SIZE)
    tx = make_optimizer(experiment.optim, variables["params"])
    return model, tx, jax.eval_shape(functools.partial(create_state, tx=tx), variables)


def origin(experiment: Experiment, mesh) -> dict:
    """What a checkpoint says of its origin."""
    classes = group_classes(experiment)
    return {
        **({"classes": classes.rows()} if classes else {}),
        "config": plain(experiment),
        "data": pipeline.fingerprint(experiment.data),
        "jax": jax.__version__,
        "devices": mesh.size,
    }


def group_classes(experiment: Experiment, group: str | None = None) -> ClassTable | None:
    """Classes of a semantic group as the data prepared for it say; None if none say it.

    Args:
      experiment: the config.
      group: None for the group that is predicted.
    """
    groups = dict(experiment.model.semantic_groups)
    group = group or predicted_group(experiment)
    for name, table in pipeline.class_tables(experiment.data).items():
        class_map = experiment.class_maps.get(name) or range(len(table.names) if table else 0)
        complete = set(range(groups.get(group, 0))) <= set(class_map)
        if table and complete and source_group(name, experiment.data.sources[name]) == group:
            rows = dict(zip(class_map, table.rows(), strict=True))  # class of the group -> its row
            return from_rows(rows[c] for c in range(groups[group]))
    return None


def predicted_group(experiment: Experiment) -> str | None:
    """The semantic group whose classes a model's scores have; None for a model without groups."""
    return experiment.infer.semantic_group or next(iter(dict(experiment.model.semantic_groups)), None)


def source_task(experiment: Experiment, name: str) -> tasks.Task:
    """The task of one source, with the classes of its group and its class map."""
    source = experiment.data.sources[name]
    classes = dict(experiment.model.semantic_groups).get(source_group(name, source))
    class_map = experiment.class_maps.get(name)
    return tasks.make_task(source.task, experiment.tasks[source.task], num_classes=classes, class_map=class_map)


def plan_handover(experiment: Experiment, variables) -> handover.Plan | None:
    """What `config.init_from.path` gives to the variables (shapes), None without a path."""
    settings = experiment.init_from
    if not settings.path:
        return None
    earlier, source = shapes_for_inference(settings.path, settings.weights)
    names = (checkpoint_names(settings.path, earlier), data_names(experiment)) if settings.by_name else ({}, {})
    sides = [
        handover.Side(
            tree, Labels(getattr(one.model, "semantic_groups", ()), own), model_row(one.model.name).class_head
        )
        for one, tree, own in zip((earlier, experiment), (source, variables), names, strict=True)
    ]
    return handover.make_plan(*sides, settings)


def data_names(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """Names of the classes of every semantic group whose data say them."""
    tables = {group: group_classes(experiment, group) for group, _ in experiment.model.semantic_groups}
    return {group: table.names for group, table in tables.items() if table is not None}


def checkpoint_names(path: str, earlier: Experiment) -> dict[str, tuple[str, ...]]:
    """Names of the classes of the semantic group that a checkpoint predicts.

    Raises:
      UserError: the checkpoint has another number of them.
    """
    group, classes = predicted_group(earlier), read_classes(path)
    count = dict(earlier.model.semantic_groups)[group]
    if len(classes.names) != count:
        raise UserError(
            f"init_from.by_name: {path} does not say the names of its {count} classes of {group}, its class list has "
            f"{len(classes.names)}; list the classes in init_from.groups instead"
        )
    return {group: classes.names}


def initial_variables(model, seed: int):
    """Random variables of the model, from the seed."""
    return models.init(model, jax.random.key(seed), INIT_SIZE)


def warn_of_slow_jax() -> None:
    """Say so when this jax has the GPU regression that the requirements avoid."""
    if jax.__version__ in SLOW_SCATTER and jax.default_backend() == "gpu":
        print(f"warning: jax {jax.__version__} is up to 450 x slower in scatter-add on GPUs; install requirements.txt")


def start_state(setup: Setup, checkpoints: Checkpoints) -> TrainState:
    """The newest checkpoint's state, or the one that a run begins with."""
    if checkpoints.latest_step() is not None:
        return checkpoints.restore(setup.abstract, setup.shardings)
    return fresh_state(setup)


def fresh_state(setup: Setup) -> TrainState:
    """The state that a run begins with: random weights, or those of another run where the config asks for them."""
    init = functools.partial(initial_variables, setup.model, setup.experiment.train.seed)
    if setup.plan is None:
        return jax.jit(lambda: create_state(init(), setup.tx), out_shardings=setup.shardings)()
    settings = setup.experiment.init_from
    _, source = restore_for_inference(settings.path, settings.weights)
    variables = jax.tree.map(np.asarray, handover.hand_over(setup.plan, source, jax.jit(init)()))
    create = functools.partial(create_state, tx=setup.tx)
    return jax.jit(create, in_shardings=(setup.shardings.variables,), out_shardings=setup.shardings)(variables)
