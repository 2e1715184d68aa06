"""What a run will need, before anything long: memory by device, arithmetic, disk. Nothing is compiled or allocated.

The step of each task is traced as one device runs it, with the clips of one micro-batch, and its program is walked
(counting.py). Each task is traced once, at the largest shape of its sources, which decides about memory; arithmetic of
smaller shapes is taken in proportion to their pixels.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vps_jax.config import Data, Experiment, source_group
from vps_jax.data import augment, records, samples
from vps_jax.data.validation import validated
from vps_jax.ops import target
from vps_jax.train.counting import Held, flop_by_dtype, peak_bytes, size_in_bytes, walk
from vps_jax.train.setup import model_and_state, source_task
from vps_jax.train.sharding import check_batch, check_fsdp, make_mesh, parameter_spec, state_sharding, used_devices
from vps_jax.train.state import TrainState
from vps_jax.train.step import Step, StepOptions, make_step, make_update
from vps_jax.types import Clip, UserError

ASSUMED_FRAME = (720, 1280)  # of sets that are not prepared here, height and width


class Shape(NamedTuple):
    """Clips of one source that one program takes.

    Attributes:
      source: name in `data.sources`.
      size: padded height and width.
      rows: of the instance table.
      share: of the source's clips.
      overlapping: whether its masks may overlap.
    """

    source: str
    size: tuple[int, int]
    rows: int
    share: float
    overlapping: bool = False


class Memory(NamedTuple):
    """Bytes on one device at the moment of a step that needs most.

    Attributes:
      parameters: with other variables of the model, such as statistics.
      optimizer, average: moments; EMA weights.
      batch: the clips of a step.
      gathered: with `fsdp`, the parameters in whole while a step uses them.
      accumulated: the sum of gradients that micro-batches add to.
      kept: activations that the forward pass keeps for the backward pass.
      temporary: what is held besides at the peak: gradients and the working memory of the largest operation.
    """

    parameters: float
    optimizer: float
    average: float
    batch: float
    gathered: float
    accumulated: float
    kept: float
    temporary: float

    @property
    def total(self) -> float:
        return sum(self)


@dataclasses.dataclass(frozen=True)
class TaskPlan:
    """The steps of one task.

    Attributes:
      task: its name.
      shape: the largest that its sources have.
      memory: at that shape.
      flop: of one device in a step of that shape, by the type of what is multiplied.
      share: of all steps.
      relative: mean pixels of a step over those of the largest shape.
    """

    task: str
    shape: Shape
    memory: Memory
    flop: dict[str, float]
    share: float
    relative: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes:
      experiment: the config.
      devices: how many share a batch.
      tasks: a row for each task.
      assumed: sources whose data are not prepared here, so that their frames are taken as `ASSUMED_FRAME`.
      checkpoint: bytes of one checkpoint.
    """

    experiment: Experiment
    devices: int
    tasks: tuple[TaskPlan, ...]
    assumed: tuple[str, ...]
    checkpoint: int

    @property
    def clips(self) -> int:
        """Clips that a device has at once."""
        return self.experiment.train.batch_size // (self.devices * self.experiment.train.accumulate)

    @property
    def flop(self) -> dict[str, float]:
        """Arithmetic of one device in a step, over the run's mean of tasks and shapes."""
        total: dict[str, float] = {}
        for row in self.tasks:
            for dtype, value in row.flop.items():
                total[dtype] = total.get(dtype, 0.0) + row.share * row.relative * value
        return total


def make_plan(experiment: Experiment, devices: int, backend: str = "gpu") -> Plan:
    """Count what a run needs on so many devices.

    Args:
      experiment: the config.
      devices: over which the batch is split, see `sharding.used_devices`; they need not be here.
      backend: what the devices are, see `ops.target`.

    Raises:
      UserError: the batch cannot be split over the devices, or the data settings do not fit.
    """
    settings, data = experiment.train, validated(experiment.data)
    devices = used_devices(devices, settings.batch_size, settings.accumulate, settings.fsdp)
    check_fsdp(settings.fsdp, devices)
    check_batch(settings.batch_size, settings.accumulate, devices)
    shapes, assumed = shapes_of(data)
    experiment = dataclasses.replace(experiment, data=data)
    network = model_and_state(experiment)
    with target.made_for(backend):
        rows = [
            plan_task(experiment, network, devices, task, shapes_of_task)
            for task, shapes_of_task in by_task(data, shapes).items()
        ]
    return Plan(experiment, devices, tuple(rows), assumed, size_in_bytes(network[2]))


def shapes_of(data: Data) -> tuple[list[Shape], tuple[str, ...]]:
    """Shapes of all used sources, and which of them are not prepared here."""
    shapes, assumed = [], []
    for name, source in data.used.items():
        try:
            opened = records.open_records(source.path, source.split)
        except UserError:
            assumed.append(name)
            shapes += assumed_shapes(data, name)
            continue
        buckets = samples.make_buckets(data, {name: opened})
        whole = sum(bucket.weight for bucket in buckets)
        for bucket in buckets:
            rows = bucket.objects or data.max_instances
            shapes.append(Shape(name, bucket.shape, rows, bucket.weight / whole, opened.overlapping))
    return shapes, tuple(assumed)


