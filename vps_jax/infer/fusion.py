"""From stitched scores at stride 4 to panoptic frames at the video's own size (spec: tarvis 8.3-8.5).

Upsampling is x4, crop of the padding, then bilinear to the original size; all three are linear and separable, so they
are applied at once as one matrix along x and three taps along y. Stuff labels keep a running best over classes and
masks are made one track at a time, so that nothing of the size classes x height x width exists. The output size is an
input of the compiled programs up to multiples of 64: videos of any aspect share them.
"""

import functools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.infer.pending import PendingBlobs
from vps_jax.infer.stitching import ClosedTrack, Stitched, StitchedFrame, softmax
from vps_jax.ops.resize import linear_matrix
from vps_jax.types import Array

EXCLUDED = -1000.0  # score of a class that takes no part in the argmax (spec: tarvis 8.4)
PANOPTIC_SCORE = 0.5  # a track is painted when its score exceeds this (spec: tarvis 8.5)
OUTPUT_MULTIPLE = 64


class Geometry(NamedTuple):
    """Heights and widths in pixels of one video: `padded` (multiples of 64) and `resized` as the network sees it with
    and without padding, and `original`, the size of the result."""

    padded: tuple[int, int]
    resized: tuple[int, int]
    original: tuple[int, int]


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


class FusedFrame(NamedTuple):
    """A finished frame: its index in the video, categories uint8 `[h, w]` and track ids int32 `[h, w]`, 0 for stuff."""

    index: int
    categories: np.ndarray
    track_ids: np.ndarray


class TrackLabel(NamedTuple):
    """Class (0-based) and score 0..1 of a track that is painted."""

    category: int
    score: float


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


def label_map(semantic: Array, geometry: Geometry, *, classes: Sequence[int] | None = None) -> np.ndarray:
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

    def step(carry, label):
        best, labels = carry
        value = _upsample(jax.lax.dynamic_index_in_dim(semantic, label, keepdims=False), maps)
        better = value > best
        return (jnp.where(better, value, best), jnp.where(better, label.astype(jnp.uint8), labels)), None

    empty = jnp.full(size, EXCLUDED, jnp.float32), jnp.full(size, start, jnp.uint8)
    return jax.lax.scan(step, empty, classes)[0][1]


def _upsample(plane, maps: Upsampling):
    """`[h4, w4]` to `[h, w]`."""
    wide = jnp.matmul(plane.astype(jnp.float32), maps.columns, precision=jax.lax.Precision.HIGHEST)  # [h4, w]
    return sum(maps.row_weights[:, k, None] * wide[maps.first_row + k] for k in range(3))


