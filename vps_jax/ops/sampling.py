"""Sampling maps at points, and choosing the points where a prediction is least certain.

A point is (x, y) in [0, 1) of its map, so one set of points serves maps of any size. Pixel coordinate = u * size - 0.5,
and outside the map is zero, as torch's grid-sample with align_corners off (spec: tarvis, framework traps).
All functions broadcast over the leading axes `...` of maps and points, which must be equal.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vps_jax.ops import target
from vps_jax.ops.selection import largest
from vps_jax.shapes import Float, Int32, Integer, Shaped
from vps_jax.types import Array

OVERSAMPLE = 3  # candidates per kept point (spec: tarvis 6.1)
UNCERTAIN_SHARE = 0.75  # of the kept points, chosen by uncertainty; the rest is uniform


def corners(
    points: Float[Array, "*lead p 2"], height: int, width: int
) -> tuple[Int32[Array, "4 *lead p"], Float[Array, "4 *lead p"]]:
    """The four pixels around each point and their bilinear weights.

    Args:
      points: `[..., p, 2]`, (x, y) in 0..1.

    Returns:
      index: int32 `[4, ..., p]` into the row-major flattened map, always inside it.
      weight: `[4, ..., p]`, 0 for a pixel outside the map.
    """
    x = points[..., 0] * width - 0.5
    y = points[..., 1] * height - 0.5
    x0, y0 = jnp.floor(x), jnp.floor(y)
    index, weight = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            cx, cy = x0 + dx, y0 + dy
            inside = (cx >= 0) & (cx < width) & (cy >= 0) & (cy < height)
            near = (1 - jnp.abs(x - cx)) * (1 - jnp.abs(y - cy))
            weight.append(jnp.where(inside, near, 0))
            cell = jnp.clip(cy, 0, height - 1) * width + jnp.clip(cx, 0, width - 1)
            index.append(cell.astype(jnp.int32))
    return jnp.stack(index), jnp.stack(weight)


def take_pixels(maps: Shaped[Array, "*lead s c"], index: Int32[Array, "*lead p"]) -> Shaped[Array, "*lead p c"]:
    """Pixels of flattened maps: maps `[..., h * w, c]`, index `[..., p]` -> `[..., p, c]`."""

    def take(flat, i):
        return flat.at[i].get(mode="promise_in_bounds")

    for _ in range(index.ndim - 1):
        take = jax.vmap(take)
    return take(maps, index)


def add_pixels(
    maps: Shaped[Array, "*lead s c"], index: Int32[Array, "*lead p"], values: Shaped[Array, "*lead p c"]
) -> Shaped[Array, "*lead s c"]:
    """The transpose of `take_pixels`: maps `[..., h * w, c]`, index `[..., p]`, values `[..., p, c]` -> new maps."""

    def add(flat, i, v):
        return flat.at[i].add(v, mode="promise_in_bounds")

    for _ in range(index.ndim - 1):
        add = jax.vmap(add)
    return add(maps, index, values)


@jax.custom_vjp
def bilinear(maps: Float[Array, "*lead h w c"], points: Float[Array, "*lead p 2"]) -> Float[Array, "*lead p c"]:
    """Bilinear values, zero outside. Points get no gradient.

    Args:
      maps: `[..., h, w, c]`.
      points: `[..., p, 2]`.

    Returns:
      `[..., p, c]`.
    """
    height, width, channels = maps.shape[-3:]
    index, weight = corners(points, height, width)
    flat = maps.reshape(*maps.shape[:-3], height * width, channels)
    # one corner at a time: the four gathered copies never exist together
    return sum(take_pixels(flat, i) * w[..., None].astype(maps.dtype) for i, w in zip(index, weight, strict=True))


def _bilinear_forward(maps, points):
    return bilinear(maps, points), (points, maps[..., :0])  # no channel: the shape and type alone


def _bilinear_backward(saved, slope):
    """Add each point's slope to its corners, one corner at a time so that no four copies exist."""
    points, like = saved
    height, width = like.shape[-3:-1]
    index, weight = corners(points, height, width)

    def add_corner(total, corner):
        i, w = corner
        return add_pixels(total, i, slope * w[..., None].astype(slope.dtype)), None

    zero = jnp.zeros((*like.shape[:-3], height * width, slope.shape[-1]), slope.dtype)
    total, _ = jax.lax.scan(add_corner, zero, (index, weight))
    return total.reshape(*like.shape[:-1], slope.shape[-1]), None


bilinear.defvjp(_bilinear_forward, _bilinear_backward)


def corner_ids(
    ids: Integer[Array, "*lead h w"], points: Float[Array, "*lead p 2"]
) -> tuple[Integer[Array, "4 *lead p"], Float[Array, "4 *lead p"]]:
    """What an id map says around each point: the raw material of soft labels, without one map per id.

    Args:
      ids: integer `[..., h, w]`.
      points: `[..., p, 2]`.

    Returns:
      ids `[4, ..., p]` and bilinear weights `[4, ..., p]`; a corner outside the map has weight 0.
    """
    height, width = ids.shape[-2:]
    index, weight = corners(points, height, width)
    flat = ids.reshape(*ids.shape[:-2], height * width, 1)
    return jnp.stack([take_pixels(flat, i)[..., 0] for i in index]), weight


