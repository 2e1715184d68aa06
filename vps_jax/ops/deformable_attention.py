"""Multi-scale deformable attention: bilinear samples of several maps, weighted and summed (spec: tarvis 3.3).

Plain autodiff through the gathers keeps 27 times the bytes of the inputs. Here the backward pass is written out and
keeps the three inputs alone (spec: performance 2). Both passes walk over groups of heads, and inside over the sampled
points, four corners at a time: the gathered rows of one step stay in the cache, and nothing the size of all samples x
channels exists. The loop boundaries also keep the compiler from recomputing positions for every channel.

With x = width * u - 1/2 and corner weights w = gx * gy (gx, gy linear in x, y; zero outside of the map), v the pixel,
a the sample's weight and g the gradient of the output:
  dv += a w g,   da = sum w <v, g>,   du_x = width * a * sum (+-1) gy <v, g>,   du_y likewise.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.ops import target
from vps_jax.ops.levels import Shapes
from vps_jax.shapes import Float, Float32
from vps_jax.types import Array

CACHE_BYTES = 2**22


def cell_centres(shapes: Shapes) -> Float32[np.ndarray, "s 2"]:
    """Centres of all cells, row-major, level after level: reference points xy in 0..1, float32 `[s, 2]`."""
    grids = []
    for height, width in shapes:
        y, x = np.mgrid[:height, :width]
        grids.append(np.stack([(x + 0.5) / width, (y + 0.5) / height], axis=-1).reshape(-1, 2))
    return np.concatenate(grids).astype(np.float32)


def deformable_attention(
    value: Float[Array, "b s m c"],
    locations: Float[Array, "b q m l p 2"],
    weights: Float[Array, "b q m l p"],
    *,
    shapes: Shapes,
    chunk: int | None = None,
) -> Float[Array, "b q m c"]:
    """Weighted sum of bilinear samples, zero outside of a map; reverse-mode differentiable.

    Args:
      value: `[b, s, m, c]`, the levels' maps flattened row-major, one after the other.
      locations: `[b, q, m, l, p, 2]`, xy; 0..1 spans a map from edge to edge, so a pixel is at `u * width - 0.5`.
      weights: `[b, q, m, l, p]`, usually a softmax over the last two axes.
      shapes: `(height, width)` of each level.
      chunk: heads that are processed at once, a divisor of m; working memory grows with it. None for all of them on a
        GPU, and elsewhere for as many as keep one step's rows in a cache.

    Returns:
      `[b, q, m, c]` in the dtype of `value`. Positions, weights and sums are float32 whatever the inputs' dtypes.

    Raises:
      ValueError: the level shapes do not add up to `s`, or `chunk` does not divide the heads.
    """
    shapes = tuple((int(h), int(w)) for h, w in shapes)
    chunk = chunk or _default_chunk(value.shape, weights.shape)
    if sum(h * w for h, w in shapes) != value.shape[1]:
        raise ValueError(f"level shapes {shapes} do not add up to {value.shape[1]} tokens")
    if value.shape[2] % chunk:
        raise ValueError(f"chunk {chunk} does not divide {value.shape[2]} heads")
    return _attend(value, locations, weights, shapes, chunk)


def _default_chunk(value_shape, weights_shape) -> int:
    heads = value_shape[2]
    if target.backend() != "cpu":
        return heads
    step = 4 * 4 * weights_shape[0] * weights_shape[1] * value_shape[3]  # bytes of the rows at four corners, one head
    return max(d for d in range(1, heads + 1) if heads % d == 0 and (d == 1 or d * step <= CACHE_BYTES))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _attend(value, locations, weights, shapes, chunk):
    def head(v, u, a):
        return (_forward(v, u, a, shapes),)

    out = jax.ShapeDtypeStruct((*weights.shape[:3], value.shape[-1]), value.dtype)  # [b, q, m, c]
    samples = _by_sample(locations, weights)
    return _map_heads(head, (value, *samples), (2, 0, 0), (out,), (2,), chunk)[0]


def _attend_fwd(value, locations, weights, shapes, chunk):
    return _attend(value, locations, weights, shapes, chunk), (value, locations, weights)


def _attend_bwd(shapes, chunk, residuals, gradient):
    def head(v, u, a, g):
        return _backward(v, u, a, g, shapes)

    value, locations, weights = residuals
    samples = _by_sample(locations, weights)
    arrays, like = (value, *samples, gradient), (value, *samples)
    d_value, d_locations, d_weights = _map_heads(head, arrays, (2, 0, 0, 2), like, (2, 0, 0), chunk)
    d_locations = d_locations.transpose(4, 5, 0, 2, 3, 1).astype(locations.dtype)
    return d_value, d_locations, d_weights.transpose(3, 4, 0, 1, 2).astype(weights.dtype)


_attend.defvjp(_attend_fwd, _attend_bwd)


def _by_sample(locations, weights):
    """`[m, 2, l, p, b, q]` and `[m, l, p, b, q]`, float32: arithmetic on positions is fast with queries last."""
    locations, weights = locations.astype(jnp.float32), weights.astype(jnp.float32)
    return locations.transpose(2, 5, 3, 4, 0, 1), weights.transpose(2, 3, 4, 0, 1)


def _map_heads(function, arrays, axes, like, out_axes, chunk: int) -> list[jax.Array]:
    """Apply `function` head by head, `chunk` heads at once; the heads of arrays and results lie along the given axes.

    Only heads are looped over: the batch axis may be sharded over devices, and a loop over it would gather it. Heads
    are cut out of the arrays and written into the results (shaped like `like`) in place: no copy of either exists.
    """
    many = jax.vmap(function, in_axes=axes, out_axes=out_axes) if chunk > 1 else _single(function, axes, out_axes)
    count = arrays[0].shape[axes[0]] // chunk

    def step(i, results):
        cut = [jax.lax.dynamic_slice_in_dim(a, i * chunk, chunk, n) for a, n in zip(arrays, axes, strict=True)]
        done = zip(results, many(*cut), out_axes, strict=True)
        return [jax.lax.dynamic_update_slice_in_dim(r, d.astype(r.dtype), i * chunk, n) for r, d, n in done]

    results = [jnp.zeros(a.shape, a.dtype) for a in like]
    return step(0, results) if count == 1 else jax.lax.fori_loop(0, count, step, results)


def _single(function, axes, out_axes):
    """`jax.vmap` over axes of length one, without them: an axis less in every index of the gathers and scatters."""

    def squeezed(*arrays):
        results = function(*(jax.lax.squeeze(a, [n]) for a, n in zip(arrays, axes, strict=True)))
        return [jnp.expand_dims(r, n) for r, n in zip(results, out_axes, strict=True)]

    return squeezed


class _Corners(NamedTuple):
    """The four pixels around every sample; each array is `[l p, 4, b, q]`.

    Attributes:
      index: int32 position in the flattened maps, clipped to its own map.
      weight: bilinear weight, zero outside of the map.
      slope_x, slope_y: derivative of `weight` by the sample's location (in 0..1 units).
    """

    index: jax.Array
    weight: jax.Array
    slope_x: jax.Array
    slope_y: jax.Array


def _corners(locations, shapes: Shapes) -> _Corners:
    """Corners of one head's locations `[2, l, p, b, q]`."""
    height, width = (np.asarray(side, np.int32)[:, None, None, None] for side in zip(*shapes, strict=True))
    start = np.cumsum([0] + [h * w for h, w in shapes[:-1]], dtype=np.int32)[:, None, None, None]
    column, weight_x, slope_x = _axis(locations[0], width)  # [2, l, p, b, q], the first axis is left, right
    row, weight_y, slope_y = _axis(locations[1], height)
    corners = _Corners(
        start + row[:, None] * width + column,  # [2, 2, l, p, b, q]
        weight_y[:, None] * weight_x,
        weight_y[:, None] * slope_x,
        slope_y[:, None] * weight_x,
    )
    return jax.tree.map(lambda a: jnp.swapaxes(a.reshape(4, -1, *a.shape[-2:]), 0, 1), corners)


