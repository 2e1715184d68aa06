"""Multi-scale deformable attention: bilinear samples of several maps, weighted and summed (spec: tarvis 3.3).

Plain autodiff through the gathers keeps 27 times the bytes of the inputs. Here the backward pass is written out and
keeps the three inputs alone; both passes walk over groups of heads, so that the working memory is that of one group
(spec: performance 2).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Shapes = tuple[tuple[int, int], ...]


def cell_centres(shapes: Shapes) -> np.ndarray:
    """Centres of all cells, row-major, level after level: reference points xy in 0..1, float32 `[s, 2]`."""
    grids = []
    for height, width in shapes:
        y, x = np.mgrid[:height, :width]
        grids.append(np.stack([(x + 0.5) / width, (y + 0.5) / height], axis=-1).reshape(-1, 2))
    return np.concatenate(grids).astype(np.float32)


def deformable_attention(value, locations, weights, *, shapes: Shapes, chunk: int | None = None):
    """Weighted sum of bilinear samples, zero outside of a map; reverse-mode differentiable.

    Args:
      value: `[b, s, m, c]`, the levels' maps flattened row-major, one after the other.
      locations: `[b, q, m, l, p, 2]`, xy; 0..1 spans a map from edge to edge, so a pixel is at `u * width - 0.5`.
      weights: `[b, q, m, l, p]`, usually a softmax over the last two axes.
      shapes: `(height, width)` of each level.
      chunk: heads that are processed at once; None for one. More is faster on a device with room, memory grows with it.

    Returns:
      `[b, q, m, c]` in the dtype of `value`. Positions, weights and sums are float32 whatever the inputs' dtypes.

    Raises:
      ValueError: the level shapes do not add up to `s`, or `chunk` does not divide the heads.
    """
    heads = value.shape[2]
    shapes = tuple((int(h), int(w)) for h, w in shapes)
    chunk = chunk or 1
    if sum(h * w for h, w in shapes) != value.shape[1]:
        raise ValueError(f"level shapes {shapes} do not add up to {value.shape[1]} tokens")
    if heads % chunk:
        raise ValueError(f"chunk {chunk} does not divide {heads} heads")
    return _attend(value, locations, weights, shapes, chunk)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _attend(value, locations, weights, shapes, chunk):
    out = _map_heads(
        lambda v, x, a: _forward_head(v, x, a, shapes), (value, locations, weights), chunk
    )  # [m, b, q, c]
    return jnp.moveaxis(out, 0, 2).astype(value.dtype)


def _attend_fwd(value, locations, weights, shapes, chunk):
    return _attend(value, locations, weights, shapes, chunk), (value, locations, weights)


def _attend_bwd(shapes, chunk, kept, gradient):
    grads = _map_heads(
        lambda v, x, a, g: _backward_head(v, x, a, g, shapes), (*kept, gradient), chunk
    )
    return tuple(jnp.moveaxis(g, 0, 2).astype(k.dtype) for g, k in zip(grads, kept, strict=True))


_attend.defvjp(_attend_fwd, _attend_bwd)


def _map_heads(function, arrays, chunk: int):
    """Apply `function` to arrays `[b, n, m, ...]` head by head, `chunk` heads at once; results `[m, ...]`.

    Only heads are looped over: the batch axis may be sharded over devices, and a loop over it would gather it.
    """
    per_head = tuple(jnp.moveaxis(a, 2, 0) for a in arrays)  # [m, b, n, ...]
    if chunk == per_head[0].shape[0]:
        return jax.vmap(function)(*per_head)
    return jax.lax.map(lambda args: function(*args), per_head, batch_size=chunk if chunk > 1 else None)


class _Corners(NamedTuple):
    """The four pixels around every sample; last two axes are (lower or upper row, left or right column).

    Attributes:
      index: int32 `[b, k, 2, 2]` into the flattened maps, clipped to its own map; `k` = (q, l, p) flattened.
      weight: `[b, k, 2, 2]` bilinear weight, zero outside of the map.
      slope_x, slope_y: `[b, k, 2, 2]` derivative of `weight` by the sample's location (in 0..1 units).
    """

    index: jax.Array
    weight: jax.Array
    slope_x: jax.Array
    slope_y: jax.Array


def _corners(locations, shapes: Shapes) -> _Corners:
    """Locations `[b, q, l, p, 2]` to their corners."""
    height, width = (np.asarray(n, np.int32)[:, None, None] for n in zip(*shapes, strict=True))  # [l, 1, 1]
    start = np.cumsum([0] + [h * w for h, w in shapes[:-1]], dtype=np.int32)[:, None, None, None]
    locations = locations.astype(jnp.float32)
    column, weight_x, slope_x = _axis(locations[..., 0:1], width)  # [b, q, l, p, 2]
    row, weight_y, slope_y = _axis(locations[..., 1:2], height)
    outer = lambda y, x: y[..., :, None] * x[..., None, :]  # noqa: E731
    index = start + row[..., :, None] * width[..., None] + column[..., None, :]
    flat = lambda a: a.reshape(a.shape[0], -1, 2, 2)  # noqa: E731
    return _Corners(
        flat(index), flat(outer(weight_y, weight_x)), flat(outer(weight_y, slope_x)), flat(outer(slope_y, weight_x))
    )


def _axis(location, size: np.ndarray):
    """The two neighbours along one axis: clipped index, weight and its slope; `[..., 1]` to `[..., 2]` each."""
    at = location * size - 0.5
    low = jnp.floor(at)
    upper = np.arange(2, dtype=np.float32)
    index = low + upper
    inside = ((index >= 0) & (index < size)).astype(jnp.float32)
    weight = jnp.where(upper == 0, 1.0 - (at - low), at - low) * inside
    slope = (2.0 * upper - 1.0) * size * inside
    return jnp.clip(index, 0, size - 1).astype(jnp.int32), weight, slope


def _gather(value, index):
    """Rows of `value [b, s, c]` at `index [b, n]`, float32 `[b, n, c]`."""
    return jax.vmap(lambda v, i: v.at[i].get(mode="promise_in_bounds"))(value, index).astype(jnp.float32)


def _forward_head(value, locations, weights, shapes: Shapes):
    """One head: value `[b, s, c]`, locations `[b, q, l, p, 2]`, weights `[b, q, l, p]` to `[b, q, c]`."""
    batch, queries = weights.shape[:2]
    corners = _corners(locations, shapes)
    weight = corners.weight.reshape(batch, queries, -1, 4) * _flat(weights)[..., None]
    rows = _gather(value, corners.index.reshape(batch, -1)).reshape(batch, queries, -1, value.shape[-1])
    return jnp.sum(rows * weight.reshape(batch, queries, -1, 1), axis=2)


def _backward_head(value, locations, weights, gradient, shapes: Shapes):
    """Gradients of one head, float32, given that of its output `[b, q, c]`."""
    batch, queries = weights.shape[:2]
    corners = _corners(locations, shapes)
    gradient = gradient.astype(jnp.float32)
    rows = _gather(value, corners.index.reshape(batch, -1)).reshape(batch, queries, -1, value.shape[-1])
    dots = jnp.sum(rows * gradient[:, :, None], axis=-1).reshape(corners.index.shape)  # [b, k, 2, 2]
    total = lambda factor: jnp.sum(factor * dots, axis=(-2, -1)).reshape(weights.shape)  # noqa: E731
    d_weights = total(corners.weight)
    d_locations = jnp.stack([total(corners.slope_x), total(corners.slope_y)], axis=-1) * weights[..., None]

    factor = corners.weight.reshape(batch, queries, -1, 4) * _flat(weights)[..., None]
    update = factor.reshape(batch, queries, -1, 1) * gradient[:, :, None]  # [b, q, l p 4, c]
    update = update.reshape(batch, -1, value.shape[-1])
    add = lambda i, u: jnp.zeros(value.shape[1:], jnp.float32).at[i].add(u, mode="promise_in_bounds")  # noqa: E731
    d_value = jax.vmap(add)(corners.index.reshape(batch, -1), update)
    return d_value, d_locations, d_weights


def _flat(weights):
    """`[b, q, l, p]` to float32 `[b, q, l p]`."""
    return weights.astype(jnp.float32).reshape(*weights.shape[:2], -1)
