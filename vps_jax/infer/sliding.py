"""Image model on frames of any size: overlapping windows, flips and scales (spec: vit_adapter 7).

Windows of one size slide over the resized frame; their stride-4 scores are enlarged to the window, summed where windows
overlap and divided by their number, then resized to whatever grid is asked for. All of that is linear and separable,
also the number of windows over a pixel, so each window has one matrix per axis and the scores of all classes at frame
size never exist.
"""

import collections
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.infer.fusion import OUTPUT_MULTIPLE, Geometry
from vps_jax.ops.resize import linear_matrix
from vps_jax.types import Array

BAND = 64  # output rows whose class probabilities are in memory at a time


class SlidingSettings(NamedTuple):
    """Test-time sizes; the defaults are BEiT-L 640's (spec: vit_adapter 7, 8).

    Attributes:
      short_side_px, max_side_px: the frame is resized to fit both, aspect kept.
      size_multiple: then each side is resized up to a multiple of this.
      window_px, stride_px: side of the square windows, and their distance.
      scales: factors on `short_side_px` and `max_side_px`; scores are averaged over them.
      cover_window: with several scales: resize so that the short side is at least the window, without rounding up
        (as published for 640); otherwise a frame smaller than a window is padded with black (as published for 896).
      flip: average with the mirrored frame.
      window_batch: windows per run of the model.
    """

    short_side_px: int = 640
    max_side_px: int = 2048
    size_multiple: int = 32
    window_px: int = 640
    stride_px: int = 426
    scales: tuple[float, ...] = (1.0,)
    cover_window: bool = False
    flip: bool = False
    window_batch: int = 3


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


