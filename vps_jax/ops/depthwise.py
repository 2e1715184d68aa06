"""Depthwise convolution: on CPUs a sum of shifted maps, since XLA's own, one filter per channel, is eight times slower.

Elsewhere it is XLA's own: the sum is computed on float32 maps.
"""

import jax
import jax.numpy as jnp

from vps_jax.ops import target
from vps_jax.shapes import Float
from vps_jax.types import Array

PLACES = tuple((i, j) for i in range(3) for j in range(3))  # of a filter


def depthwise_3x3(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 1 c"]) -> Float[Array, "b h w c"]:
    """Convolve every channel with a filter of its own, zeros around the map; sums are float32.

    Args:
      x: maps `[b, h, w, c]`.
      kernel: `[3, 3, 1, c]`, as of a convolution with one group per channel.

    Returns:
      `[b, h, w, c]` in the dtype of `x`.
    """
    if target.backend() != "cpu":
        return by_groups(x, kernel.astype(x.dtype))
    return _sum_of_shifts(x, kernel)


def by_groups(x, kernel):
    """XLA's convolution with one group per channel."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", feature_group_count=x.shape[-1], dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip


@jax.custom_vjp
def _sum_of_shifts(x, kernel):
    """Its backward pass keeps `x` and `kernel` only, and takes the nine places of the filter in turn.

    The derivative of a sum of slices would hold as many float32 maps at once.
    """
    _, height, width, _ = x.shape
    padded, kernel = _padded(x), kernel.astype(jnp.float32)
    taps = (padded[:, i : i + height, j : j + width].astype(jnp.float32) * kernel[i, j, 0] for i, j in PLACES)
    return sum(taps).astype(x.dtype)  # one fused loop


def _padded(x):
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _forward(x, kernel):
    return _sum_of_shifts(x, kernel), (x, kernel)


def _backward(kept, cotangent):
    x, kernel = kept
    padded = _padded(x)

    def tap(place):
        """The gradient `[c]` of one number of every filter."""
        shifted = jax.lax.dynamic_slice(padded, (0, *place, 0), x.shape)
        return jnp.sum(shifted.astype(jnp.float32) * cotangent.astype(jnp.float32), axis=(0, 1, 2))

    taps = jax.lax.map(tap, jnp.array(PLACES))
    return _sum_of_shifts(cotangent, kernel[::-1, ::-1]), taps.reshape(kernel.shape).astype(kernel.dtype)


_sum_of_shifts.defvjp(_forward, _backward)
