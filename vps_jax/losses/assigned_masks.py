"""Losses of the matched masks of all prediction sets, with their gradient from the same pass (spec: tarvis 6.2).

The loss is linear in the sums of each object, with weights known beforehand, so the gradient can be made right where a
chunk of objects has its logits: they are made once and its points are chosen once. The loop runs over as many chunks as
the sample with the most objects needs, not over the padded table.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vps_jax.losses.mask_losses import Objects, row_losses
from vps_jax.ops.masks import mask_logits
from vps_jax.shapes import Float, Int32
from vps_jax.types import Array

ROWS_AT_A_TIME = 8  # objects whose logits exist together


class _Rows(NamedTuple):
    """Objects in chunks of `r`, those with a query first; one more leading `d` for all sets.

    Attributes:
      matched: bool `[chunks, b, r]`.
      rows: int32 `[chunks, b, r]`, the object's row of the table.
      shifts: `[chunks, b, r, t, 2]`, see `sampling.Draw`, or None.
      points: `[chunks, b, r, t, p, 2]`, or None to choose.
    """

    matched: jax.Array
    rows: jax.Array
    shifts: jax.Array | None
    points: jax.Array | None


class _Fixed(NamedTuple):
    """What all chunks of all sets share: their number, `scale` `[2]`, the objects, `base` `[b, m, 2]` or None."""

    chunks: jax.Array
    scale: jax.Array
    objects: Objects
    base: jax.Array | None


def matched_loss(
    features: Float[Array, "b t h4 w4 c"],
    embeds: Float[Array, "d b q c"],
    columns: Int32[Array, "d b n"],
    objects: Objects,
    scale: Float[Array, "2"],
    num_points: int,
    *,
    base: Float[Array, "b m 2"] | None = None,
    shifts: Float[Array, "d b n t 2"] | None = None,
    points: Float[Array, "d b n t p 2"] | None = None,
) -> tuple[Float[Array, " b"], Float[Array, "d 2 b"]]:
    """Cross entropy and dice of the matched masks of all sets.

    Every (object, frame) is a map with points of its own; a frame without the object counts, its labels are zero.

    Args:
      features: `[b, t, h4, w4, c]`.
      embeds: `[d, b, q, c]`.
      columns: int32 `[d, b, n]`, query of each object, -1 for none.
      scale: `[2]`, weight of an object's cross entropy and dice in the loss.
      num_points: points per map.
      base, shifts: `[b, m, 2]` and `[d, b, n, t, 2]`, random numbers to choose the points from, see `sampling.Draw`.
      points: `[d, b, n, t, p, 2]` to use instead of choosing.

    Returns:
      loss: `[b]`, scale times the sums, over all sets.
      sums: `[d, 2, b]`, cross entropy and dice, means over points and frames and sums over objects; no gradient.
    """
    d, b, n = columns.shape
    chunks = -(-n // ROWS_AT_A_TIME)
    order = jnp.argsort(columns < 0, axis=2, stable=True)

    def spread(a):  # [d, b, n, ...] -> [d, chunks, b, r, ...]
        a = jnp.take_along_axis(a, order.reshape(d, b, n, *[1] * (a.ndim - 3)), axis=2)
        a = jnp.pad(a, ((0, 0), (0, 0), (0, chunks * ROWS_AT_A_TIME - n), *[(0, 0)] * (a.ndim - 3)))
        return jnp.moveaxis(a.reshape(d, b, chunks, ROWS_AT_A_TIME, *a.shape[3:]), 2, 1)

    chosen = jnp.take_along_axis(embeds, jnp.maximum(columns, 0)[..., None], axis=2)  # [d, b, n, c]
    most = jnp.max(jnp.sum(columns >= 0, axis=2))
    rows = _Rows(
        matched=spread(columns >= 0),
        rows=spread(jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (d, b, n))),
        shifts=None if shifts is None else spread(shifts),
        points=None if points is None else spread(points),
    )
    loss, sums = _loss(
        num_points, features, spread(chosen), rows, _Fixed(-(-most // ROWS_AT_A_TIME), scale, objects, base)
    )
    return loss, jax.lax.stop_gradient(sums)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(num_points, features, embeds, rows: _Rows, fixed: _Fixed):
    """Loss `[b]` and sums, embeds `[d, chunks, b, r, c]`; the gradient is of the loss alone."""

    def one_set(_, x):
        def add(i, total):
            return total + _chunk_sums(num_points, features, *_chunk(x, i), fixed)

        zero = jnp.zeros((2, features.shape[0]), jnp.float32)
        return None, jax.lax.fori_loop(0, fixed.chunks, add, zero)

    _, sums = jax.lax.scan(one_set, None, (embeds, rows))
    return jnp.einsum("dib,i->b", sums, fixed.scale), sums


def _loss_and_gradient(num_points, features, embeds, rows: _Rows, fixed: _Fixed):
    slope = jnp.broadcast_to(fixed.scale[:, None], (2, features.shape[0]))

    def one_set(of_features, x):
        def add(i, state):
            total, of_features, of_embeds = state
            embeds, rows = _chunk(x, i)
            sums, pull = jax.vjp(lambda f, e: _chunk_sums(num_points, f, e, rows, fixed), features, embeds)
            more_features, more_embeds = pull(slope)
            return total + sums, of_features + more_features, of_embeds.at[i].set(more_embeds)

        start = jnp.zeros_like(slope), of_features, jnp.zeros_like(x[0])
        sums, of_features, of_embeds = jax.lax.fori_loop(0, fixed.chunks, add, start)
        return of_features, (sums, of_embeds)

    of_features, (sums, of_embeds) = jax.lax.scan(one_set, jnp.zeros_like(features), (embeds, rows))
    return (jnp.einsum("dib,i->b", sums, fixed.scale), sums), (of_features, of_embeds)


def _scale_gradient(num_points, gradient, slopes):
    of_features, of_embeds = gradient  # of a sample: of its own loss
    slope = slopes[0]
    return of_features * slope[:, None, None, None, None], of_embeds * slope[:, None, None], None, None


_loss.defvjp(_loss_and_gradient, _scale_gradient)


def _chunk(set_of_chunks, i):
    return jax.tree.map(lambda a: a[i], set_of_chunks)


def _chunk_sums(num_points, features, embeds, rows: _Rows, fixed: _Fixed):
    """`[2, b]`: cross entropy and dice of one chunk, embeds `[b, r, c]`."""
    logits = jnp.moveaxis(mask_logits(features, embeds), -1, 1)  # [b, r, t, h4, w4]
    random = None if rows.shifts is None else (fixed.base, rows.shifts)
    per_row = row_losses(logits, rows.rows, fixed.objects, num_points, random=random, points=rows.points)
    return jnp.sum(jnp.where(rows.matched, per_row, 0), axis=-1)
