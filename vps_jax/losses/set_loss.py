"""The loss of all prediction sets: one matching, then point losses in a scan over the sets (spec: tarvis 6).

Means are taken within a group of clips and then averaged over the groups. The published systems take them over the
clips that one device sees at once: one for TarViS (spec: tarvis 7.3), two for Mask2Former. So `group` is 1 or 2 there
whatever the batch; None takes the whole batch. Only the number of objects is averaged over all groups first.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vps_jax.losses import assigned_masks, mask_losses, semantic_losses
from vps_jax.losses.mask_losses import Objects
from vps_jax.ops.per_sample import ALL, per_sample
from vps_jax.shapes import Bool, Float, Int32, Integer
from vps_jax.types import Array


class Semantic(NamedTuple):
    """The semantic branch of a task.

    Attributes:
      embeds: `[d, b, k, c]`.
      background: `[d, b, g, c]` or None; the largest of its logits is class 0 then.
      labels: int32 `[b, t, h, w]` with `IGNORE`.
      weights: `[b, k]` of the classes, the background's first where there is one; or None for 1.
    """

    embeds: Float[Array, "d b k c"]
    background: Float[Array, "d b g c"] | None
    labels: Integer[Array, "b t h w"]
    weights: Float[Array, "b k"] | None = None


def group_mean(total: Float[Array, "d b"], count: Float[Array, "d b"], group: int | None) -> Float[Array, " d"]:
    """Mean over groups of `sum(total) / sum(count)` within each, 0 where that counts 0: `[d, b]` each -> `[d]`."""
    total, count = (jnp.sum(_groups(a, group), axis=-1) for a in (total, count))  # [d, b / group]
    return jnp.mean(jnp.where(count > 0, total / jnp.where(count > 0, count, 1), 0), axis=-1)


def _groups(a, group: int | None):
    """`[d, b]` -> `[d, b / group, group]`."""
    return a.reshape(a.shape[0], -1, group or a.shape[1])


def mean_objects(valid: Bool[Array, "b n"], group: int | None) -> Float[Array, ""]:
    """Objects of a group, at least 1, averaged over the groups (spec: tarvis 6.2): bool `[b, n]` -> scalar."""
    objects = jnp.sum(valid, axis=1, dtype=jnp.float32)[None]
    return jnp.maximum(jnp.mean(jnp.sum(_groups(objects, group), axis=-1)), 1)


def class_terms(
    class_logits: Float[Array, "d b q k"],
    columns: Int32[Array, "d b n"],
    objects: Objects,
    *,
    null: int,
    null_weight: float,
    group: int | None,
) -> Float[Array, " d"]:
    """Weighted cross entropy of the classes of all queries; an unmatched one should say `null`.

    Args:
      class_logits: `[d, b, q, k]`.
      columns: `[d, b, n]`, query of each object, -1 for none.
      null: place of "no object" along k, its weight is `null_weight` and that of the others 1.

    Returns:
      `[d]`.
    """
    taken = columns[..., None] == jnp.arange(
        class_logits.shape[2]
    )  # [d, b, n, q]; a scatter would not stay on its device
    wanted = jnp.sum(jnp.where(taken, objects.labels[..., None], 0), axis=2)
    wanted = jnp.where(jnp.any(taken, axis=2), wanted, null)
    log_p = jax.nn.log_softmax(class_logits.astype(jnp.float32), axis=-1)
    ce = -jnp.take_along_axis(log_p, wanted[..., None], axis=-1)[..., 0]
    weight = jnp.where(wanted == null, null_weight, 1.0)
    return group_mean(jnp.sum(weight * ce, axis=-1), jnp.sum(weight, axis=-1), group)


def mask_terms(
    features: Float[Array, "b t h4 w4 c"],
    embeds: Float[Array, "d b q c"],
    columns: Int32[Array, "d b n"],
    objects: Objects,
    *,
    weights: tuple[float, float],
    num_points: int,
    group: int | None,
    mesh: Mesh | None = None,
    **points: Float[Array, "..."] | None,
) -> tuple[Float[Array, ""], Float[Array, " d"], Float[Array, " d"]]:
    """Weighted cross entropy and dice of the matched masks (spec: tarvis 6.2).

    Args:
      features: `[b, t, h4, w4, c]`.
      embeds: `[d, b, q, c]`.
      columns: `[d, b, n]`.
      weights: of cross entropy and dice.
      mesh: that the batch is sharded over, or None.
      points: `base`, `shifts` and `points` of `assigned_masks.matched_loss`.

    Returns:
      the sum of both over all sets, which has the gradient; and each `[d]`, without gradient.
    """
    groups = objects.valid.shape[0] // (group or objects.valid.shape[0])
    scale = jnp.asarray(weights, jnp.float32) / (groups * mean_objects(objects.valid, group))

    def own(features, embeds, columns, objects, scale, base, points):
        return assigned_masks.matched_loss(features, embeds, columns, objects, scale, num_points, base=base, **points)

    base = points.pop("base", None)
    run = per_sample(own, mesh, (0, 1, 1, 0, ALL, 0, 1), (0, 2))
    loss, sums = run(features, embeds, columns, objects, scale, base, points)
    ce, dice = jnp.einsum("dib,i->id", sums, scale)
    return jnp.sum(loss), ce, dice


def object_terms(
    features: Float[Array, "b t h4 w4 c"],
    object_logits: Callable,
    embeds: Mapping[str, Float[Array, "d b _ c"]],
    objects: Objects,
    *,
    num_points: int,
    group: int | None,
    mesh: Mesh | None = None,
    **points: Float[Array, "..."],
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Cross entropy and dice of objects that need no matching, and of the background (spec: tarvis 6.5), `[d]` each.

    Means over all maps of the group; an empty row has none.

    Args:
      features: `[b, t, h4, w4, c]`.
      object_logits: `(features, embeds of a set) -> [b, 1 + n, t, h4, w4]`, the background first.
      embeds: pytree of `[d, b, q, c]`.
      mesh: that the batch is sharded over, or None.
      points: `base` `[b, m, 2]` and `shifts` `[d, b, 1 + n, t, 2]`, see `sampling.Draw`; or `points`
        `[d, b, 1 + n, t, p, 2]` to use instead of choosing.
    """
    n = objects.valid.shape[1]
    there = jnp.pad(objects.valid, ((0, 0), (1, 0)), constant_values=True)

    def own(features, embeds, objects, there, base, points):
        rows = jnp.broadcast_to(jnp.arange(-1, n, dtype=jnp.int32), there.shape)

        @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(mask_losses.POINTS))
        def one_set(features, embeds, points):
            logits = object_logits(features, embeds)
            random = (base, points["shifts"]) if "shifts" in points else None
            given = points.get("points")
            per_row = mask_losses.row_losses(logits, rows, objects, num_points, random=random, points=given)
            return jnp.sum(jnp.where(there, per_row, 0), axis=-1)

        return jax.lax.scan(lambda _, x: (None, one_set(features, *x)), None, (embeds, points))[1]  # [d, 2, b]

    base = points.pop("base", None)
    sums = per_sample(own, mesh, (0, 1, 0, 0, 0, 1), 2)(features, embeds, objects, there, base, points)
    count = jnp.broadcast_to(jnp.sum(there, axis=1, dtype=jnp.float32), sums[:, 0].shape)
    return group_mean(sums[:, 0], count, group), group_mean(sums[:, 1], count, group)


