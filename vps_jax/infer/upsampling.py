"""Scores and masks at stride 4 brought to the size of the video (spec: tarvis 8.3, 8.4).

Upsampling is x4, crop of the padding, then bilinear to the original size; all three are linear and separable, so they
are applied at once as one matrix along x and three taps along y. Labels keep a running best over the classes that can
win somewhere, and masks are made one at a time, so that nothing of the size classes x height x width exists. The
output size is an input of the compiled programs up to multiples of 128: videos of any aspect share them.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.ops.resize import linear_matrix
from vps_jax.shapes import Bool, Float, Integer
from vps_jax.types import Array, Geometry

EXCLUDED = -1000.0  # score of a class that takes no part in the argmax (spec: tarvis 8.4)
ROUNDING = 1e-5  # of the largest logit: more than what the products and sums of upsampling can be off by
OUTPUT_MULTIPLE = 128  # that of 720x1280 is 768x1280, of 1080x1920 1152x1920


class Upsampling(NamedTuple):
    """The three resizing steps as arrays; rows and columns beyond the original size are zero.

    Attributes:
      first_row: int32 `[h]`, first of the three rows of the stride-4 map that make an output row.
      row_weights: float32 `[h, 3]`.
      columns: float32 `[w4, w]`.
    """

    first_row: np.ndarray
    row_weights: np.ndarray
    columns: np.ndarray


@functools.lru_cache(maxsize=32)
def upsampling(geometry: Geometry) -> Upsampling:
    """Resizing of a stride-4 map to the original size, composed in float64."""
    rows, columns = (
        _axis_matrix(padded // 4, resized, original) for padded, resized, original in zip(*geometry, strict=True)
    )
    first = np.minimum(np.argmax(rows > 0, axis=1), rows.shape[1] - 3).astype(np.int32)
    taps = np.take_along_axis(rows, first[:, None] + np.arange(3), axis=1)
    return Upsampling(first, taps.astype(np.float32), np.ascontiguousarray(columns.T, np.float32))


def _axis_matrix(grid: int, resized: int, original: int) -> np.ndarray:
    """Weights `[original rounded up, grid]`: x4, cut to `resized`, then to `original`."""
    matrix = linear_matrix(resized, original) @ linear_matrix(grid, 4 * grid)[:resized]
    return np.pad(matrix, ((0, -original % OUTPUT_MULTIPLE), (0, 0)))


def label_map(
    semantic: Float[Array, "k h4 w4"], geometry: Geometry, *, classes: Sequence[int] | None = None
) -> Integer[np.ndarray, "h w"]:
    """Best class per pixel on raw logits (spec: tarvis 8.4).

    Args:
      semantic: logits `[k, h4, w4]` at stride 4 of the padded input.
      geometry: sizes of the video.
      classes: ascending classes that compete; the others have logit -1000. None: all.

    Returns:
      uint8 `[h, w]` at the original size; the first of equal classes wins.
    """
    chosen = range(semantic.shape[0]) if classes is None else classes
    excluded = sorted(set(range(semantic.shape[0])) - set(chosen))
    start = excluded[0] if excluded else 0
    labels = _best_class(semantic, np.asarray(chosen, np.int32), start, upsampling(geometry))
    height, width = geometry.original
    return np.asarray(labels)[:height, :width]


@jax.jit
def _best_class(semantic, classes, start, maps: Upsampling):
    """Running best over `classes`; pixels where none beats the excluded classes keep `start`."""
    size = (maps.first_row.shape[0], maps.columns.shape[1])
    contender = _contenders(semantic, classes)
    order = jnp.flatnonzero(contender, size=len(classes), fill_value=0)

    def step(i, carry):
        best, labels = carry
        label = classes[order[i]]
        value = _upsample(jax.lax.dynamic_index_in_dim(semantic, label, keepdims=False), maps)
        better = value > best
        return jnp.where(better, value, best), jnp.where(better, label.astype(jnp.uint8), labels)

    empty = jnp.full(size, EXCLUDED, jnp.float32), jnp.full(size, start, jnp.uint8)
    return jax.lax.fori_loop(0, jnp.sum(contender), step, empty)[1]


def _contenders(semantic: Float[Array, "k h4 w4"], classes: Integer[Array, " n"]) -> Bool[Array, " n"]:
    """Which of the classes can be the best of some pixel.

    A pixel is a weighted mean of 3x3 neighbours of the map. So a class whose largest neighbour is below the smallest of
    another class is not the best there; most classes are so everywhere, and need not be upsampled.
    """

    def plane(label):
        return jax.lax.dynamic_index_in_dim(semantic, label, keepdims=False).astype(jnp.float32)

    def raised(carry, label):
        bar, size = carry
        least = _of_windows(plane(label), jnp.minimum)
        return (jnp.maximum(bar, least), jnp.maximum(size, jnp.max(jnp.abs(plane(label))))), None

    low = jnp.full((semantic.shape[1] - 2, semantic.shape[2] - 2), -jnp.inf), jnp.float32(0)
    (bar, size), _ = jax.lax.scan(raised, low, classes)
    bar = bar - ROUNDING * size
    # written this way, a class that is not a number somewhere rules none out
    return jax.lax.map(lambda label: jnp.any(~(_of_windows(plane(label), jnp.maximum) < bar)), classes)


def _of_windows(plane, pick):
    """The extreme of all 3x3 neighbours, `[h4, w4]` to `[h4 - 2, w4 - 2]`."""
    rows = pick(pick(plane[:-2], plane[1:-1]), plane[2:])
    return pick(pick(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _upsample(plane, maps: Upsampling):
    """`[h4, w4]` to `[h, w]`."""
    wide = jnp.matmul(plane.astype(jnp.float32), maps.columns, precision=jax.lax.Precision.HIGHEST)  # [h4, w]
    return sum(maps.row_weights[:, k, None] * wide[maps.first_row + k] for k in range(3))


def mask_bits(logits: Float[Array, "n h4 w4"], geometry: Geometry) -> Integer[np.ndarray, "n rows bytes"]:
    """Masks of one frame at the original size: logit > 0 after upsampling (spec: tarvis 8.3).

    Args:
      logits: float32 `[n, h4, w4]`.
      geometry: sizes of the video.

    Returns:
      uint8 `[n, ceil(h / 128) * 128, ceil(w / 128) * 16]`, eight pixels a byte, zero beyond the original size.
    """
    padded = np.zeros((-(-len(logits) // 8) * 8, *logits.shape[1:]), np.float32)
    padded[: len(logits)] = logits
    return np.asarray(_mask_bits(padded, upsampling(geometry)))[: len(logits)]


@jax.jit
def _mask_bits(logits, maps: Upsampling):
    return jax.lax.map(lambda plane: jnp.packbits(_upsample(plane, maps) > 0, axis=1), logits)


def unpack_mask(packed: Integer[np.ndarray, "*at"], size: tuple[int, int]) -> Bool[np.ndarray, "{size[0]} {size[1]}"]:
    """Bool `[h, w]` from the flat bytes of one mask of `mask_bits`."""
    height, width = size
    columns = -(-width // OUTPUT_MULTIPLE) * OUTPUT_MULTIPLE // 8
    return np.unpackbits(packed.reshape(-1, columns)[:height], axis=1, count=width).view(bool)
