"""Everything that is settled before the first step: checks, shapes, where things lie, and the state to start from."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vps_jax import models, tasks
from vps_jax.config import task_row
from vps_jax.data import pipeline
from vps_jax.train import handover
from vps_jax.train.checkpoint import (
    Checkpoints,
    check_disk_space,
    check_writable,
    restore_for_inference,
    shapes_for_inference,
)
from vps_jax.train.optimizer import make_optimizer
from vps_jax.train.sharding import check_batch, make_mesh, state_sharding
from vps_jax.train.state import TrainState, create_state
from vps_jax.types import UserError

SLOW_SCATTER = ("0.10.2", "0.11.0")  # float32 scatter-add up to 450 x slower on GPUs (spec: performance 0)
INIT_SIZE = (64, 64)  # parameters do not depend on it


class Setup(NamedTuple):
    """What stays the same through a run; `plan` says what is taken from another run's weights, None for nothing."""

    config: Mapping
    workdir: pathlib.Path
    model: Any
    mesh: jax.sharding.Mesh
    tx: Any
    abstract: TrainState
    shardings: TrainState
    plan: handover.Plan | None


def prepare(config: Mapping, workdir) -> Setup:
    """Check everything and describe the run, without compiling."""
    settings = config["train"]
    check_writable(workdir)
    warn_of_slow_jax()
    mesh = make_mesh(settings["fsdp"])
    check_batch(settings["batch_size"], settings["accumulate"], mesh)
    if settings["on_nonfinite"] not in ("stop", "skip"):
        raise UserError(f"train.on_nonfinite={settings['on_nonfinite']!r}; choose 'stop' or 'skip'")
    check_tasks(config)
    model = models.build(config["model"])
    variables = jax.eval_shape(functools.partial(initial_variables, model, config))
    tx = make_optimizer(config["optim"], variables["params"])
    abstract = jax.eval_shape(functools.partial(create_state, tx=tx), variables)
    check_disk_space(workdir, abstract, settings["keep_checkpoints"])
    plan = plan_handover(config, variables)
    return Setup(config, pathlib.Path(workdir), model, mesh, tx, abstract, state_sharding(mesh, abstract), plan)


def check_tasks(config: Mapping) -> None:
    """Open the data, and see that every task and group that its sources name exists."""
    programs = pipeline.describe(config["data"])
    missing = sorted({task for task, _, _ in programs} - set(config["tasks"]))
    if missing:
        raise UserError(f"data.sources use the tasks {missing}, which config.tasks does not have; add their settings")
    for task, dataset, _ in programs:
        source_task(config, task, dataset)


def group_of(config: Mapping, dataset: str) -> str:
    """The semantic query group of a source."""
    return pipeline.validated(config["data"]).sources[dataset].group


def source_task(config: Mapping, task: str, dataset: str) -> tasks.Task:
    """A task on one source: `config.tasks[task]`, the size of its group and its class map.

    Raises:
      UserError: the source's group is not one of the model's.
    """
    numbers = config["tasks"][task]
    if not task_row(task).has_classes:
        return tasks.make_task(task, numbers)
    groups, group = dict(config["model"]["semantic_groups"]), group_of(config, dataset)
    if group not in groups:
        raise UserError(
            f"data.sources.{dataset}.group={group!r} is no group of the model; expected one of {', '.join(groups)}"
        )
    return tasks.make_task(task, numbers, num_classes=groups[group], class_map=config["class_maps"].get(dataset))


def plan_handover(config: Mapping, variables) -> handover.Plan | None:
    """What `config.init_from.path` gives to the variables (shapes), None without a path."""
    settings = config["init_from"]
    if not settings["path"]:
        return None
    if settings["weights"] not in ("ema", "raw"):
        raise UserError(f"init_from.weights={settings['weights']!r}; choose 'ema' or 'raw'")
    source_config, source = shapes_for_inference(settings["path"], settings["weights"])
    groups = [c["model"].get("semantic_groups", ()) for c in (source_config, config)]
    return handover.make_plan(
        source, variables, source_groups=groups[0], target_groups=groups[1], settings=settings
    )  # fmt: skip


def initial_variables(model, config: Mapping):
    """Random variables of the model, from the seed."""
    return models.init(model, jax.random.key(config["train"]["seed"]), INIT_SIZE)


def warn_of_slow_jax() -> None:
    """Say so when this jax has the GPU regression that the requirements avoid."""
    if jax.__version__ in SLOW_SCATTER and jax.default_backend() == "gpu":
        print(f"warning: jax {jax.__version__} is up to 450 x slower in scatter-add on GPUs; install requirements.txt")


def start_state(setup: Setup, checkpoints: Checkpoints) -> TrainState:
    """The newest checkpoint's state, or a fresh one, with the weights of another run where the config asks for them."""
    if checkpoints.latest_step() is not None:
        return checkpoints.restore(setup.abstract, setup.shardings)
    init = functools.partial(initial_variables, setup.model, setup.config)
    if setup.plan is None:
        return jax.jit(lambda: create_state(init(), setup.tx), out_shardings=setup.shardings)()
    settings = setup.config["init_from"]
    _, source = restore_for_inference(settings["path"], settings["weights"])
    variables = jax.tree.map(np.asarray, handover.hand_over(setup.plan, source, jax.jit(init)()))
    create = functools.partial(create_state, tx=setup.tx)
    return jax.jit(create, in_shardings=(setup.shardings.variables,), out_shardings=setup.shardings)(variables)
