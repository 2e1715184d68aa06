"""AdamW with parameter groups by path, a global-norm clip before it, and the learning-rate schedules.

Order of one update (spec: tarvis 7.1, the order matters because measured norms are 1e3 and more against a clip of
0.01): clip by global norm -> Adam moments -> decoupled weight decay -> factor of the group -> learning rate.
"""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from vps_jax.config import Optim
from vps_jax.parsing import parse
from vps_jax.train.state import path_of
from vps_jax.types import UserError


class Groups(NamedTuple):
    """Trees of the shape of the parameters.

    Attributes:
      names: text, `<learning-rate group>` or `<learning-rate group>/no_decay`.
      lr_scales: factor of the learning rate; a float, or an array that broadcasts over the leaf.
      decays: bool, whether weight decay applies.
    """

    names: dict
    lr_scales: dict
    decays: dict


def parameter_groups(params, *, lr_groups, no_decay) -> Groups:
    """Put every parameter into exactly one group.

    Args:
      params: tree of arrays or shapes.
      lr_groups: rows (name, pattern, scale); the first pattern found in the path wins. The scale is a number, or one
        number per slice along the leaf's first axis where blocks are stacked for a scan (layer-wise decay).
      no_decay: patterns of paths without weight decay.

    Raises:
      UserError: a pattern matches no parameter, or a parameter is in no group.
    """
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    lr_rows = [first_match(path, lr_groups) for path in paths]
    check_patterns(paths, lr_rows, lr_groups, no_decay)
    decays = [not any(re.search(pattern, path) for pattern in no_decay) for path in paths]
    names = [lr_groups[row][0] + ("" if decay else "/no_decay") for row, decay in zip(lr_rows, decays, strict=True)]
    scales = [
        leaf_scale(lr_groups[row], path, leaf)
        for row, path, leaf in zip(lr_rows, paths, jax.tree.leaves(params), strict=True)
    ]
    tree = jax.tree.structure(params)
    return Groups(*(jax.tree.unflatten(tree, column) for column in (names, scales, decays)))


def first_match(path: str, lr_groups) -> int | None:
    """Row of the first group whose pattern is found in the path."""
    return next((row for row, (_, pattern, _) in enumerate(lr_groups) if re.search(pattern, path)), None)


def check_patterns(paths, lr_rows, lr_groups, no_decay) -> None:
    """A pattern without a parameter is a misspelling that would train with the wrong rate."""
    orphans = [path for path, row in zip(paths, lr_rows, strict=True) if row is None]
    if orphans:
        raise UserError(
            f"{len(orphans)} parameters are in no optimiser group, first {orphans[0]!r}; add a row to optim.lr_groups"
        )
    empty = [row[0] for i, row in enumerate(lr_groups) if i not in lr_rows]
    empty += [pattern for pattern in no_decay if not any(re.search(pattern, path) for path in paths)]
    if empty:
        raise UserError(
            f"optimiser groups {empty} match no parameter (paths look like {paths[0]!r}); "
            "mend the patterns in optim.lr_groups and optim.no_decay"
        )


def leaf_scale(group, path: str, leaf):
    """The group's factor, shaped to broadcast over the leaf."""
    name, _, scale = group
    if isinstance(scale, (int, float)):
        return float(scale)
    if len(scale) != leaf.shape[0]:
        raise UserError(
            f"optimiser group {name!r} has {len(scale)} factors, but {path!r} stacks {leaf.shape[0]} blocks; "
            "give one factor per block"
        )
    return jnp.asarray(scale, jnp.float32).reshape((-1,) + (1,) * (len(leaf.shape) - 1))


def make_schedule(optim, *, late: bool = False):
    """Learning rate of optimizer step k = 0, 1, ... from `config.optim`, a `config.Optim` or a mapping.

    `schedule='steps'` (spec: tarvis 7.2): base * k / warmup while k <= warmup (so step 0 has rate 0), then base, times
    0.1 from each of `decay_steps` on. `schedule='poly'` (spec: vit_adapter 6): base * (1 - k/N), and during warm-up
    times 1 - (1 - k/warmup)(1 - 1e-6). `schedule='warmup_poly'` (spec: videomt 8): base * k / warmup, then
    base * (1 - (k - warmup) / (N - warmup))^power; groups that start late have rate 0 until then and a warm-up of
    their own behind it.

    Args:
      late: of the groups that start late.
    """
    optim = parse(Optim, optim, "optim")
    if optim.schedule == "warmup_poly":
        first, last = optim.warmup_steps, optim.warmup_steps + optim.late_warmup_steps
        return warmup_poly_schedule(optim, *((first, last) if late else (0, first)))
    return {"steps": step_schedule, "poly": poly_schedule}[optim.schedule](optim)


