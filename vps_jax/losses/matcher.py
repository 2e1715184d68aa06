"""Which query predicts which object: costs at shared points, one assignment for all sets (spec: tarvis 6.2)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vps_jax.losses.mask_losses import Objects
from vps_jax.ops import sampling
from vps_jax.ops.assignment import assign
from vps_jax.ops.masks import mask_logits
from vps_jax.ops.per_sample import per_sample
from vps_jax.shapes import Float, Int32
from vps_jax.types import Array

STATISTICS = "matched/"


class Costs(NamedTuple):
    """Unweighted costs, `[d, b, n, q]` each: minus class probability, cross entropy, dice of the whole tube."""

    classes: Float[Array, "d b n q"]
    mask: Float[Array, "d b n q"]
    dice: Float[Array, "d b n q"]

    def total(self, class_weight: float, mask_weight: float, dice_weight: float) -> Float[Array, "..."]:
        """The weighted sum."""
        return class_weight * self.classes + mask_weight * self.mask + dice_weight * self.dice


def matching_costs(
    features: Float[Array, "b t h4 w4 c"],
    embeds: Float[Array, "d b q c"],
    class_logits: Float[Array, "d b q k"],
    objects: Objects,
    points: Float[Array, "#d b p 2"],
) -> Costs:
    """Cost of every (object, query) pair of every prediction set.

    Sampling is linear, so features are sampled and multiplied by the queries: no mask is made.

    Args:
      features: `[b, t, h4, w4, c]`.
      embeds: `[d, b, q, c]`.
      class_logits: `[d, b, q, k]`.
      points: `[d, b, p, 2]`, or `[1, b, p, 2]` for all sets.
    """

    def at(points):
        frames = jnp.broadcast_to(points[:, None], (*features.shape[:2], *points.shape[1:]))  # [b, t, p, 2]
        return sampling.bilinear(features, frames), _labels(objects, frames)

    one_draw = points.shape[0] == 1
    shared = at(points[0]) if one_draw else None

    def one_set(x):
        embeds, class_logits, points = x
        sampled, labels = shared if one_draw else at(points)
        return Costs(_class_cost(class_logits, objects.labels), *_mask_costs(mask_logits(sampled, embeds), labels))

    return jax.lax.map(one_set, (embeds, class_logits, None if one_draw else points))


def match(
    features: Float[Array, "b t h4 w4 c"],
    embeds: Float[Array, "d b q c"],
    class_logits: Float[Array, "d b q k"],
    objects: Objects,
    points: Float[Array, "#d b p 2"],
    *,
    weights: tuple[float, float, float],
    mesh: Mesh | None = None,
) -> Int32[Array, "d b n"]:
    """The query of every object: int32 `[d, b, n]`, -1 for an empty row; `weights` are those of `Costs.total`."""

    def own(features, embeds, class_logits, objects, points):
        cost = matching_costs(features, embeds, class_logits, objects, points).total(*weights)
        return assign(cost, objects.valid)

    inputs = jax.lax.stop_gradient((features, embeds, class_logits))
    return per_sample(own, mesh, (0, 1, 1, 0, 1), 1)(*inputs, objects, points)


def statistics(columns: Int32[Array, "d b n"]) -> dict[str, Float[Array, " d"]]:
    """What the assignment of every set looks like, by names that begin with `STATISTICS`.

    Returns:
      `objects`, the objects of a clip that have a query; `same_query`, the share of them whose query is that of the set
      before, 1 in the first set and 0 without objects. How far that has risen tells whether the decoder has settled.
    """
    there = columns >= 0
    before = jnp.concatenate([columns[:1], columns[:-1]])
    count, same = (jnp.sum(a, axis=(1, 2), dtype=jnp.float32) for a in (there, there & (columns == before)))
    return {f"{STATISTICS}objects": count / columns.shape[1], f"{STATISTICS}same_query": same / jnp.maximum(count, 1)}


def _labels(objects: Objects, points):
    """Soft labels of all rows at shared points: points `[b, t, p, 2]` -> `[b, t, p, n]`."""
    around, weight = sampling.corner_ids(objects.ids, points)  # [4, b, t, p]
    rows = jnp.arange(objects.valid.shape[1])[None, None, None]
    rows = jnp.broadcast_to(rows, (points.shape[0], 1, 1, rows.shape[-1]))
    corners = zip(around, weight, strict=True)
    return sum(jnp.where(objects.covers(i[..., None], rows), w[..., None], 0) for i, w in corners)


def _mask_costs(logits, labels):
    """Mean cross entropy and tube dice: logits `[b, t, p, q]`, labels `[b, t, p, n]` -> `[b, n, q]` each."""
    count = logits.shape[1] * logits.shape[2]
    s = jax.nn.sigmoid(logits)
    agree, overlap = (jnp.einsum("btpn,btpq->bnq", labels, a) for a in (logits, s))
    softplus, area = (jnp.sum(a, axis=(1, 2))[:, None] for a in (jax.nn.softplus(logits), s))  # [b, 1, q]
    truth = jnp.sum(labels, axis=(1, 2))[:, :, None]  # [b, n, 1]
    return (softplus - agree) / count, 1 - (2 * overlap + 1) / (area + truth + 1)


def _class_cost(class_logits, labels):
    """Minus the probability of each object's class: `[b, q, k]`, `[b, n]` -> `[b, n, q]`."""
    probability = jnp.swapaxes(jax.nn.softmax(class_logits.astype(jnp.float32), axis=-1), 1, 2)  # [b, k, q]
    labels = jnp.clip(labels, 0, class_logits.shape[-1] - 1)
    return -jnp.take_along_axis(probability, labels[..., None], axis=1)