def mask_bits(logits: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Masks of one frame at the original size: logit > 0 after upsampling (spec: tarvis 8.3).

    Args:
      logits: float32 `[n, h4, w4]`.
      geometry: sizes of the video.

    Returns:
      uint8 `[n, ceil(h / 64) * 64, ceil(w / 64) * 8]`, eight pixels a byte, zero beyond the original size.
    """
    padded = np.zeros((-(-len(logits) // 8) * 8, *logits.shape[1:]), np.float32)
    padded[: len(logits)] = logits
    return np.asarray(_mask_bits(padded, upsampling(geometry)))[: len(logits)]


@jax.jit
def _mask_bits(logits, maps: Upsampling):
    return jax.lax.map(lambda plane: jnp.packbits(_upsample(plane, maps) > 0, axis=1), logits)


def label_track(class_logits: np.ndarray, thing_ids: Sequence[int], *, min_score: float) -> TrackLabel | None:
    """Class of a track from the mean `[1 + k]` of its class logits, background first (spec: tarvis 8.5).

    Returns:
      None for background, for a stuff class, and unless the score exceeds `min_score`.
    """
    probabilities = softmax(class_logits)
    best = int(probabilities.argmax())
    score = float(probabilities[best])
    return TrackLabel(best - 1, score) if best - 1 in thing_ids and score > min_score else None


class _Pending(NamedTuple):
    """A frame whose tracks are not all decided: keys of the compressed label map and masks, and the tracks."""

    index: int
    labels: int
    masks: dict[int, int]  # track id -> key


class Fuser:
    """Paints the tracks of one video over its stuff maps and hands frames out as soon as they are final.

    A frame waits until every track in it is closed, because the mean score decides whether and in which order tracks
    are painted. A track may last as long as the video: waiting frames are compressed (a few ten kilobytes each) and go
    to a temporary file beyond `budget_bytes`, so that memory does not grow with the video.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        thing_ids: Sequence[int],
        min_score: float = PANOPTIC_SCORE,
        budget_bytes: int = 256 << 20,
    ):
        self.geometry = geometry
        self.min_score = min_score
        self._things = frozenset(thing_ids)
        self._blobs = PendingBlobs(budget_bytes)
        self._frames: list[_Pending] = []
        self._closed: dict[int, TrackLabel | None] = {}
        self._forget_above = 1024

    @property
    def waiting_frames(self) -> int:
        """Number of compressed frames that wait for a track."""
        return len(self._frames)

    def add(self, stitched: Stitched) -> list[FusedFrame]:
        """Take what a `Stitcher` returned; returns the frames that are final now, in order."""
        self._frames += [self._compress(frame) for frame in stitched.frames]
        for track in stitched.closed:
            self._close(track)
        ready = 0
        while ready < len(self._frames) and self._frames[ready].masks.keys() <= self._closed.keys():
            ready += 1
        done, self._frames = self._frames[:ready], self._frames[ready:]
        fused = [self._paint(frame) for frame in done]
        self._forget(stitched.closed)
        return fused

    def close(self) -> None:
        """Remove the temporary file."""
        self._blobs.close()

    def _close(self, track: ClosedTrack) -> None:
        self._closed[track.track_id] = label_track(track.class_logits, self._things, min_score=self.min_score)

    def _compress(self, frame: StitchedFrame) -> _Pending:
        classes = [c for c in range(frame.semantic.shape[0]) if c not in self._things]
        labels = label_map(frame.semantic, self.geometry, classes=classes)
        masks = {}
        if len(frame.track_ids):
            bits = mask_bits(frame.instance_masks, self.geometry)
            for track_id, mask in zip(frame.track_ids.tolist(), bits, strict=True):
                if mask.any():
                    masks[track_id] = self._blobs.put(zlib.compress(mask.tobytes(), 1))
        return _Pending(frame.index, self._blobs.put(zlib.compress(labels.tobytes(), 1)), masks)

    def _paint(self, frame: _Pending) -> FusedFrame:
        """Tracks over stuff in ascending order of score: the highest is on top."""
        height, width = self.geometry.original
        labels = np.frombuffer(zlib.decompress(self._blobs.pop(frame.labels)), np.uint8)
        categories = labels.reshape(height, width).copy()
        track_ids = np.zeros((height, width), np.int32)
        masks = {track_id: self._blobs.pop(key) for track_id, key in frame.masks.items()}
        kept = [(label.score, track_id) for track_id in sorted(masks) if (label := self._closed[track_id])]
        for _, track_id in sorted(kept, key=lambda pair: pair[0]):
            inside = self._unpack(masks[track_id])
            categories[inside] = self._closed[track_id].category
            track_ids[inside] = track_id
        return FusedFrame(frame.index, categories, track_ids)

    def _unpack(self, blob: bytes) -> np.ndarray:
        height, width = self.geometry.original
        columns = -(-width // OUTPUT_MULTIPLE) * OUTPUT_MULTIPLE // 8
        packed = np.frombuffer(zlib.decompress(blob), np.uint8).reshape(-1, columns)[:height]
        return np.unpackbits(packed, axis=1, count=width).view(bool)

    def _forget(self, just_closed: Sequence[ClosedTrack]) -> None:
        """Drop, now and then, the labels of tracks that no frame to come can show.

        A track that closes with one clip may still be in frames that the stitcher hands out with the next.
        """
        if len(self._closed) <= self._forget_above:
            return
        needed = {track.track_id for track in just_closed}.union(*(frame.masks for frame in self._frames))
        self._closed = {key: label for key, label in self._closed.items() if key in needed}
        self._forget_above = max(1024, 2 * len(self._closed))