def group_rates(optim):
    """Learning rate of every group by its name: functions of the optimiser's step; of layer-wise rates the largest."""
    optim = parse(Optim, optim, "optim")
    rates = {}
    for name, _, scale in optim.lr_groups:
        schedule = make_schedule(optim, late=name in optim.late_groups)
        factor = scale if isinstance(scale, (int, float)) else max(scale)
        rates[name] = functools.partial(lambda schedule, factor, step: factor * float(schedule(step)), schedule, factor)
    return rates


def step_schedule(optim: Optim):
    warmup = optim.warmup_steps
    boundaries = jnp.asarray(optim.decay_steps, jnp.int32)

    def schedule(count):
        k = jnp.asarray(count, jnp.float32)
        ramp = jnp.where(k <= warmup, k / max(warmup, 1), 1.0) if warmup else 1.0
        return optim.lr * ramp * optim.decay_factor ** jnp.sum(count >= boundaries)

    return schedule


def poly_schedule(optim: Optim):
    warmup = optim.warmup_steps

    def schedule(count):
        k = jnp.asarray(count, jnp.float32)
        ramp = jnp.minimum(k / max(warmup, 1), 1.0) * (1 - 1e-6) + 1e-6  # of 1 - (1 - k/warmup)(1 - 1e-6), exact at 0
        return optim.lr * ramp * jnp.maximum(1 - k / optim.total_steps, 0.0) ** optim.poly_power

    return schedule


def warmup_poly_schedule(optim: Optim, first: int, last: int):
    """Rises from step `first` to step `last` and falls to 0 at the end."""

    def schedule(count):
        k = jnp.asarray(count, jnp.float32)
        ramp = jnp.clip((k - first) / max(last - first, 1), 0.0, 1.0)
        left = 1 - jnp.maximum(k - last, 0.0) / max(optim.total_steps - last, 1)
        return optim.lr * ramp * jnp.maximum(left, 0.0) ** optim.poly_power

    return schedule


def scale_by_rates(optim: Optim, names):
    """The learning rate of each group, by the tree of their names."""
    if not optim.late_groups:
        return optax.scale_by_learning_rate(make_schedule(optim))
    late = jax.tree.map(lambda name: name.removesuffix("/no_decay") in optim.late_groups, names)
    return optax.chain(
        optax.masked(optax.scale_by_learning_rate(make_schedule(optim)), jax.tree.map(lambda one: not one, late)),
        optax.masked(optax.scale_by_learning_rate(make_schedule(optim, late=True)), late),
    )


def make_optimizer(optim, params):
    """The optax transformation for these parameters from `config.optim`.

    Args:
      optim: `config.Optim` or a mapping of its keys; `sgd` is there to compare device counts without Adam's
        amplification of rounding.
      params: tree of arrays or shapes; only paths and shapes are read.

    Raises:
      UserError: see `parameter_groups`, or an impossible value.
    """
    optim = parse(Optim, optim, "optim")
    groups = parameter_groups(params, lr_groups=optim.lr_groups, no_decay=optim.no_decay)
    return optax.chain(
        clip_by_global_norm(optim.clip_norm) if optim.clip_norm else optax.identity(),
        optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.eps) if optim.name == "adamw" else optax.identity(),
        optax.add_decayed_weights(optim.weight_decay, mask=groups.decays),
        optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, groups.lr_scales)),
        scale_by_rates(optim, groups.names),
    )


def clip_by_global_norm(limit: float):
    """Scale all gradients by min(1, limit / (norm + 1e-6)), the norm over every parameter (spec: tarvis 7.1)."""

    def clip(updates, _):
        factor = jnp.minimum(1.0, limit / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda u: u * factor, updates)

    return optax.stateless(clip)