def semantic_terms(
    features: Float[Array, "b t h4 w4 c"],
    branch: Semantic,
    *,
    num_points: int,
    ignore_null_classes: bool,
    group: int | None,
    mesh: Mesh | None = None,
    **points: Float[Array, "..."],
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """(Weighted) mean cross entropy over labelled points and mean norm of the logits over all points, `[d]` each.

    Args:
      features: `[b, t, h4, w4, c]`.
      mesh: that the batch is sharded over, or None; a group lies on one device when null classes are ignored.
      points: `base` `[b, m, 2]` and `shifts` `[d, b, t, 2]`, see `sampling.Draw`; or `points` `[d, b, t, p, 2]` to use
        instead of choosing.
    """

    def own(features, branch, truth, base, points):
        labels, weights = truth

        def one_set(x):
            (embeds, background), points = x
            return semantic_losses.set_sums(
                features,
                embeds,
                background,
                labels,
                num_points=num_points,
                ignore_null_classes=ignore_null_classes,
                group=group or features.shape[0],
                weights=weights,
                base=base,
                **points,
            )

        return jax.lax.scan(lambda _, x: (None, one_set(x)), None, (branch, points))[1]

    base = points.pop("base", None)
    run = per_sample(own, mesh, (0, 1, 0, 0, 1), 1)
    sums = run(features, (branch.embeds, branch.background), (branch.labels, branch.weights), base, points)  # [d, b]
    return group_mean(sums.ce, sums.labelled, group), group_mean(sums.norm, sums.points, group)