def nearest(maps: Shaped[Array, "*lead h w"], points: Float[Array, "*lead p 2"]) -> Shaped[Array, "*lead p"]:
    """The nearest pixel, halves to the even coordinate: maps `[..., h, w]`, points `[..., p, 2]` -> `[..., p]`."""
    height, width = maps.shape[-2:]
    x = jnp.clip(jnp.round(points[..., 0] * width - 0.5), 0, width - 1)
    y = jnp.clip(jnp.round(points[..., 1] * height - 0.5), 0, height - 1)
    flat = maps.reshape(*maps.shape[:-2], height * width, 1)
    return take_pixels(flat, (y * width + x).astype(jnp.int32))[..., 0]


class Draw(NamedTuple):
    """Random points of many maps from one draw: each map shifts the base by an offset of its own, modulo 1.

    A map's points are uniform and independent of each other, as if drawn for it alone. Making them costs two additions
    where a random number generator would cost more than the loss, in compilation as in each step.

    Attributes:
      base: `[b, m, 2]`.
      shifts: per use `[d, b, ..., 2]`, an offset for every map of every set.
    """

    base: Float[Array, "b m 2"]
    shifts: tuple[Float[Array, "d b *maps 2"], ...]


def draw(key: jax.Array, batch: int, sets: int, num_points: int, maps: tuple[tuple[int, ...], ...]) -> Draw:
    """Draw per sample, by its number, so that nothing depends on how samples lie on devices.

    Args:
      num_points: points that the largest use keeps in a map.
      maps: for every use, the shape of a sample's maps in one set.
    """
    count = num_candidates(num_points)
    sizes = [sets * math.prod(shape) for shape in maps]
    numbers = jax.vmap(lambda k: jax.random.uniform(k, (count + sum(sizes), 2)))(jax.random.split(key, batch))
    parts = jnp.split(numbers, [count + sum(sizes[:i]) for i in range(len(sizes))], axis=1)
    shifts = (part.reshape(batch, sets, *shape, 2) for part, shape in zip(parts[1:], maps, strict=True))
    return Draw(parts[0], tuple(jnp.swapaxes(shift, 0, 1) for shift in shifts))


def num_fresh(num_points: int) -> int:
    """How many of the kept points are uniform, not chosen."""
    return num_points - int(UNCERTAIN_SHARE * num_points)


def num_candidates(num_points: int) -> int:
    """How many points are drawn to keep `num_points`."""
    return OVERSAMPLE * num_points + num_fresh(num_points)


def candidates(
    base: Float[Array, "b m 2"], shift: Float[Array, "b *maps 2"], num_points: int
) -> tuple[Float[Array, "b *maps k 2"], Float[Array, "b *maps n 2"]]:
    """Points of each map: `[b, ..., 3 p, 2]` to choose from and `[b, ..., p - int(.75 p), 2]` that are kept anyway.

    Args:
      base: `[b, m, 2]` with m at least `num_candidates`.
      shift: `[b, ..., 2]`.
    """
    base = base[:, : num_candidates(num_points)]
    points = base.reshape(base.shape[0], *[1] * (shift.ndim - 2), -1, 2) + shift[..., None, :]
    points = points - jnp.floor(points)
    fresh = num_fresh(num_points)
    return points[..., fresh:, :], points[..., :fresh, :]


def most_uncertain(
    uncertainty: Float[Array, "*lead k"], points: Float[Array, "*lead k 2"], fresh: Float[Array, "*lead n 2"]
) -> Float[Array, "*lead p 2"]:
    """Keep the most uncertain candidates and append the fresh ones (spec: tarvis 6.1).

    Args:
      uncertainty: `[..., 3 p]`, larger is less certain.
      points: candidates `[..., 3 p, 2]`.
      fresh: `[..., p - int(.75 p), 2]`.

    Returns:
      `[..., p, 2]`, the fresh ones last; on a CPU in the order of the candidates, elsewhere by falling uncertainty. No
      gradient passes.
    """
    # fresh is p - int(.75 p) and the candidates are 3 p
    keep = points.shape[-2] // OVERSAMPLE - fresh.shape[-2]
    uncertainty = jax.lax.stop_gradient(uncertainty)
    index = largest(uncertainty, keep) if target.backend() == "cpu" else jax.lax.top_k(uncertainty, keep)[1]
    return jnp.concatenate([jnp.take_along_axis(points, index[..., None], axis=-2), fresh], axis=-2)


def binary_uncertainty(logits: Float[Array, "*at"]) -> Float[Array, "*at"]:
    """`-|logit|`: 0 on the mask's edge."""
    return -jnp.abs(logits)


def class_uncertainty(logits: Float[Array, "*at k"]) -> Float[Array, "*at"]:
    """Second largest minus largest logit along the last axis: 0 where two classes are equal. `[..., k]` -> `[...]`."""
    best = jnp.max(logits, axis=-1, keepdims=True)
    second = jnp.max(jnp.where(logits < best, logits, -jnp.inf), axis=-1)
    tied = jnp.sum(logits == best, axis=-1) > 1  # plain reductions: an argmax is four times slower on a CPU
    return jnp.where(tied, 0.0, second - best[..., 0])
