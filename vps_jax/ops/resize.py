"""Resizing of channels-last maps, equal to PyTorch's `interpolate` (half-pixel centres, no antialiasing).

`jax.image.resize` differs in three ways that break parity: it antialiases when shrinking, its cubic kernel has
a = -0.5, and it renormalises at borders where PyTorch repeats the border pixel (spec: vit_adapter 1).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.shapes import Float64, Shaped
from vps_jax.types import Array

CUBIC_A = -0.75


def resize(
    x: Shaped[Array, "*lead h w c"], size: tuple[int, int], *, method: str = "bilinear"
) -> Shaped[Array, "*lead {size[0]} {size[1]} c"]:
    """Resize the two axes before the last.

    Args:
      x: `[..., h, w, c]`, finite floats; any dtype for `nearest`.
      size: `(new_h, new_w)`.
      method: `bilinear`, `bicubic` (a = -0.75) or `nearest` (source index is floor(i * h / new_h)).

    Returns:
      `[..., new_h, new_w, c]` in the dtype of `x`; interpolated in float32 at least.

    Raises:
      TypeError: integers to be interpolated.
    """
    if method == "nearest":
        for axis, length in zip((-3, -2), size, strict=True):
            source = np.arange(length) * x.shape[axis] // length
            x = x if length == x.shape[axis] else jnp.take(x, source, axis=x.ndim + axis)
        return x
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{method} needs floats, got {x.dtype}; use method='nearest' for labels")
    along = {"bilinear": _linear_axis, "bicubic": _cubic_axis}[method]
    out = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # the shrinking axis first: fewer numbers for the second pass
    order = sorted(zip((-3, -2), size, strict=True), key=lambda job: job[1] / x.shape[job[0]])
    for axis, length in order:
        out = along(out, x.ndim + axis, length)
    return out.astype(x.dtype)


def _linear_axis(x, axis: int, length: int):
    """Linear interpolation of one axis. Exact even shrinking is the mean of the two centre pixels of a block."""
    factor, rest = divmod(x.shape[axis], length)
    if length == x.shape[axis]:
        return x
    if rest == 0:
        last = jax.lax.slice_in_dim(x, factor // 2, None, factor, axis)
        if factor % 2:
            return last
        return 0.5 * (jax.lax.slice_in_dim(x, factor // 2 - 1, None, factor, axis) + last)
    return _apply(linear_matrix(x.shape[axis], length), x, axis)


def _cubic_axis(x, axis: int, length: int):
    return _apply(cubic_matrix(x.shape[axis], length), x, axis)


def _apply(matrix: np.ndarray, x, axis: int):
    """Multiply one axis by `[new, old]`."""
    matrix = jnp.asarray(matrix, x.dtype)
    out = jnp.tensordot(matrix, x, axes=(1, axis), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(out, 0, axis)


@functools.lru_cache(maxsize=256)
def linear_matrix(old: int, new: int) -> Float64[np.ndarray, "{new} {old}"]:
    """Weights `[new, old]` float64 of linear interpolation with half-pixel centres and repeated borders."""
    at = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0.0)
    low = np.minimum(np.floor(at).astype(int), old - 1)
    fraction = at - low
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), low), 1.0 - fraction)
    np.add.at(matrix, (np.arange(new), np.minimum(low + 1, old - 1)), fraction)
    return matrix


@functools.lru_cache(maxsize=256)
def cubic_matrix(old: int, new: int) -> Float64[np.ndarray, "{new} {old}"]:
    """Weights `[new, old]` float64 of cubic convolution with a = -0.75; taps beyond a border read the border pixel."""
    at = (np.arange(new) + 0.5) * (old / new) - 0.5
    low = np.floor(at).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        weight = _cubic_kernel(np.abs(at - low - tap))
        np.add.at(matrix, (np.arange(new), np.clip(low + tap, 0, old - 1)), weight)
    return matrix


def _cubic_kernel(distance: np.ndarray) -> np.ndarray:
    """Keys' convolution kernel at distances 0..2."""
    d, a = distance, CUBIC_A
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)