def _axis(location, size: np.ndarray):
    """The two neighbours along one axis, lower first: clipped index, weight and its slope."""
    at = location * size - 0.5
    low = jnp.floor(at)
    index = jnp.stack([low, low + 1])
    inside = ((index >= 0) & (index < size)).astype(jnp.float32)
    weight = jnp.stack([1.0 - (at - low), at - low]) * inside
    slope = np.float32([-1.0, 1.0])[:, None, None, None, None] * size * inside
    return jnp.clip(index, 0, size - 1).astype(jnp.int32), weight, slope


def _rows(value, index):
    """Rows of `value [b, s, c]` at `index [b, ...]`, float32 `[b, ..., c]`."""
    return jax.vmap(lambda v, i: v.at[i].get(mode="promise_in_bounds"))(value, index).astype(jnp.float32)


def _forward(value, locations, weights, shapes: Shapes):
    """One head: value `[b, s, c]`, locations `[2, l, p, b, q]`, weights `[l, p, b, q]` to float32 `[b, q, c]`."""
    corners = _corners(locations, shapes)

    def add(total, step):
        for index, weight in zip(*step, strict=True):  # [b, q] at each corner
            total += _rows(value, index) * weight[..., None]
        return total, None

    zero = jnp.zeros((*weights.shape[2:], value.shape[-1]), jnp.float32)
    return jax.lax.scan(add, zero, (corners.index, _scaled(corners, weights)))[0]


def _backward(value, locations, weights, gradient, shapes: Shapes):
    """One head's gradients, float32 and shaped like the first three, given that of its output `[b, q, c]`."""
    corners = _corners(locations, shapes)
    gradient = gradient.astype(jnp.float32)

    def project(_, index):  # <pixel, gradient> at the corners of one level's samples
        return None, jnp.sum(_rows(value, index) * gradient[:, :, None], axis=-1)

    def scatter(d_value, step):  # one corner of one sampled point
        index, weight = step  # [b, q]
        update = weight[..., None] * gradient
        return jax.vmap(lambda d, i, u: d.at[i].add(u, mode="promise_in_bounds"))(d_value, index, update), None

    def total(factor):
        return jnp.sum(dots * factor, axis=1).reshape(weights.shape)

    by_level = corners.index.reshape(len(shapes), -1, *gradient.shape[:2])  # [l, p 4, b, q]
    _, dots = jax.lax.scan(project, None, jnp.moveaxis(by_level, 1, -1))
    dots = jnp.moveaxis(dots, -1, 1).reshape(corners.index.shape)
    zero = jnp.zeros(value.shape, jnp.float32)
    steps = (a.reshape(-1, *a.shape[2:]) for a in (corners.index, _scaled(corners, weights)))  # [l p 4, b, q]
    d_value, _ = jax.lax.scan(scatter, zero, tuple(steps))
    slopes = jnp.stack([total(corners.slope_x), total(corners.slope_y)])
    return d_value, slopes * weights, total(corners.weight)


def _scaled(corners: _Corners, weights):
    """Bilinear weights times the samples' own, `[l p, 4, b, q]`."""
    return corners.weight * weights.reshape(-1, 1, *weights.shape[2:])
