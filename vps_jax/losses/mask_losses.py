"""Losses of binary masks at sampled points, and the labels they compare with (spec: tarvis 6.2)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vps_jax.ops import sampling
from vps_jax.shapes import Bool, Float, Integer
from vps_jax.types import Array, Targets

POINTS = "points"  # checkpoint name of chosen points: small, and dear to choose again for the gradient


class Objects(NamedTuple):
    """The objects of a batch as one id map and a padded table.

    Attributes:
      ids: int32 `[b, t, h, w]`; 0 no object, `1 + i` row `i`.
      labels: int32 `[b, n]`; place of the object's class along the class logits; any value in an empty row.
      valid: bool `[b, n]`; rows that hold an object, anywhere in the table.
      overlaps: bool `[b, v, n]` or None. For masks that overlap: pixels of id `j` belong to every row with
        `overlaps[:, j]`. None: id `1 + i` belongs to row `i` alone.

    Row -1 is the background: id 0, or the last column of `overlaps`.
    """

    ids: Integer[Array, "b t h w"]
    labels: Integer[Array, "b n"]
    valid: Bool[Array, "b n"]
    overlaps: Bool[Array, "b v n"] | None = None

    @classmethod
    def of_targets(cls, targets: Targets, first_class: int = 0) -> "Objects":
        """The instances of targets; `first_class` is the place of class 0 along the class logits."""
        classes = targets.instance_classes
        return cls(targets.instance_ids, classes + first_class, classes >= 0, targets.overlaps)

    def covers(self, ids: Integer[Array, "b ..."], rows: Integer[Array, "#b ..."]) -> Bool[Array, "b ..."]:
        """Whether pixels with these ids belong to these rows: `[b, ...]` each, broadcast together -> bool."""
        if self.overlaps is None:
            return ids == rows + 1
        return jax.vmap(lambda table, i, r: table[i, r])(self.overlaps, ids, rows)


def binary_cross_entropy(logits: Float[Array, "*at"], labels: Float[Array, "*at"]) -> Float[Array, "*at"]:
    """Per element, labels soft in 0..1."""
    return jax.nn.softplus(logits) - logits * labels


def dice(logits: Float[Array, "*at p"], labels: Float[Array, "*at p"]) -> Float[Array, "*at"]:
    """`1 - (2 sum s y + 1) / (sum s + sum y + 1)` over the last axis, s = sigmoid."""
    s = jax.nn.sigmoid(logits)
    overlap, area = jnp.sum(s * labels, axis=-1), jnp.sum(s, axis=-1) + jnp.sum(labels, axis=-1)
    return 1 - (2 * overlap + 1) / (area + 1)


def uncertain_points(
    logits: Float[Array, "b r t h w"], base: Float[Array, "b m 2"], shift: Float[Array, "b r t 2"], num_points: int
) -> Float[Array, "b r t p 2"]:
    """Points of every map (spec: tarvis 6.1).

    Args:
      logits: `[b, r, t, h, w]`.
      base, shift: `[b, m, 2]` and `[b, r, t, 2]`, see `sampling.Draw`.

    Returns:
      `[b, r, t, p, 2]`.
    """
    drawn, fresh = sampling.candidates(base, shift, num_points)
    values = sampling.bilinear(logits[..., None], drawn)[..., 0]
    return sampling.most_uncertain(sampling.binary_uncertainty(values), drawn, fresh)


def labels_at(
    objects: Objects, rows: Integer[Array, "b r"], points: Float[Array, "b r t p 2"]
) -> Float[Array, "b r t p"]:
    """Soft labels of rows at points of their own: rows `[b, r]`, points `[b, r, t, p, 2]` -> `[b, r, t, p]`."""
    b, r, t, p, _ = points.shape
    of_frames = jnp.swapaxes(points, 1, 2).reshape(b, t, r * p, 2)  # all rows look at the same maps
    around, weight = (a.reshape(4, b, t, r, p) for a in sampling.corner_ids(objects.ids, of_frames))
    rows = rows[:, None, :, None]
    labels = sum(jnp.where(objects.covers(i, rows), w, 0) for i, w in zip(around, weight, strict=True))
    return jnp.swapaxes(labels, 1, 2)


def row_losses(
    logits: Float[Array, "b r t h4 w4"],
    rows: Integer[Array, "b r"],
    objects: Objects,
    num_points: int,
    *,
    random: tuple[Float[Array, "b m 2"], Float[Array, "b r t 2"]] | None = None,
    points: Float[Array, "b r t p 2"] | None = None,
) -> Float[Array, "2 b r"]:
    """Cross entropy and dice of every row, means over its frames; each (row, frame) is a map with points of its own.

    Args:
      logits: `[b, r, t, h4, w4]`.
      rows: int32 `[b, r]`, row of the table of objects that each should show.
      num_points: points per map.
      random: base `[b, m, 2]` and shifts `[b, r, t, 2]` of `sampling.Draw`, to choose points from; or
      points: `[b, r, t, p, 2]`.

    Returns:
      `[2, b, r]`.
    """
    if points is None:
        points = uncertain_points(jax.lax.stop_gradient(logits), *random, num_points)
        points = checkpoint_name(points, POINTS)
    values = sampling.bilinear(logits[..., None], points)[..., 0]  # [b, r, t, p]
    labels = labels_at(objects, rows, points)
    per_map = jnp.stack([jnp.mean(binary_cross_entropy(values, labels), axis=-1), dice(values, labels)])
    return jnp.mean(per_map, axis=-1)
