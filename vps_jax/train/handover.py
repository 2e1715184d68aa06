"""Weights from one run to the next: every parameter by its path, and row by row where a row stands for a class.

The reference throws all semantic rows away when the list of data sets changes (spec: tarvis 9.15); here every class
has its source, see class_sources.py.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.config import InitFrom
from vps_jax.train import class_sources
from vps_jax.train.class_sources import FRESH, Labels, Sources
from vps_jax.train.state import flat_paths
from vps_jax.types import UserError

SEMANTIC = "params/queries/semantic"  # [1 + classes of all groups, c], row 0 is the shared embedding
SHOWN = 4  # paths named in an error line


class Side(NamedTuple):
    """One of the two models.

    Attributes:
      variables: tree of arrays or shapes, `{'params': ...}`.
      labels: its classes.
      class_head: path of the layer with one output per class and a last one for "no object"; empty for none.
    """

    variables: Any
    labels: Labels = Labels()
    class_head: str = ""


class Rows(NamedTuple):
    """A parameter with a row per class: for every row along `axis` that of the source, or `FRESH`."""

    axis: int
    sources: tuple[int, ...]


class Plan(NamedTuple):
    """Where every leaf of the new variables comes from.

    Attributes:
      copied: paths taken as they are.
      fresh: paths that start anew.
      dropped: paths of the source without a place in the model.
      rows: paths that are put together row by row.
      classes: where the classes come from.
    """

    copied: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]
    rows: Mapping[str, Rows]
    classes: Sources


def make_plan(source: Side, target: Side, settings: InitFrom) -> Plan:
    """Decide from shapes alone, before anything is computed.

    Args:
      source, target: the model of the checkpoint and the new one.
      settings: `config.init_from`.

    Raises:
      UserError: the source lacks a parameter that `fresh` does not allow, a shape differs, or a group or class that the
        settings name is not there.
    """
    before, after = (shapes_of(side.variables) for side in (source, target))
    classes = class_sources.class_sources(source.labels, target.labels, settings)
    rows = rows_by_class(classes, source, target, settings)
    rows = {path: one for path, one in rows.items() if path in before and path in after}
    if settings.by_name and not rows:
        raise UserError(
            f"init_from.by_name: {settings.path} and the model have neither class queries nor a class head in common; "
            "give a checkpoint of the same architecture, or leave by_name out"
        )
    fresh = [path for path in after if path not in before]
    common = [path for path in after if path in before and path not in rows]
    wrong = [f"{path} {before[path]} instead of {after[path]}" for path in common if before[path] != after[path]]
    lost = [path for path in fresh if not any(re.search(pattern, path) for pattern in settings.fresh)]
    for paths, what in ((wrong, "of another shape"), (lost, "not in the checkpoint nor in init_from.fresh")):
        if paths:
            head = target.class_head and all(path.startswith(target.class_head) for path in paths)
            raise UserError(
                f"init_from.path: {len(paths)} parameters are {what}, first {', '.join(paths[:SHOWN])}; "
                + ("set init_from.by_name=True" if head else "give a checkpoint of the same architecture")
            )
    dropped = tuple(path for path in before if path not in after)
    return Plan(tuple(common), tuple(fresh), dropped, rows, classes)


def shapes_of(variables) -> dict[str, tuple[int, ...]]:
    """Shape of every leaf by its path."""
    return {path: tuple(leaf.shape) for path, leaf in flat_paths(variables).items()}


def rows_by_class(classes: Sources, source: Side, target: Side, settings: InitFrom) -> dict[str, Rows]:
    """Source rows of the class queries and of the class head.

    The shared embedding of the queries and the output for "no object" come along. A class head goes over as it is
    unless the settings speak of groups or names.
    """
    rows = {SEMANTIC: Rows(0, (0, *(FRESH if c == FRESH else 1 + c for c in classes.classes)))}
    if target.class_head and (settings.groups or settings.by_name):
        outputs = (*classes.classes, sum(size for _, size in source.labels.groups))
        rows |= {f"{target.class_head}/kernel": Rows(1, outputs), f"{target.class_head}/bias": Rows(0, outputs)}
    return rows


def hand_over(plan: Plan, source, target):
    """The target's tree with the source's numbers wherever the plan says so."""
    arrays = flat_paths(source)

    def leaf_of(path: str, leaf):
        if path in plan.copied:
            return jnp.asarray(arrays[path], leaf.dtype)
        if path in plan.rows:
            return with_rows(jnp.asarray(arrays[path], leaf.dtype), leaf, plan.rows[path])
        return leaf

    leaves = [leaf_of(path, leaf) for path, leaf in flat_paths(target).items()]
    return jax.tree.unflatten(jax.tree.structure(target), leaves)


def with_rows(array, leaf, rows: Rows):
    """A parameter whose rows along an axis are those of the source; fresh ones keep their own numbers."""
    sources = np.asarray(rows.sources)
    taken = jnp.take(array, np.maximum(sources, 0), axis=rows.axis)
    known = np.expand_dims(sources != FRESH, [i for i in range(leaf.ndim) if i != rows.axis])
    return jnp.where(known, taken, leaf)


def describe(plan: Plan) -> list[str]:
    """Lines: how much was taken, which groups start anew, and for groups that go by name what came from where."""
    line = f"{len(plan.copied)} parameter arrays taken, {len(plan.fresh)} fresh, {len(plan.dropped)} left behind"
    named, anew = plan.classes.named, plan.classes.anew if SEMANTIC in plan.rows else ()
    lines = [line + (f"; semantic groups that start anew: {', '.join(anew)}" if anew else "")]
    for row in named:
        group = f"group {row.group}: " if len(named) > 1 else ""
        lines.append(group + class_sources.describe(row))
        if row.like:
            lines.append(group + "by like: " + ", ".join(f"{name} from {origin}" for name, origin in row.like))
    return lines
