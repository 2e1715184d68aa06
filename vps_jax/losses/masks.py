"""Losses of binary masks at sampled points, and the labels they compare with (spec: tarvis 6.2)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vps_jax.ops import masks as mask_ops
from vps_jax.ops import sampling

ROWS_AT_A_TIME = 8  # objects whose logits exist together


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

    ids: jax.Array
    labels: jax.Array
    valid: jax.Array
    overlaps: jax.Array | None = None

    def covers(self, ids, rows):
        """Whether pixels with these ids belong to these rows: `[b, ...]` each, broadcast together -> bool."""
        if self.overlaps is None:
            return ids == rows + 1
        return jax.vmap(lambda table, i, r: table[i, r])(self.overlaps, ids, rows)


def binary_cross_entropy(logits, labels):
    """Per element, labels soft in 0..1."""
    return jax.nn.softplus(logits) - logits * labels


def dice(logits, labels):
    """`1 - (2 sum s y + 1) / (sum s + sum y + 1)` over the last axis, s = sigmoid."""
    s = jax.nn.sigmoid(logits)
    overlap, area = jnp.sum(s * labels, axis=-1), jnp.sum(s, axis=-1) + jnp.sum(labels, axis=-1)
    return 1 - (2 * overlap + 1) / (area + 1)


def uncertain_points(logits, base, shift, num_points: int):
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


def labels_at(objects: Objects, rows, points):
    """Soft labels of rows at points of their own: rows `[b, r]`, points `[b, r, t, p, 2]` -> `[b, r, t, p]`."""
    ids = jnp.broadcast_to(objects.ids[:, None], (*points.shape[:3], *objects.ids.shape[-2:]))
    around, weight = sampling.corner_ids(ids, points)  # [4, b, r, t, p]
    rows = rows[:, :, None, None]
    return sum(jnp.where(objects.covers(i, rows), w, 0) for i, w in zip(around, weight, strict=True))


def row_losses(logits, rows, objects: Objects, num_points: int, *, random=None, points=None):
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
    values = sampling.bilinear(logits[..., None], points)[..., 0]  # [b, r, t, p]
    labels = labels_at(objects, rows, points)
    per_map = jnp.stack([jnp.mean(binary_cross_entropy(values, labels), axis=-1), dice(values, labels)])
    return jnp.mean(per_map, axis=-1)


class _Chunks(NamedTuple):
    """What stays fixed in the loop over chunks of `r` objects.

    Attributes:
      count: chunks with an object; the others are never looked at.
      matched, rows: `[chunks, b, r]`, whether a query is matched, and the object's row.
      points: `[chunks, b, r, t, p, 2]`, or None to choose from the next two.
      base, shifts: `[b, m, 2]` and `[chunks, b, r, t, 2]`, see `sampling.Draw`; or None.
      objects: of the batch.
    """

    count: jax.Array
    matched: jax.Array
    rows: jax.Array
    points: jax.Array | None
    base: jax.Array | None
    shifts: jax.Array | None
    objects: Objects


def matched_sums(features, embeds, columns, objects: Objects, num_points: int, *, base=None, shifts=None, points=None):
    """Cross entropy and dice of the matched masks of one prediction set.

    Every (object, frame) is a map with points of its own; a frame without the object counts, its labels are zero
    (spec: tarvis 6.2). Time follows the sample with the most objects, memory a chunk of them.

    Args:
      features: `[b, t, h4, w4, c]`.
      embeds: `[b, q, c]`.
      columns: int32 `[b, n]`, query of each object, -1 for none.
      num_points: points per map.
      base, shifts: `[b, m, 2]` and `[b, n, t, 2]`, random numbers to choose the points from, see `sampling.Draw`.
      points: `[b, n, t, p, 2]` to use instead of choosing.

    Returns:
      cross entropy, dice: `[b]` each; means over points and frames, sums over objects.
    """
    b, n = columns.shape
    chunks = -(-n // ROWS_AT_A_TIME)
    # matched rows first, so that the chunks behind them are empty
    order = jnp.argsort(columns < 0, axis=1, stable=True)

    def spread(a):  # [b, n, ...] -> [chunks, b, r, ...]
        a = jnp.take_along_axis(a, order.reshape(b, n, *[1] * (a.ndim - 2)), axis=1)
        a = jnp.pad(a, ((0, 0), (0, chunks * ROWS_AT_A_TIME - n), *[(0, 0)] * (a.ndim - 2)))
        return jnp.moveaxis(a.reshape(b, chunks, ROWS_AT_A_TIME, *a.shape[2:]), 1, 0)

    chosen = jnp.take_along_axis(embeds, jnp.maximum(columns, 0)[..., None], axis=1)  # [b, n, c]
    most = jnp.max(jnp.sum(columns >= 0, axis=1))
    fixed = _Chunks(
        count=-(-most // ROWS_AT_A_TIME),
        matched=spread(columns >= 0),
        rows=spread(jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (b, n))),
        points=None if points is None else spread(points),
        base=base,
        shifts=None if shifts is None else spread(shifts),
        objects=objects,
    )
    total = _sum_chunks(num_points, features, spread(chosen), fixed)
    return total[0], total[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_chunks(num_points, features, embeds, fixed: _Chunks):
    """`[2, b]`, embeds `[chunks, b, r, c]`. The gradient is written out because the loop's length is not static."""

    def add(i, total):
        return total + _chunk_sums(num_points, features, embeds[i], fixed, i)

    return jax.lax.fori_loop(0, fixed.count, add, jnp.zeros((2, features.shape[0]), jnp.float32))


def _sum_chunks_forward(num_points, features, embeds, fixed):
    return _sum_chunks(num_points, features, embeds, fixed), (features, embeds, fixed)


def _sum_chunks_backward(num_points, saved, slope):
    features, embeds, fixed = saved

    def add(i, grads):
        of_features, of_embeds = grads
        one_chunk = functools.partial(_chunk_sums, num_points)
        _, pull = jax.vjp(lambda f, e: one_chunk(f, e, fixed, i), features, embeds[i])
        more_features, more_embeds = pull(slope)
        return of_features + more_features, of_embeds.at[i].set(more_embeds)

    grads = jax.lax.fori_loop(0, fixed.count, add, (jnp.zeros_like(features), jnp.zeros_like(embeds)))
    return *grads, None


_sum_chunks.defvjp(_sum_chunks_forward, _sum_chunks_backward)


def _chunk_sums(num_points, features, embeds, fixed: _Chunks, i):
    """`[2, b]`: cross entropy and dice of chunk `i`, embeds `[b, r, c]`."""
    logits = jnp.moveaxis(mask_ops.mask_logits(features, embeds), -1, 1)  # [b, r, t, h4, w4]
    random = None if fixed.points is not None else (fixed.base, fixed.shifts[i])
    points = fixed.points[i] if random is None else None
    per_row = row_losses(logits, fixed.rows[i], fixed.objects, num_points, random=random, points=points)
    return jnp.sum(jnp.where(fixed.matched[i], per_row, 0), axis=-1)
