"""Cutting maps into windows, and the constants of Swin's shifted-window attention (spec: tarvis 2, 3.3)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.shapes import Int32, Integer, Shaped
from vps_jax.types import Array


def partition(x: Shaped[Array, "*lead h w c"], window: tuple[int, int]) -> Shaped[Array, "*lead n s c"]:
    """Cut a map into windows.

    Args:
      x: `[..., h, w, c]`, sides multiples of the window's.
      window: `(height, width)` of a window.

    Returns:
      `[..., windows, height * width, c]`, windows and the tokens within one in row-major order.
    """
    *lead, h, w, c = x.shape
    x = x.reshape(*lead, h // window[0], window[0], w // window[1], window[1], c)
    return jnp.swapaxes(x, -4, -3).reshape(*lead, -1, window[0] * window[1], c)


def merge(
    x: Shaped[Array, "*lead n s c"], window: tuple[int, int], size: tuple[int, int]
) -> Shaped[Array, "*lead {size[0]} {size[1]} c"]:
    """Put windows `[..., windows, tokens, c]` back into a map `[..., h, w, c]` of `size`; undoes `partition`."""
    *lead, _, _, c = x.shape
    x = x.reshape(*lead, size[0] // window[0], size[1] // window[1], *window, c)
    return jnp.swapaxes(x, -4, -3).reshape(*lead, *size, c)


@functools.lru_cache(maxsize=64)
def window_order(height: int, width: int, window: int, shift: int) -> Int32[np.ndarray, " {height*width}"]:
    """Pixels of a map, rolled by `-shift` along both axes, window by window.

    Sides are multiples of `window`. Returns int32 `[height * width]`: at place `(window, token)`, both row-major, the
    row-major number of the pixel before the roll.
    """
    pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    pixels = np.roll(pixels, (-shift, -shift), axis=(0, 1))
    return pixels.reshape(height // window, window, width // window, window).swapaxes(1, 2).reshape(-1)


@jax.custom_vjp
def permute(
    x: Shaped[Array, "n rows c"], order: Integer[Array, " rows"], inverse: Integer[Array, " rows"]
) -> Shaped[Array, "n rows c"]:
    """Rows of `x [n, rows, c]` in another order: `result[:, i] = x[:, order[i]]`.

    Args:
      order, inverse: int32 `[rows]`, permutations that undo each other.

    The gradient is a permutation as well; without `inverse` it would be a scatter-add, slow on GPUs.
    """
    return jnp.asarray(x).at[:, order].get(mode="promise_in_bounds", unique_indices=True)


def _permute_forward(x, order, inverse):
    return permute(x, order, inverse), (order, inverse)


def _permute_backward(residuals, gradient):
    order, inverse = residuals
    return permute(gradient, inverse, order), None, None


permute.defvjp(_permute_forward, _permute_backward)


@functools.lru_cache(maxsize=16)
def relative_position_index(window: int) -> Int32[np.ndarray, "n n"]:
    """Row of the relative-position table for tokens a, b of a square window; int32 `[window^2, window^2]`.

    The row is `(dy + window - 1) * (2 window - 1) + (dx + window - 1)` with `dy, dx` = a minus b.
    """
    y, x = np.divmod(np.arange(window * window, dtype=np.int32), window)
    dy, dx = y[:, None] - y[None], x[:, None] - x[None]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


@functools.lru_cache(maxsize=64)
def shift_regions(height: int, width: int, window: int, shift: int) -> Int32[np.ndarray, "n s"]:
    """Region number of every token of a map that was rolled by `-shift`; int32 `[windows, window^2]`.

    Tokens of one window that carry different numbers were not neighbours before the roll. Regions are the products of
    three slices per axis: up to the last window, up to the last `shift` pixels, and the rest.
    """

    def slices(length):
        at = np.arange(length)
        return (at >= length - window).astype(np.int32) + (at >= length - shift)

    regions = 3 * slices(height)[:, None] + slices(width)[None]
    return regions.ravel()[window_order(height, width, window, 0)].reshape(-1, window * window)