def assumed_shapes(data: Data, name: str) -> Iterator[Shape]:
    """Shapes of a source if all its frames were `ASSUMED_FRAME`."""
    source = data.sources[name]
    by_side = samples.augmentations(source, f"data.sources.{name}")
    for operations in by_side.values():
        size = samples.padded_shape(augment.output_size(operations, ASSUMED_FRAME), source, data.pad_multiple)
        yield Shape(name, size, max(source.objects) if source.task == "vos" else data.max_instances, 1 / len(by_side))


def by_task(data: Data, shapes: list[Shape]) -> dict[str, list[Shape]]:
    """Shapes of each task, those of all its sources."""
    tasks: dict[str, list[Shape]] = {}
    for shape in shapes:
        tasks.setdefault(data.sources[shape.source].task, []).append(shape)
    return tasks


def plan_task(experiment: Experiment, network: tuple, devices: int, task: str, shapes: list[Shape]) -> TaskPlan:
    """Trace and count the largest step of a task; `network` is that of `setup.model_and_state`."""
    data = experiment.data
    classes = dict(getattr(experiment.model, "semantic_groups", ()))

    def largeness(shape: Shape) -> tuple:
        group = source_group(shape.source, data.sources[shape.source])
        return shape.size[0] * shape.size[1], shape.rows, shape.overlapping, classes.get(group, 0)

    largest = max(shapes, key=largeness)
    weights = [data.sources[shape.source].weight * shape.share for shape in shapes]
    pixels = sum(w * s.size[0] * s.size[1] for w, s in zip(weights, shapes, strict=True)) / sum(weights)
    memory, flop = count_step(experiment, network, devices, largest)
    share = sum(weights) / sum(source.weight for source in data.used.values())
    return TaskPlan(task, largest, memory, flop, share, pixels / (largest.size[0] * largest.size[1]))


def count_step(experiment: Experiment, network: tuple, devices: int, shape: Shape) -> tuple[Memory, dict[str, float]]:
    """Memory and arithmetic of one device in a step of this shape."""
    settings = experiment.train
    model, tx, abstract = network
    clip = clip_of(experiment, shape, settings.batch_size // (devices * settings.accumulate))
    source = experiment.data.sources[shape.source]
    options = StepOptions(settings.seed, settings.ema_decay, skip_nonfinite=settings.on_nonfinite == "skip")
    shardings = state_sharding(make_mesh(devices=jax.local_devices()[:1]), abstract)
    traced = make_step(
        model, source_task(experiment, shape.source), source_group(shape.source, source),
        make_update(tx, shardings, options), shardings=shardings, options=options,
    ).trace(abstract, clip)  # fmt: skip
    peak, kept = working_memory(traced)
    state = placed(abstract, settings.fsdp)
    variables = size_in_bytes(abstract.variables)
    memory = Memory(
        parameters=state.variables,
        optimizer=state.opt_state,
        average=state.ema,
        batch=size_in_bytes(clip) * settings.accumulate,
        gathered=variables - state.variables,
        accumulated=size_in_bytes(abstract.variables["params"]) if settings.accumulate > 1 else 0,
        kept=kept,
        temporary=peak - kept,
    )
    flop = {name: settings.accumulate * value for name, value in flop_by_dtype(traced.gradients.jaxpr.jaxpr).items()}
    return memory, flop


def clip_of(experiment: Experiment, shape: Shape, clips: int) -> Clip:
    """Shapes of a batch."""
    frames = (clips, experiment.data.clip_frames, *shape.size)
    vos = experiment.data.sources[shape.source].task == "vos"
    return Clip(
        jax.ShapeDtypeStruct((*frames, 3), jnp.uint8),
        jax.ShapeDtypeStruct(frames, jnp.uint16),
        jax.ShapeDtypeStruct((clips, shape.rows), jnp.int32),
        jax.ShapeDtypeStruct((clips, records.MOST_COMBINATIONS, shape.rows), jnp.bool_) if shape.overlapping else None,
        jax.ShapeDtypeStruct((clips,), jnp.int32) if vos else None,
    )


def working_memory(traced: Step) -> tuple[int, int]:
    """Bytes that a traced step holds beside state and batch: at most, and when the forward pass has ended.

    The forward pass ends where the loss is known. The update has the gradients, and its new state lies where the old
    one lay.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(traced.gradients.out_info)]
    (place,) = [i for i, path in enumerate(paths) if getattr(path[-1], "key", None) == "loss"]
    jaxpr = traced.gradients.jaxpr.jaxpr
    held: list[Held] = list(walk(jaxpr))
    loss = jaxpr.outvars[place]
    end = next(number for number, equation in enumerate(jaxpr.eqns) if loss in equation.outvars)
    updating = size_in_bytes(traced.gradients.out_info) + peak_bytes(traced.update.jaxpr.jaxpr, results=False)
    return max(*(moment.most for moment in held), updating), held[end].after


def placed(abstract: TrainState, fsdp: int) -> TrainState:
    """Bytes of each part of the state on one device."""

    def of_leaf(leaf) -> float:
        split = any(axis is not None for axis in parameter_spec(leaf.shape, fsdp))
        return size_in_bytes(leaf) / (fsdp if split else 1)

    return TrainState(*(sum(map(of_leaf, jax.tree.leaves(part))) for part in abstract))
