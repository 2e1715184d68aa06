"""Whether the parts of an experiment agree with one another: checked before any file of data is opened."""

from vps_jax.config import Experiment, Source, source_group, task_row
from vps_jax.types import UserError


def check(experiment: Experiment) -> None:
    """Raises UserError, naming the key, unless the sections of an experiment fit together."""
    sources = experiment.data.sources
    if not experiment.data.used:
        raise UserError("data.sources has no source with a weight above 0; set the weight of at least one")
    for name, source in sources.items():
        check_source(experiment, name, source)
    unknown = sorted(set(experiment.class_maps) - set(sources))
    if unknown:
        raise UserError(f"class_maps.{unknown[0]}: no such source; expected some of {', '.join(sources)}")
    groups, group = dict(experiment.model.semantic_groups), experiment.infer.semantic_group
    if group is not None and group not in groups:
        raise UserError(f"infer.semantic_group={group!r} is no group of the model; choose one of {', '.join(groups)}")


def check_source(experiment: Experiment, name: str, source: Source) -> None:
    """Raises UserError unless task, group, class map and normalisation of a source fit the experiment."""
    where = f"data.sources.{name}"
    if source.task not in experiment.tasks:
        raise UserError(
            f"{where}.task={source.task!r}: config.tasks has {', '.join(experiment.tasks) or 'no task'}; add its "
            "numbers there, or choose another task"
        )
    clips = experiment.train.batch_size // experiment.train.accumulate
    together = getattr(experiment.tasks[source.task], "normalize_clips", None)
    if together and clips % together:
        raise UserError(
            f"tasks.{source.task}.normalize_clips={together} does not divide the {clips} clips of a micro-batch "
            "(train.batch_size / train.accumulate); choose a divisor, or None for all of them"
        )
    if not task_row(source.task).has_classes:
        return
    groups, group = dict(experiment.model.semantic_groups), source_group(name, source)
    if group not in groups:
        raise UserError(f"{where}.group={group!r} is no group of the model; choose one of {', '.join(groups)}")
    classes = experiment.class_maps.get(name, ())
    if classes and max(classes) >= groups[group]:
        raise UserError(f"class_maps.{name} names class {max(classes)}; the group {group} has {groups[group]}")
