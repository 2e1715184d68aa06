"""From a stream of scores to panoptic frames at the video's own size (spec: tarvis 8.4, 8.5)."""

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.infer.stitching import softmax
from vps_jax.infer.upsampling import mask_bits, unpack_mask
from vps_jax.media.pending import HELD_BYTES, PendingBlobs
from vps_jax.shapes import Bool, Float, Int32, Integer
from vps_jax.types import ClosedTrack, FrameScores, FrameTracks, Geometry, PanopticFrame


def fuse_frames(
    frames: Iterable[FrameScores], classes: ClassTable, *, min_score: float = 0.0
) -> Iterator[PanopticFrame]:
    """Panoptic frames of one video, in order, each as soon as it is final.

    Tracks are painted over the best stuff class of each pixel. In frames without tracks all classes compete, and all
    pixels of a thing class are one track (spec: tarvis 8.9).

    Args:
      frames: of one video.
      classes: of the scores.
      min_score: a track is painted when its score exceeds this, 0..1.
    """
    fuser = None
    try:
        for frame in frames:
            if frame.tracks is None:
                labels = frame.scores.labels()
                yield PanopticFrame(frame.stem, labels, class_tracks(labels, classes))
                continue
            fuser = fuser or Fuser(frame.sizes, thing_ids=classes.thing_ids, min_score=min_score)
            yield from fuser.add(frame, stuff_ids=classes.stuff_ids)
    finally:
        if fuser is not None:
            fuser.close()


def class_tracks(categories: Integer[np.ndarray, "h w"], classes: ClassTable) -> Int32[np.ndarray, "h w"]:
    """Track ids int32 of a semantic map: all pixels of a thing class are one track, numbered by the class."""
    is_thing = np.array(classes.is_thing)
    return np.where(is_thing[categories], categories.astype(np.int32) + 1, 0)


def put_masks(tracks: FrameTracks, geometry: Geometry, blobs: PendingBlobs) -> dict[int, int]:
    """Keep the masks of a frame that are not empty, compressed, at the video's size; returns track id -> key."""
    keys = {}
    if len(tracks.ids):
        for track_id, mask in zip(tracks.ids.tolist(), mask_bits(tracks.masks, geometry), strict=True):
            if mask.any():
                keys[track_id] = blobs.put(zlib.compress(mask.tobytes(), 1))
    return keys


def unpacked(blob: bytes, size: tuple[int, int]) -> Bool[np.ndarray, "{size[0]} {size[1]}"]:
    """The mask bool `[h, w]` of bytes that `put_masks` kept."""
    return unpack_mask(np.frombuffer(zlib.decompress(blob), np.uint8), size)


class TrackLabel(NamedTuple):
    """Class (0-based) and score 0..1 of a track that is painted."""

    category: int
    score: float


def label_track(
    class_logits: Float[np.ndarray, " k"], thing_ids: Collection[int], *, min_score: float
) -> TrackLabel | None:
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

    stem: str
    labels: int
    masks: dict[int, int]  # track id -> key


class Fuser:
    """Paints the tracks of one video over its stuff maps and hands frames out as soon as they are final.

    A frame waits until every track in it is closed, because the mean score decides whether and in which order tracks
    are painted. A track may last as long as the video: waiting frames are compressed (a few ten kilobytes each) and go
    to a temporary file beyond `budget_bytes`, so that memory does not grow with the video.
    """

    def __init__(
        self, geometry: Geometry, *, thing_ids: Collection[int], min_score: float, budget_bytes: int = HELD_BYTES
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

    def add(self, frame: FrameScores, *, stuff_ids: Sequence[int]) -> Iterator[PanopticFrame]:
        """Take the next frame; returns the frames that are final now, in order, each painted when it is asked for."""
        self._frames.append(self._compress(frame, stuff_ids))
        for track in frame.tracks.closed:
            self._closed[track.track_id] = label_track(track.class_logits, self._things, min_score=self.min_score)
        ready = 0
        while ready < len(self._frames) and self._frames[ready].masks.keys() <= self._closed.keys():
            ready += 1
        done, self._frames = self._frames[:ready], self._frames[ready:]
        return self._painted(done, frame.tracks.closed)

    def close(self) -> None:
        """Remove the temporary file."""
        self._blobs.close()

    def _compress(self, frame: FrameScores, stuff_ids: Sequence[int]) -> _Pending:
        labels = frame.scores.labels(stuff_ids)
        masks = put_masks(frame.tracks, self.geometry, self._blobs)
        return _Pending(frame.stem, self._blobs.put(zlib.compress(labels.tobytes(), 1)), masks)

    def _painted(self, frames: Sequence[_Pending], closed: Sequence[ClosedTrack]) -> Iterator[PanopticFrame]:
        for frame in frames:  # all of a long video, if a track lasts as long
            yield self._paint(frame)
        if closed:
            self._forget(closed)

    def _paint(self, frame: _Pending) -> PanopticFrame:
        """Tracks over stuff in ascending order of score: the highest is on top."""
        size = self.geometry.original
        labels = np.frombuffer(zlib.decompress(self._blobs.pop(frame.labels)), np.uint8)
        categories = labels.reshape(size).copy()
        track_ids = np.zeros(size, np.int32)
        masks = {track_id: self._blobs.pop(key) for track_id, key in frame.masks.items()}
        labelled = [(label.score, track_id) for track_id in sorted(masks) if (label := self._closed[track_id])]
        for _, track_id in sorted(labelled, key=lambda pair: pair[0]):
            inside = unpacked(masks[track_id], size)
            categories[inside] = self._closed[track_id].category
            track_ids[inside] = track_id
        return PanopticFrame(frame.stem, categories, track_ids, {track_id: score for score, track_id in labelled})

    def _forget(self, just_closed: Sequence[ClosedTrack]) -> None:
        """Drop, now and then, the labels of tracks that no frame to come can show.

        A track that is closed with one frame may still be in the frames up to the next that closes any.
        """
        if len(self._closed) <= self._forget_above:
            return
        needed = {track.track_id for track in just_closed}.union(*(frame.masks for frame in self._frames))
        self._closed = {key: label for key, label in self._closed.items() if key in needed}
        self._forget_above = max(1024, 2 * len(self._closed))
