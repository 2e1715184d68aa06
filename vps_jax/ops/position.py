"""Sine position encodings of pixel grids and clips (spec: tarvis 3.2, 4.4; vit_adapter 5).

The one-dimensional tables are numpy float64 constants; the maps are broadcast from them inside the program, so that no
map-sized constant is compiled into it.
"""

import jax.numpy as jnp
import numpy as np

from vps_jax.shapes import Float, Float32, Float64, Shaped
from vps_jax.types import Array

TEMPERATURE = 10000.0
EPS = 1e-6


def encode(positions: Shaped[Array, "*n"], width: int) -> Float[Array, "*n {width}"]:
    """Sine code of real positions: `sin(u w_k)` for even k, `cos(u w_k)` for odd, `w_k = 10000^(-2 floor(k/2)/width)`.

    Args:
      positions: `[...]`, numpy (computed in float64) or jax (in float32); any unit.
      width: number of channels.

    Returns:
      `[..., width]` of the same library.
    """
    lib = np if isinstance(positions, np.ndarray) else jnp
    frequency = TEMPERATURE ** (-2.0 * (np.arange(width) // 2) / width)
    phase = positions[..., None] * (frequency if lib is np else frequency.astype(np.float32))
    return lib.where(np.arange(width) % 2 == 0, lib.sin(phase), lib.cos(phase))


def axis_positions(length: int, *, normalize: bool) -> Float64[np.ndarray, " {length}"]:
    """Positions 1..length of one axis, in units of 2 pi / length when normalised; float64 `[length]`."""
    positions = np.arange(1, length + 1, dtype=np.float64)
    return positions * (2 * np.pi) / (length + EPS) if normalize else positions


def sine_2d(
    height: int, width: int, channels: int, *, normalize: bool = True
) -> Float32[Array, "{height} {width} {channels}"]:
    """Code of a grid: y in the first half of the channels, x in the second. float32 `[height, width, channels]`."""
    half = channels // 2
    y, x = (jnp.asarray(encode(axis_positions(n, normalize=normalize), half), jnp.float32) for n in (height, width))
    shape = (height, width, half)
    return jnp.concatenate([jnp.broadcast_to(y[:, None], shape), jnp.broadcast_to(x[None], shape)], axis=-1)


def sine_3d(
    frames: int, height: int, width: int, channels: int
) -> Float32[Array, "{frames} {height} {width} {channels}"]:
    """Normalised 2-D code plus (not beside) the code of the frame number. float32 `[frames, height, width, channels]`.

    Time is normalised by the clip's own length, so a frame number encodes differently in clips of other lengths.
    """
    z = jnp.asarray(encode(axis_positions(frames, normalize=True), channels), jnp.float32)
    return sine_2d(height, width, channels) + z[:, None, None]
