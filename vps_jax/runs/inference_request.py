"""What is asked of a checkpoint beside its own settings, checked before its weights are read."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from vps_jax.config import TASKS, Experiment, source_group
from vps_jax.datasets import dataset
from vps_jax.datasets.classes import ClassTable, class_table, from_rows
from vps_jax.datasets.spec import DatasetSpec
from vps_jax.parsing import field_names, parse
from vps_jax.types import UserError

OBJECTS = "davis"  # the class table of objects without classes


class Request(NamedTuple):
    """What a user asks of a checkpoint; what is left out is as the checkpoint says.

    Attributes:
      task: `panoptic`, `semantic`, `instance` or `vos`.
      settings: name of the data set whose published settings are used: task, sizes, clips, and classes where the model
        has a semantic group of it.
      short_side: pixels; the bound of the long side grows with it.
      tta: test-time augmentation: `flip` and factors on the size of the frames, such as `("flip", "0.75")`.
    """

    task: str | None = None
    settings: str | None = None
    short_side: int | None = None
    tta: Sequence[str | float] = ()


def infer_asked(experiment: Experiment, request: Request) -> Any:
    """How the model runs on videos: what the checkpoint says, with what is asked for in its place.

    Raises:
      UserError: a task or settings that the model does not have.
    """
    infer = experiment.infer
    if request.settings is not None:
        infer = published(experiment, dataset(request.settings))
    if request.task is not None:
        infer = with_task(experiment.model.name, infer, request.task)
        if request.settings is None and infer.task != experiment.infer.task:
            infer = with_group_of_task(experiment, infer)
    if request.short_side is not None:
        long_side = round(infer.max_side_px * request.short_side / (infer.short_side_px or type(infer)().short_side_px))
        infer = dataclasses.replace(infer, short_side_px=request.short_side, max_side_px=long_side)
    return augmented(infer, request.tta) if request.tta else infer


def augmented(infer: Any, tta: Sequence[str | float]) -> Any:
    """The settings with test-time augmentation.

    Raises:
      UserError: something else than `flip` and factors on the size, or a model without such views.
    """
    words = ",".join(map(str, tta))
    try:
        scales = [float(one) for one in tta if one != "flip"]
    except ValueError:
        scales = [0.0]
    if not all(0.1 <= scale <= 10 for scale in scales):
        raise UserError(f"tta={words!r}: expected flip and factors from 0.1 to 10 on the size, such as flip,0.75,1.25")
    others = tuple(scale for scale in dict.fromkeys(scales) if scale != 1.0)
    changes = ({"flip": True} if "flip" in tta else {}) | ({"scales": (1.0, *others)} if others else {})
    missing = [name for name in changes if not hasattr(infer, name)]
    if missing:
        raise UserError(f"tta={words!r}: the settings of this model have no {missing[0]}; leave it out")
    return dataclasses.replace(infer, **changes)


def published(experiment: Experiment, spec: DatasetSpec) -> Any:
    """The published settings of a data set, for a model of the kind that they are for.

    Raises:
      UserError: there are none, or they are for another kind of model.
    """
    own, name = experiment.infer, experiment.model.name
    if not spec.inference or set(spec.inference) - set(field_names(type(own))):
        reason = "are for another kind of model" if spec.inference else "are not published"
        raise UserError(f"settings={spec.name!r}: the settings of {spec.title} {reason}; leave them out for {name}")
    group = group_of(experiment, spec) or own.semantic_group
    return parse(type(own), {"taxonomy": own.taxonomy, **spec.inference, "semantic_group": group}, "infer")


def group_of(experiment: Experiment, spec: DatasetSpec) -> str | None:
    """The model's semantic group of a data set: the longest name that the data set's begins with; None for none."""
    groups = [name for name, _ in experiment.model.semantic_groups if spec.name.upper().startswith(name.upper())]
    return max(groups, key=len, default=None)


def tasks_of(infer: Any) -> dict[str, str]:
    """What a user may ask of a model with these settings -> the name of the task in its config."""
    field = next(field for field in dataclasses.fields(infer) if field.name == "task")
    return {TASKS[name].asked_as or name: name for name in field.metadata["choices"]}


def with_task(model: str, infer: Any, task: str) -> Any:
    """The settings with another task.

    Raises:
      UserError: the model does not have that task.
    """
    offered = tasks_of(infer)
    if task not in offered:
        raise UserError(
            f"task={task!r}: a {model} model does {', '.join(offered)}; choose one of them, or another checkpoint"
        )
    return dataclasses.replace(infer, task=offered[task])


def with_group_of_task(experiment: Experiment, infer: Any) -> Any:
    """The settings with the one semantic group that the model has learned their task with, if there is one.

    Stage 3 sees the same videos as three tasks, each with queries of its own (spec: tarvis 12.2).
    """
    sources = experiment.data.sources.items()
    learned = {source_group(name, source) for name, source in sources if source.task == infer.task}
    groups = [name for name, _ in getattr(experiment.model, "semantic_groups", ()) if name in learned]
    if len(groups) != 1 or not hasattr(infer, "semantic_group"):
        return infer
    return dataclasses.replace(infer, semantic_group=groups[0])


def classes_asked(experiment: Experiment, own: ClassTable, request: Request) -> ClassTable:
    """The classes of the frames; `own` are those of the checkpoint."""
    if infer_asked(experiment, request).task == "vos":
        return class_table(OBJECTS)
    if request.settings is not None and group_of(experiment, dataset(request.settings)):
        return dataset(request.settings).classes
    return classes_of_group(experiment, own, getattr(infer_asked(experiment, request), "semantic_group", None))


def classes_of_group(experiment: Experiment, own: ClassTable, group: str | None) -> ClassTable:
    """The classes of a semantic group: some of the checkpoint's, if the group's data map those to fewer classes."""
    count = dict(getattr(experiment.model, "semantic_groups", ())).get(group)
    for name, source in experiment.data.sources.items():
        class_map = experiment.class_maps.get(name, ())
        if source_group(name, source) == group and len(class_map) == len(own.names):
            rows = dict(zip(class_map, own.rows(), strict=True))
            if set(range(count or 0)) <= set(rows):
                return from_rows(rows[number] for number in range(count or 0))
    return own
