"""Weights from one stage to the next: everything by path, semantic query rows by the name of their group.

The reference throws all semantic rows away when the list of data sets changes (spec: tarvis 9.15); here a group keeps
its rows by name, and a new group may say whose rows it starts from (spec: tarvis 7.9 and 12.2).
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vps_jax.config import InitFrom
from vps_jax.train.state import flat_paths
from vps_jax.types import UserError

SEMANTIC = "params/queries/semantic"  # [1 + classes of all groups, c], row 0 is the shared embedding
SHOWN = 4  # paths named in an error line


class Plan(NamedTuple):
    """Where every leaf of the new variables comes from.

    Attributes:
      copied: paths taken as they are.
      fresh: paths that start anew.
      dropped: paths of the source without a place in the model.
      rows: for each semantic row of the model the row of the source, or -1 to start anew; empty where the whole matrix
        is copied or fresh.
    """

    copied: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]
    rows: tuple[int, ...]


def make_plan(source, target, *, source_groups, target_groups, settings: InitFrom) -> Plan:
    """Decide from shapes alone, before anything is computed.

    Args:
      source, target: trees of arrays or shapes, `{'params': ...}`.
      source_groups, target_groups: `config.model.semantic_groups` of both, rows (name, classes).
      settings: `config.init_from`: `groups`, rows (group of the model, group of the source, classes of the source in
        the model's order or None for all), for groups not named alike; `fresh`, patterns of paths that may be new.

    Raises:
      UserError: the source lacks a parameter that `fresh` does not allow, a shape differs, or a group does not fit.
    """
    source = {path: tuple(leaf.shape) for path, leaf in flat_paths(source).items()}
    target = {path: tuple(leaf.shape) for path, leaf in flat_paths(target).items()}
    rows = ()
    if SEMANTIC in source and SEMANTIC in target:
        rows = semantic_rows(source_groups, target_groups, settings.groups)
    fresh = [path for path in target if path not in source]
    common = [path for path in target if path in source and not (rows and path == SEMANTIC)]
    wrong = [f"{path} {source[path]} instead of {target[path]}" for path in common if source[path] != target[path]]
    lost = [path for path in fresh if not any(re.search(pattern, path) for pattern in settings.fresh)]
    for paths, what in ((wrong, "of another shape"), (lost, "not in the checkpoint nor in init_from.fresh")):
        if paths:
            raise UserError(
                f"init_from.path: {len(paths)} parameters are {what}, first {', '.join(paths[:SHOWN])}; "
                "give a checkpoint of the same architecture"
            )
    dropped = tuple(path for path in source if path not in target)
    return Plan(tuple(common), tuple(fresh), dropped, rows)


def semantic_rows(source_groups, target_groups, pairs) -> tuple[int, ...]:
    """Source row of every target row of the semantic matrix, -1 for none; row 0 comes from row 0."""
    named = {target: (source, classes) for target, source, classes in pairs}
    starts, start = {}, 1
    for name, size in source_groups:
        starts[name] = (start, size)
        start += size
    unknown = sorted(set(named) - {name for name, _ in target_groups})
    unknown += sorted({source for source, _ in named.values()} - set(starts))
    if unknown:
        raise UserError(
            f"init_from.groups names {unknown}; the model has {[n for n, _ in target_groups]}, the checkpoint "
            f"{list(starts)}; correct the names"
        )
    rows = [0]
    for name, size in target_groups:
        source, classes = named.get(name, (name, None))
        if source not in starts:
            rows += [-1] * size
            continue
        first, source_size = starts[source]
        classes = range(source_size) if classes is None else classes
        if len(classes) != size or not all(0 <= c < source_size for c in classes):
            raise UserError(
                f"init_from.groups: {name} has {size} classes, {len(classes)} of the {source_size} of {source} are "
                "given for it; list one class of the checkpoint per class of the model"
            )
        rows += [first + c for c in classes]
    return tuple(rows)


def hand_over(plan: Plan, source, target):
    """The target's tree with the source's numbers wherever the plan says so."""
    found = flat_paths(source)

    def leaf_of(path: str, leaf):
        if path in plan.copied:
            return jnp.asarray(found[path], leaf.dtype)
        if plan.rows and path == SEMANTIC:
            rows = jnp.asarray(plan.rows)
            return jnp.where(rows[:, None] >= 0, jnp.asarray(found[path], leaf.dtype)[rows], leaf)
        return leaf

    leaves = [leaf_of(path, leaf) for path, leaf in flat_paths(target).items()]
    return jax.tree.unflatten(jax.tree.structure(target), leaves)


def describe(plan: Plan, target_groups) -> str:
    """One line: how much was taken, and which semantic groups start anew."""
    line = f"{len(plan.copied)} parameter arrays taken, {len(plan.fresh)} fresh, {len(plan.dropped)} left behind"
    fresh, start = [], 1
    for name, size in target_groups:
        if plan.rows and -1 in plan.rows[start : start + size]:
            fresh.append(name)
        start += size
    return line + (f"; semantic groups that start anew: {', '.join(fresh)}" if fresh else "")
