"""Relative-position bias of BEiT: from a table of distances to a bias per pair of tokens (spec: vit_adapter 3)."""

import jax.numpy as jnp
import numpy as np

from vps_jax.shapes import Float, Int64
from vps_jax.types import Array


def beit_index(grid: tuple[int, int]) -> Int64[np.ndarray, "n n"]:
    """Row of the table for every (query, key), class token first: the published `relative_position_index`.

    Args:
      grid: patches `(h, w)`.

    Returns:
      int64 `[1 + h w, 1 + h w]`. The last three rows of the table belong to the class token: query, key, itself.
    """
    h, w = grid
    rows = (2 * h - 1) * (2 * w - 1) + 3
    y, x = np.divmod(np.arange(h * w), w)
    index = np.empty((h * w + 1, h * w + 1), np.int64)
    index[1:, 1:] = (y[:, None] - y + h - 1) * (2 * w - 1) + (x[:, None] - x + w - 1)
    index[0, :] = rows - 3
    index[:, 0] = rows - 2
    index[0, 0] = rows - 1
    return index


def beit_bias(table: Float[Array, "rows m"], grid: tuple[int, int]) -> Float[Array, "m n n"]:
    """`table[beit_index(grid)]` with heads first, made of shifted slices.

    A lookup of every pair would scatter-add its gradient (at 640 x 640, 41 million additions on 100 thousand cells per
    block, which GPUs do one after another); slices sum theirs.

    Args:
      table: `[(2h - 1)(2w - 1) + 3, m]`.
      grid: patches `(h, w)`, both at least 2.

    Returns:
      `[m, 1 + h w, 1 + h w]`, query then key.
    """
    h, w = grid
    m = table.shape[-1]
    distances = table[:-3].T.reshape(m, 2 * h - 1, 2 * w - 1)
    bias = _pairs(_pairs(distances, axis=1), axis=3)  # [m, y, y', x, x'], query plain and key primed
    bias = bias.transpose(0, 1, 3, 2, 4).reshape(m, h * w, h * w)
    row, column, corner = (jnp.broadcast_to(t[:, None, None], (m, 1, 1)) for t in table[-3:])
    top = jnp.concatenate([corner, jnp.broadcast_to(row, (m, 1, h * w))], axis=2)
    left = jnp.broadcast_to(column, (m, h * w, 1))
    return jnp.concatenate([top, jnp.concatenate([left, bias], axis=2)], axis=1)


def _pairs(x, axis: int):
    """Axis of 2n - 1 distances to two axes `[query n, key n]`, entry `[i, j]` = distance i - j + n - 1.

    The reversed line, repeated n times and read with a row length one shorter, moves by one place per row.
    """
    length = x.shape[axis]
    n = (length + 1) // 2
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    lines = jnp.broadcast_to(jnp.flip(x, axis).reshape(*before, 1, length, *after), (*before, n, length, *after))
    flat = lines.reshape(*before, n * length, *after)
    skip = (slice(None),) * axis
    flat = flat[(*skip, slice(n - 1, n - 1 + n * (length - 1)))]
    return flat.reshape(*before, n, length - 1, *after)[(*skip, slice(None), slice(n))]
