"""Class scores of a frame on a stride-4 grid, read as labels or on the grid of another model."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.infer.upsampling import label_map
from vps_jax.shapes import Float, Float32, Integer
from vps_jax.types import Array, Geometry


class GridScores(NamedTuple):
    """A `types.ScoreMap`: scores `[k, h4, w4]` on the stride-4 grid of `sizes`.

    Attributes:
      semantic: of the frame.
      sizes: of the video as the model saw it.
    """

    semantic: Float[Array, "k h4 w4"]
    sizes: Geometry

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.semantic.shape[0]

    def labels(self, classes: Sequence[int] | None = None) -> np.ndarray:
        """Best class per pixel, see `upsampling.label_map`."""
        return label_map(self.semantic, self.sizes, classes=classes)

    def on_grid(self, sizes: Geometry, classes: Sequence[int]) -> Array:
        """Scores of `classes` on another grid, see `to_grid`."""
        return to_grid(self.semantic, np.asarray(classes, np.int32), self.sizes, sizes)


def to_grid(
    semantic: Float[Array, "k h4 w4"],
    classes: Integer[np.ndarray, " n"],
    sizes: Geometry,
    common: Geometry,
    *,
    mirrored: bool = False,
) -> Float32[Array, "n gh gw"]:
    """Chosen classes of scores `[k, h4, w4]` on the grid of another geometry.

    Args:
      semantic: scores on the stride-4 grid of `sizes`.
      classes: rows to keep.
      sizes: what the model saw.
      common: where the scores are wanted; cells beyond the frame repeat what the model saw there.
      mirrored: the model saw the frame flipped.

    Returns:
      float32 `[len(classes), h4', w4']`; the very numbers when nothing is to be resized.
    """
    if sizes == common and not mirrored:
        return _rows(semantic, classes)
    rows, columns = (
        sample_matrix(grid_positions(out // 4, resized=resized, size=seen / 4), grid // 4)
        for out, resized, seen, grid in zip(common.padded, common.resized, sizes.resized, sizes.padded, strict=True)
    )
    if mirrored:
        at = sizes.resized[1] / 4 - grid_positions(
            common.padded[1] // 4, resized=common.resized[1], size=sizes.resized[1] / 4
        )
        columns = sample_matrix(at, sizes.padded[1] // 4)
    return _resample(semantic, classes, rows.astype(np.float32), columns.astype(np.float32))


_rows = jax.jit(lambda semantic, classes: semantic[classes].astype(jnp.float32))


@jax.jit
def _resample(semantic, classes, rows, columns):
    with jax.default_matmul_precision("highest"):
        return jnp.einsum("khw,yh,xw->kyx", semantic[classes].astype(jnp.float32), rows, columns)


def sample_matrix(positions: Float[np.ndarray, " out"], size: int) -> Float[np.ndarray, "out {size}"]:
    """`[out, size]`: linear samples at `positions` (0 and `size` are the borders); the border pixel is repeated."""
    at = np.clip(positions - 0.5, 0, size - 1)
    low = np.minimum(np.floor(at).astype(int), size - 1)
    matrix = np.zeros((len(at), size))
    np.add.at(matrix, (np.arange(len(at)), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(len(at)), np.minimum(low + 1, size - 1)), at - low)
    return matrix


def grid_positions(cells: int, *, resized: int, size: float) -> Float[np.ndarray, " {cells}"]:
    """Centres of stride-4 cells of a frame `resized` pixels wide, in pixels of the same frame `size` wide."""
    return 4 * (np.arange(cells) + 0.5) * size / resized
