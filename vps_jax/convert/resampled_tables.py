"""BEiT's relative position tables at another image size, as the published code resamples them at loading time
(spec: vit_adapter 3)."""

import numpy as np
from scipy.interpolate import RectBivariateSpline

CLASS_ROWS = 3  # the last rows belong to the class token and stay as they are


def resample(table: np.ndarray, source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """A table of one grid of patches for another.

    Near distances keep their resolution and far ones are stretched: the source's entries are placed at distances that
    grow geometrically and reach as far as the target's, and a bicubic spline through them is read at whole numbers.

    Args:
      table: `[(2h - 1)(2w - 1) + 3, m]` of the source grid.
      source, target: patches `(h, w)`; both square, as published.

    Returns:
      float32 `[(2h' - 1)(2w' - 1) + 3, m]`.

    Raises:
      ValueError: a grid that is not square, or a table of another grid.
    """
    if source[0] != source[1] or target[0] != target[1]:
        raise ValueError(f"grids {source} to {target}: only square tables can be resampled")
    sides = [2 * grid[0] - 1 for grid in (source, target)]
    if table.shape[0] != sides[0] ** 2 + CLASS_ROWS:
        raise ValueError(f"table of {table.shape[0]} rows is not of grid {source}")
    if sides[0] == sides[1]:
        return np.asarray(table, np.float32)
    at, wanted = positions(*sides), np.arange(sides[1], dtype=np.float64) - sides[1] // 2
    maps = np.asarray(table[:-CLASS_ROWS], np.float64).reshape(sides[0], sides[0], -1)
    wanted = np.clip(wanted, at[0], at[-1])
    heads = [RectBivariateSpline(at, at, maps[..., m], s=0)(wanted, wanted).ravel() for m in range(maps.shape[-1])]
    return np.concatenate([np.stack(heads, axis=1), table[-CLASS_ROWS:]]).astype(np.float32)


def positions(source: int, target: int) -> np.ndarray:
    """Where the entries of a side of `source` distances lie on one of `target`: geometric steps, mirrored; float64."""
    ratio = step_ratio(source // 2, target // 2)
    right = np.cumsum(ratio ** np.arange(source // 2, dtype=np.float64))  # 1, 1 + q, 1 + q + q^2, ...
    return np.concatenate([-right[::-1], [0.0], right])


def step_ratio(steps: int, reach: int) -> float:
    """q of the sum 1 + q + ... + q^(steps - 1) = reach: the last midpoint that a bisection of [1.01, 1.5] tries."""
    left, right = 1.01, 1.5
    ratio = left
    while right - left > 1e-6:
        ratio = (left + right) / 2
        if (1 - ratio**steps) / (1 - ratio) > reach:
            right = ratio
        else:
            left = ratio
    return ratio
