"""The loss of queries that go from frame to frame (spec: videomt 8).

An object is given a query in the first frame that it is seen in, and keeps it for the rest of the clip. Classes and
masks are then compared frame by frame: a frame is a sample of its own, with features and vectors of its own.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vps_jax.losses import set_loss
from vps_jax.losses.mask_losses import Objects
from vps_jax.losses.matcher import matching_costs, statistics
from vps_jax.ops.assignment import assign
from vps_jax.ops.masks import ids_present
from vps_jax.ops.per_sample import per_sample
from vps_jax.shapes import Float, Int32
from vps_jax.types import Array

TAKEN = 5e4  # cost of a query that another object has; any real cost is far below


class FrameSets(NamedTuple):
    """All prediction sets of a batch of clips, as in `types.FrameQueryOutputs`; a single one has no leading `d`.

    Attributes:
      features: `[d, b, t, h4, w4, c]`.
      embeds: `[d, b, t, q, c]`.
      class_logits: `[d, b, t, q, k + 1]`, "no object" last.
    """

    features: Float[Array, "*d b t h4 w4 c"]
    embeds: Float[Array, "*d b t q c"]
    class_logits: Float[Array, "*d b t q k"]


def first_frames(objects: Objects) -> Int32[Array, "b n"]:
    """The first frame of the clip in which each object has a pixel: int32 `[b, n]`, t for one that has none."""
    b, t = objects.ids.shape[:2]
    rows = objects.valid.shape[1]
    frames = objects.ids.reshape(b * t, *objects.ids.shape[2:])
    if objects.overlaps is None:
        seen = ids_present(frames, rows).reshape(b, t, rows)
    else:
        ids = ids_present(frames + 1, objects.overlaps.shape[1]).reshape(b, t, -1)
        seen = jnp.einsum("btv,bvn->btn", ids.astype(jnp.int32), objects.overlaps[..., :rows].astype(jnp.int32)) > 0
    return jnp.where(jnp.any(seen, axis=1), jnp.argmax(seen, axis=1), t).astype(jnp.int32)


def match(
    one: FrameSets,
    objects: Objects,
    first: Int32[Array, "b n"],
    points: Float[Array, "b f p 2"],
    *,
    weights: tuple[float, float, float],
) -> Int32[Array, "b n"]:
    """The query of every object.

    Frames are taken in order. In each, the objects that are first seen there are given the queries that no earlier one
    has, by the costs of that frame alone.

    Args:
      one: a single set, without the leading `d`.
      objects: of the clip.
      first: int32 `[b, n]`, the frame in which each object is matched.
      points: `[b, f, p, 2]`, shared by all masks of a frame; f is the number of frames in which objects are matched.
      weights: of class, cross entropy and dice.

    Returns:
      int32 `[b, n]`, -1 for an empty row, one matched in no frame, and where the queries ran out.
    """
    numbers = jnp.arange(one.embeds.shape[2])

    def frame(columns, step):
        number, points = step
        at = lambda a: jax.lax.dynamic_index_in_dim(a, number, axis=1)  # noqa: E731  [b, 1, ...]
        here = objects._replace(ids=at(objects.ids))
        embeds, classes = (jnp.moveaxis(at(a), 1, 0) for a in (one.embeds, one.class_logits))
        cost = matching_costs(at(one.features), embeds, classes, here, points[None]).total(*weights)
        taken = jnp.any(columns[..., None] == numbers, axis=1)  # [b, q]
        assigned = assign(jnp.where(taken[:, None], TAKEN, cost), objects.valid & (first == number))[0]
        free = ~jnp.take_along_axis(taken, jnp.maximum(assigned, 0), axis=1)
        return jnp.where((assigned >= 0) & free, assigned, columns), None

    start = jnp.full(objects.valid.shape, -1, jnp.int32)
    steps = (jnp.arange(points.shape[1]), jnp.moveaxis(points, 1, 0))
    return jax.lax.scan(frame, start, steps)[0]


def terms(
    sets: FrameSets,
    objects: Objects,
    first: Int32[Array, "b n"],
    points: Mapping[str, Array],
    *,
    weights: tuple[float, float, float],
    null_weight: float,
    num_points: int,
    group: int | None,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, " d"]]]:
    """Weighted class, cross-entropy and dice loss of every set.

    Means are taken within a group of clips, as in `losses.set_loss`: a class loss over all frames and queries, a mask
    loss over the objects of all frames, whether a frame shows them or not.

    Args:
      objects, first: see `match`.
      points: `matcher` `[1 or d, b, f, p, 2]`; and what `mask_terms` chooses points from with every frame a sample:
        `base` `[b t, m, 2]` and `shifts` `[d, b t, n, 1, 2]`, or `points` `[d, b t, n, 1, p, 2]`.
      weights: of class, cross entropy and dice, in the loss as in the matcher.
      null_weight: of "no object" in the class loss.
      num_points: of each mask.
      group: clips over which a loss is normalised at once, or None for all.
      mesh: that the batch is sharded over, or None.

    Returns:
      the sum over all sets, and the terms and the statistics of the matching `[d]` each by name, without gradient
      through the masks'.
    """
    t, null = sets.features.shape[2], sets.class_logits.shape[-1] - 1
    frames, group = frame_objects(objects), group and group * t
    shared = {"num_points": num_points, "group": group, "mesh": mesh}
    shared |= {"base": points["base"]} if "base" in points else {}
    own = per_sample(functools.partial(match, weights=weights), mesh, (0, 0, 0, 0), 0)

    def one_set(one: FrameSets, matcher, **drawn):
        columns = own(jax.lax.stop_gradient(one), objects, first, matcher)
        repeated = jnp.repeat(columns, t, axis=0)[None]
        features, embeds, logits = _samples(one.features)[:, None], _samples(one.embeds), _samples(one.class_logits)
        kind = {"null": null, "null_weight": null_weight, "group": group}
        classes = weights[0] * set_loss.class_terms(logits[None], repeated, frames, **kind)[0]
        drawn = {name: a[None] for name, a in drawn.items()}
        loss, ce, dice = set_loss.mask_terms(
            features, embeds[None], repeated, frames, weights=weights[1:], **shared, **drawn
        )
        return loss + classes, (classes, ce[0], dice[0], columns)

    matcher = jnp.broadcast_to(points["matcher"], (sets.features.shape[0], *points["matcher"].shape[1:]))
    drawn = {name: points[name] for name in ("shifts", "points") if name in points}

    def step(total, x):
        one, matcher, drawn = x
        loss, by_term = one_set(one, matcher, **drawn)
        return total + loss, by_term

    total, (classes, ce, dice, columns) = jax.lax.scan(step, jnp.zeros(()), (sets, matcher, drawn))
    return total, {"class": classes, "mask": ce, "dice": dice, **statistics(columns)}


def frame_objects(objects: Objects) -> Objects:
    """The objects of a batch of clips with every frame a sample."""
    t = objects.ids.shape[1]
    labels, valid = (jnp.repeat(a, t, axis=0) for a in (objects.labels, objects.valid))
    overlaps = None if objects.overlaps is None else jnp.repeat(objects.overlaps, t, axis=0)
    return Objects(_samples(objects.ids)[:, None], labels, valid, overlaps)


def _samples(a):
    """`[b, t, ...]` to `[b t, ...]`."""
    return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])