def resize_steps(original: tuple[int, int], settings: SlidingSettings) -> list[tuple[tuple[int, int], ...]]:
    """Heights and widths that a frame is resized to, one after the other, for every scale; the last is the test size.

    Rounding up to the multiple is a second resizing, as published, and changes the aspect a little.
    """
    steps = []
    for scale in settings.scales:
        short, long = int(settings.short_side_px * scale), int(settings.max_side_px * scale)
        factor = min(long / max(original), short / min(original))
        if settings.cover_window:
            factor = max(short, settings.window_px) / min(original)
        fitted = tuple(int(side * factor + 0.5) for side in original)
        multiple = 1 if settings.cover_window else settings.size_multiple
        steps.append((fitted, tuple(-(-side // multiple) * multiple for side in fitted)))
    return steps


def window_matrices(starts: Sequence[int], *, size: int, window: int, readout: np.ndarray) -> np.ndarray:
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


def sample_matrix(positions: np.ndarray, size: int) -> np.ndarray:
    """`[out, size]`: linear samples at `positions` (0 and `size` are the borders); the border pixel is repeated."""
    at = np.clip(positions - 0.5, 0, size - 1)
    low = np.minimum(np.floor(at).astype(int), size - 1)
    matrix = np.zeros((len(at), size))
    np.add.at(matrix, (np.arange(len(at)), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(len(at)), np.minimum(low + 1, size - 1)), at - low)
    return matrix


def grid_positions(cells: int, *, resized: int, size: int) -> np.ndarray:
    """Centres of stride-4 cells of a frame `resized` pixels wide, in pixels of the same frame `size` wide."""
    return 4 * (np.arange(cells) + 0.5) * size / resized


class Scoring:
    """The compiled model. `counts` says how often it was compiled, by shape."""

    def __init__(self, model):
        self.counts: collections.Counter[str] = collections.Counter()

        def scores(variables, frames):
            self.counts[f"windows {'x'.join(map(str, frames.shape[:3]))}"] += 1  # runs when traced, not when called
            return model.apply(variables, frames, method="semantic_scores")

        self.scores = jax.jit(scores)


_compiled = functools.lru_cache(maxsize=8)(Scoring)


class SlidingModel:
    """A Mask2Former that scores frames of any size."""

    def __init__(self, model, variables: Mapping, settings: SlidingSettings = SlidingSettings()):  # noqa: B008
        """Compiled programs are shared by all instances with an equal model.

        Args:
          model: flax module with the method `semantic_scores`, frames `[n, h, w, 3]` -> `[n, h / 4, w / 4, k]`.
          variables: its parameters and statistics.
          settings: sizes.
        """
        self.settings = settings
        self._variables = jax.device_put(variables)
        self._run = _compiled(model)

    @property
    def programs(self) -> dict[str, int]:
        """How often the model was compiled in this process, by shape of its windows."""
        return dict(self._run.counts)

    def passes(self, image: np.ndarray) -> Iterator[Pass]:
        """Run the model on an RGB uint8 frame `[h, w, 3]`: every scale, plain and mirrored."""
        for steps in resize_steps(image.shape[:2], self.settings):
            resized = image
            for height, width in steps:
                resized = cv2.resize(resized, (width, height), interpolation=cv2.INTER_LINEAR)
            yield self._pass(resized, mirrored=False)
            if self.settings.flip:
                yield self._pass(resized[:, ::-1], mirrored=True)

    def _pass(self, image: np.ndarray, *, mirrored: bool) -> Pass:
        size, window = image.shape[:2], self.settings.window_px
        rows, columns = (window_starts(side, window=window, stride=self.settings.stride_px) for side in size)
        short = [(0, max(0, window - side)) for side in size]
        image = np.pad(image, (*short, (0, 0)))
        windows = [image[y : y + window, x : x + window] for y in rows for x in columns]
        scores = self._scores(windows)
        scores = scores.reshape(len(rows), len(columns), *scores.shape[1:])
        return Pass(scores, size, (rows, columns), window, mirrored)

    def _scores(self, windows: list[np.ndarray]):
        """`[n, g, g, k]`, a fixed number of windows at a time, the last filled up with copies."""
        batch, done = self.settings.window_batch, []
        for start in range(0, len(windows), batch):
            part = windows[start : start + batch]
            filled = part + part[-1:] * (batch - len(part))
            done.append(self._run.scores(self._variables, np.stack(filled))[: len(part)])
        return jnp.concatenate(done)

    def grid_scores(self, image: np.ndarray, geometry: Geometry, *, classes: Sequence[int]) -> Array:
        """Mean scores of all passes on the stride-4 grid of a clip model, for the ensemble.

        Args:
          image: RGB uint8 `[h, w, 3]`.
          geometry: sizes of the clip model's frames; cells in its padding repeat the border.
          classes: which classes.

        Returns:
          float32 `[len(classes), h4, w4]`, not negative; no softmax over them.
        """
        total, count = 0.0, 0
        for one in self.passes(image):
            readouts = [
                sample_matrix(grid_positions(padded // 4, resized=resized, size=size), size)
                for padded, resized, size in zip(geometry.padded, geometry.resized, one.size, strict=True)
            ]
            scores = one.scores[..., np.asarray(classes)]
            total, count = total + _read(scores, *_matrices(one, *readouts)), count + 1
        return jnp.moveaxis(total / count, -1, 0)

    def labels(self, image: np.ndarray) -> np.ndarray:
        """Class of every pixel: uint8 `[h, w]` of an RGB uint8 frame `[h, w, 3]`.

        Scores are resized to the frame, turned to probabilities by a softmax over classes, as published, and averaged
        over passes; the first of equal classes wins.
        """
        height, width = image.shape[:2]
        parts = []
        for one in self.passes(image):
            readouts = [
                np.pad(linear_matrix(size, original), ((0, -original % OUTPUT_MULTIPLE), (0, 0)))
                for size, original in zip(one.size, (height, width), strict=True)
            ]
            parts.append((one.scores, *_matrices(one, *readouts)))
        bands = [_band_labels(parts, start) for start in range(0, height, BAND)]
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
def _band_labels(parts, start):
    return jnp.argmax(band_probabilities(parts, start), axis=-1).astype(jnp.uint8)


def band_probabilities(parts, start):
    """Mean over passes of the class probabilities of `BAND` output rows, `[BAND, w, k]`."""
    total = 0.0
    for scores, rows, columns in parts:
        band = jax.lax.dynamic_slice_in_dim(rows, start, BAND, axis=1)
        total = total + jax.nn.softmax(_read(scores, band, columns), axis=-1)
    return total / len(parts)
