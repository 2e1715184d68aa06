"""Masks as products of features and queries, and label maps as tables over ids."""

import jax
import jax.numpy as jnp

from vps_jax.shapes import Bool, Float, Integer, Shaped
from vps_jax.types import Array


def mask_logits(features: Float[Array, "b *at c"], embeds: Float[Array, "b q c"]) -> Float[Array, "b *at q"]:
    """`<features, embeds>` in float32: features `[b, ..., c]`, embeds `[b, q, c]` -> `[b, ..., q]`."""
    return jnp.einsum("b...c,bqc->b...q", features, embeds, preferred_element_type=jnp.float32)


def look_up(ids: Integer[Array, " b *at"], table: Shaped[Array, "b v"], outside: int) -> Shaped[Array, " b *at"]:
    """Replace every id by its row of the sample's table.

    Args:
      ids: integer `[b, ...]`.
      table: `[b, v]`.
      outside: value of an id that the table does not have.

    Returns:
      `[b, ...]` of the table's type.
    """
    ids = ids.astype(jnp.int32)
    ids = jnp.where(ids < 0, table.shape[1], ids)  # a negative index would count from the end
    return jax.vmap(lambda t, i: t.at[i].get(mode="fill", fill_value=outside))(table, ids)


def ids_present(ids: Integer[Array, " b *at"], count: int) -> Bool[Array, "b {count}"]:
    """Which of the ids 1..count have a pixel: ids `[b, ...]` -> bool `[b, count]`."""
    ids = jnp.clip(ids.reshape(ids.shape[0], -1).astype(jnp.int32), 0, count + 1)  # 0 and count + 1 take the others
    return jax.vmap(lambda i: jnp.zeros(count + 2, bool).at[i].set(True))(ids)[:, 1:-1]


def quarter(flags: Bool[Array, "*lead h w"]) -> Bool[Array, "*lead h4 w4"]:
    """Shrink a bool map by four: on where more than half of the centre 2x2 of each 4x4 block is on.

    `[..., h, w]` -> `[..., h4, w4]`; the published bilinear resize of the ignore map, cut at 0.5 (spec: tarvis 6.3).
    """
    count = sum(flags[..., i::4, j::4].astype(jnp.int32) for i in (1, 2) for j in (1, 2))
    return count > 2


def inmost_point(mask: Bool[Array, "h w"]) -> Float[Array, "2"]:
    """The pixel of a mask farthest from its edge, as (y, x) in 0..1; pixels outside of the image are no edge.

    Ties go to the pixel with the smallest |dx| + |dy| to the centroid (spec: tarvis 4.4). An empty mask gives (0, 0).

    Args:
      mask: bool `[h, w]`.
    """
    height, width = mask.shape
    depth = jnp.where(mask, squared_distance(mask), -1)
    y, x = jnp.mgrid[:height, :width]
    count = jnp.maximum(jnp.sum(mask), 1)
    off_center = jnp.abs(y - jnp.sum(y * mask) / count) + jnp.abs(x - jnp.sum(x * mask) / count)
    best = jnp.argmin(jnp.where(depth == jnp.max(depth), off_center, jnp.inf))
    point = (jnp.stack([best // width, best % width]) + 0.5) / jnp.array([height, width])
    return jnp.where(jnp.any(mask), point, 0.0)


def squared_distance(mask: Bool[Array, "h w"]) -> Integer[Array, "h w"]:
    """Exact squared distance of every pixel to the nearest one off the mask: bool `[h, w]` -> `[h, w]`."""
    height, width = mask.shape
    far = height + width
    steps = jnp.where(mask, far, 0)
    # nearest in the column: a running minimum of distance + position from both ends
    place = jnp.arange(height)[:, None]
    down = jax.lax.cummin(steps - place, axis=0) + place
    up = jax.lax.cummin(steps + place, axis=0, reverse=True) - place
    column = jnp.minimum(jnp.minimum(down, up), far) ** 2  # [h, w]
    across = (jnp.arange(width)[:, None] - jnp.arange(width)) ** 2  # [w, w']
    return jax.lax.map(lambda row: jnp.min(row[None] + across, axis=1), column)
