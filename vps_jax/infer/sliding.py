"""Overlapping windows, flips and scales of one frame, put together again (spec: vit_adapter 7).

Windows of one size slide over the resized frame; their stride-4 scores are enlarged to the window, summed where windows
overlap and divided by their number, then resized to whatever grid is asked for. All of that is linear and separable,
also the number of windows over a pixel, so each window has one matrix per axis and the scores of all classes at frame
size never exist.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.config import WindowInference
from vps_jax.infer.score_maps import grid_positions, sample_matrix
from vps_jax.infer.upsampling import OUTPUT_MULTIPLE
from vps_jax.ops.resize import linear_matrix
from vps_jax.shapes import Float, Float32
from vps_jax.types import Array, Geometry

BAND = 64  # output rows whose class probabilities are in memory at a time


class Pass(NamedTuple):
    """Scores of one frame at one scale, mirrored or not.

    Attributes:
      scores: float32 `[ny, nx, g, g, k]` of all windows at stride 4.
      size: height and width of the resized frame.
      starts: first row of each row of windows, first column of each column of windows.
      window: side of a window in pixels.
      mirrored: the frame was flipped horizontally.
    """

    scores: Array
    size: tuple[int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...]]
    window: int
    mirrored: bool


def window_starts(size: int, *, window: int, stride: int) -> tuple[int, ...]:
    """First pixels of the windows along one axis; the last one ends at the border. `(0,)` if one window covers all."""
    count = max(size - window + stride - 1, 0) // stride + 1
    return tuple(max(min(i * stride, size - window), 0) for i in range(count))


def resize_steps(original: tuple[int, int], infer: WindowInference) -> list[tuple[tuple[int, int], ...]]:
    """Heights and widths that a frame is resized to, one after the other, for every scale; the last is the test size.

    Rounding up to the multiple is a second resizing, as published, and changes the aspect a little.
    """
    steps = []
    for scale in infer.scales:
        short, long = int(infer.short_side_px * scale), int(infer.max_side_px * scale)
        factor = min(long / max(original), short / min(original))
        if infer.cover_window:
            factor = max(short, infer.window_px) / min(original)
        fitted = tuple(int(side * factor + 0.5) for side in original)
        multiple = 1 if infer.cover_window else infer.size_multiple
        steps.append((fitted, tuple(-(-side // multiple) * multiple for side in fitted)))
    return steps


def window_matrices(
    starts: Sequence[int], *, size: int, window: int, readout: Float[np.ndarray, "out {size}"]
) -> Float32[np.ndarray, "n out cells"]:
    """What each window adds to each point of an output grid, along one axis.

    Args:
      starts: first pixels of the windows.
      size: pixels of the resized frame.
      window: pixels of a window.
      readout: `[out, size]`, the output grid as linear samples of the resized frame.

    Returns:
      float32 `[n, out, window / 4]`; summed over windows, rows of ones stay ones.
    """
    enlarge = linear_matrix(window // 4, window)  # [window, window / 4]
    placed = np.zeros((len(starts), size, window // 4))
    cover = np.zeros(size)
    for matrix, start in zip(placed, starts, strict=True):
        inside = min(window, size - start)  # less than the window where the frame was padded
        matrix[start : start + inside] = enlarge[:inside]
        cover[start : start + inside] += 1
    return np.einsum("os,nsg->nog", readout / cover, placed).astype(np.float32)


class PassScores(NamedTuple):
    """A `types.ScoreMap`: the passes over one frame of `original` (height, width) pixels."""

    passes: tuple[Pass, ...]
    original: tuple[int, int]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.passes[0].scores.shape[-1]

    def on_grid(self, sizes: Geometry, classes: Sequence[int]) -> Array:
        """Mean scores of all passes on the stride-4 grid of another model.

        Args:
          sizes: of the other model's frames; cells in its padding repeat the border.
          classes: which classes.

        Returns:
          float32 `[len(classes), h4, w4]`, not negative; no softmax over them.
        """
        total, count = 0.0, 0
        for one in self.passes:
            readouts = [
                sample_matrix(grid_positions(padded // 4, resized=resized, size=size), size)
                for padded, resized, size in zip(sizes.padded, sizes.resized, one.size, strict=True)
            ]
            scores = one.scores[..., np.asarray(classes)]
            total, count = total + _read(scores, *_matrices(one, *readouts)), count + 1
        return jnp.moveaxis(total / count, -1, 0)

    def labels(self, classes: Sequence[int] | None = None) -> np.ndarray:
        """Best of `classes` (None: of all) per pixel, uint8 `[h, w]`.

        Scores are resized to the frame, turned to probabilities by a softmax over classes, as published, and averaged
        over passes; the first of equal classes wins.
        """
        height, width = self.original
        parts = []
        for one in self.passes:
            readouts = [
                np.pad(linear_matrix(size, side), ((0, -side % OUTPUT_MULTIPLE), (0, 0)))
                for size, side in zip(one.size, (height, width), strict=True)
            ]
            parts.append((one.scores, *_matrices(one, *readouts)))
        excluded = np.ones(self.passes[0].scores.shape[-1], bool)
        excluded[slice(None) if classes is None else np.asarray(classes)] = False
        bands = [_band_labels(parts, start, excluded) for start in range(0, height, BAND)]
        return np.concatenate([np.asarray(band) for band in bands])[:height, :width]


def _matrices(one: Pass, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of the windows of a pass for an output grid, `[ny, h, g]` and `[nx, w, g]`."""
    if one.mirrored:
        columns = columns[:, ::-1]
    make = functools.partial(window_matrices, window=one.window)
    (height, width), (top, left) = one.size, one.starts
    return make(top, size=height, readout=rows), make(left, size=width, readout=columns)


@jax.jit
def _read(scores, rows, columns):
    """Window scores `[y, x, i, j, k]` on the grid of `rows [y, h, i]` and `columns [x, w, j]`: `[h, w, k]`."""
    with jax.default_matmul_precision("highest"):
        wide = jnp.einsum("yxijk,xwj->yiwk", scores, columns)
        return jnp.einsum("yiwk,yhi->hwk", wide, rows)


@jax.jit
def _band_labels(parts, start, excluded):
    probabilities = jnp.where(excluded, -1, band_probabilities(parts, start))
    return jnp.argmax(probabilities, axis=-1).astype(jnp.uint8)


def band_probabilities(parts, start):
    """Mean over passes of the class probabilities of `BAND` output rows, `[BAND, w, k]`."""
    total = 0.0
    for scores, rows, columns in parts:
        band = jax.lax.dynamic_slice_in_dim(rows, start, BAND, axis=1)
        total = total + jax.nn.softmax(_read(scores, band, columns), axis=-1)
    return total / len(parts)
