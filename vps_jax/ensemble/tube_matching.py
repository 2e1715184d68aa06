"""Things of two members: tracks whose tubes agree are one, under the first's identity, with the mean of both masks.

Queries of two models have nothing to do with each other, so their things cannot be averaged as logits of classes are.
Their tubes can be compared: a track is a mask in every frame, and two tracks of one class are the same thing if the
intersection over union of their masks, over the frames that both are in, is large enough (spec: videomt 11). That is
known when the video has ended. Until then frames wait, compressed, in memory up to a budget and beyond it in temporary
files, so that memory does not grow with the video.
"""

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from vps_jax.config import Matching
from vps_jax.datasets.classes import ClassTable
from vps_jax.ensemble.kept_tracks import pack, unpack
from vps_jax.infer.fusion import label_track
from vps_jax.media.pending import PendingBlobs
from vps_jax.shapes import Float
from vps_jax.types import ClosedTrack, FrameScores, FrameTracks, Geometry


class DecidedLabels(NamedTuple):
    """A `types.ScoreMap` of a frame whose stuff has been decided.

    Attributes:
      best: uint8 `[h, w]` of the original size.
      classes: that competed, ascending.
      num_classes: of the scores that decided.
    """

    best: np.ndarray
    classes: tuple[int, ...]
    num_classes: int

    def labels(self, classes: Sequence[int] | None = None) -> np.ndarray:
        """The best class per pixel. Raises ValueError unless `classes` are those that competed."""
        if classes is None or tuple(classes) != self.classes:
            raise ValueError(f"labels of classes {classes}: those of {self.classes} were decided")
        return self.best

    def on_grid(self, sizes: Geometry, classes: Sequence[int]) -> np.ndarray:
        """Raises ValueError: scores were let go when labels were decided."""
        raise ValueError("the scores of a frame whose stuff is decided were let go; ask for its labels")


class TubeOverlaps:
    """Pixels that tracks of two members share, and that either has, summed over the frames that both are in."""

    def __init__(self, min_iou: float):
        """Only pairs above `min_iou` will count."""
        self._min_iou = min_iou
        self._sums: dict[tuple[int, int], np.ndarray] = {}  # (first id, other id) -> [shared, union]
        self._closed: list[set[int]] = [set(), set()]  # tracks of each member that may still be in a frame to come

    @property
    def num_pairs(self) -> int:
        """Number of pairs in memory."""
        return len(self._sums)

    def add(self, first: FrameTracks, other: FrameTracks) -> None:
        """Count the next frame; masks of both are logits on one grid."""
        x, y = (inside(tracks) for tracks in (first, other))
        shared = (x @ y.T).astype(np.float64)  # [n, m]; sums of up to 2^24 ones are exact in float32
        union = x.sum(1, dtype=np.float64)[:, None] + y.sum(1, dtype=np.float64) - shared
        for i, a in enumerate(first.ids.tolist()):
            for j, b in enumerate(other.ids.tolist()):
                sums = self._sums.setdefault((a, b), np.zeros(2))
                sums += shared[i, j], union[i, j]
        for side, tracks in enumerate((first, other)):
            if tracks.closed:
                self._forget(side, tracks)

    def _forget(self, side: int, tracks: FrameTracks) -> None:
        """Drop pairs too small to count of tracks that are over: closed before, and not in this frame."""
        shown = set(tracks.ids.tolist())
        over = self._closed[side] - shown
        self._closed[side] = (self._closed[side] & shown) | {track.track_id for track in tracks.closed}
        kept = lambda pair, sums: pair[side] not in over or sums[0] > self._min_iou * sums[1]  # noqa: E731
        self._sums = {pair: sums for pair, sums in self._sums.items() if kept(pair, sums)}

    def pairs(self, first: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
        """Which track of the other member is which of the first.

        Args:
          first: class of each track that may be matched; the others of the video are left out.
          other: the same of the other member.

        Returns:
          first id -> other id of the same class, one to one: the assignment with the most shared pixels, so that of
          several pieces of one thing the largest is taken.
        """
        rows, columns = sorted(first), sorted(other)
        if not rows or not columns:
            return {}
        shared = np.zeros((len(rows), len(columns)))
        places = [{track: i for i, track in enumerate(tracks)} for tracks in (rows, columns)]
        for (a, b), (both, union) in self._sums.items():
            if first.get(a, -1) == other.get(b, -2) and both > self._min_iou * union:
                shared[places[0][a], places[1][b]] = both
        chosen = zip(*linear_sum_assignment(shared, maximize=True), strict=True)
        return {rows[i]: columns[j] for i, j in chosen if shared[i, j] > 0}


def inside(tracks: FrameTracks) -> Float[np.ndarray, "n p"]:
    """Which cells of the grid each mask covers, as 0 and 1."""
    n, height, width = tracks.masks.shape
    return (tracks.masks > 0).reshape(n, height * width).astype(np.float32)


def match_tracks(
    frames: Iterable[tuple[FrameScores, FrameTracks, FrameTracks]], rule: Matching, classes: ClassTable
) -> Iterator[FrameScores]:
    """The frames of one video with the tracks of two members made one, when the video has ended.

    Args:
      frames: scores of a frame, of which the stuff classes are decided at once; and the tracks of the first and of the
        other member, mask logits float16 on the grid of the scores.
      rule: weight of the other's masks, and the least IoU.
      classes: of the scores.

    Yields:
      Frames whose tracks have the first's identities and classes. All tracks are closed with the first frame.
    """
    blobs, waiting, overlaps, closed = PendingBlobs(), [], TubeOverlaps(rule.min_iou), ({}, {})
    stuff = tuple(classes.stuff_ids)
    try:
        for frame, *both in frames:
            overlaps.add(*both)
            for known, tracks in zip(closed, both, strict=True):
                known.update((track.track_id, track) for track in tracks.closed)
            labels = zlib.compress(frame.scores.labels(stuff).tobytes(), 1)
            kept = [blobs.put(blob) for blob in (labels, *(pack(tracks._replace(closed=())) for tracks in both))]
            waiting.append((frame._replace(tracks=None, scores=None), frame.scores.num_classes, kept))
        pairs = overlaps.pairs(*(things_among(one.values(), classes.thing_ids) for one in closed))
        ending = list(closed[0].values())
        for frame, num_classes, kept in waiting:
            labels, *both = (blobs.pop(key) for key in kept)
            best = np.frombuffer(zlib.decompress(labels), np.uint8).reshape(frame.sizes.original)
            tracks = merged(*map(unpack, both), pairs, rule.weight)
            scores = DecidedLabels(best, stuff, num_classes)
            yield frame._replace(scores=scores, tracks=tracks._replace(closed=ending))
            ending = ()
    finally:
        blobs.close()


def things_among(closed: Iterable[ClosedTrack], thing_ids: Collection[int]) -> dict[int, int]:
    """Likeliest class of each track, of those whose likeliest class is a thing."""
    labels = {track.track_id: label_track(track.class_logits, thing_ids, min_score=0.0) for track in closed}
    return {track: label.category for track, label in labels.items() if label}


def merged(first: FrameTracks, other: FrameTracks, pairs: Mapping[int, int], weight: float) -> FrameTracks:
    """The first's tracks of one frame, with the mean of both masks where they are matched.

    Where one of the two is not in the frame, the mask is that of the other.
    """
    rows = {track: i for i, track in enumerate(other.ids.tolist())}
    ids, masks = first.ids.tolist(), list(first.masks.astype(np.float32))
    for i, track in enumerate(ids):
        if (row := rows.get(pairs.get(track))) is not None:
            masks[i] = mean_mask(masks[i], other.masks[row].astype(np.float32), weight)
    for track in sorted(pairs.keys() - set(ids)):
        if (row := rows.get(pairs[track])) is not None:
            ids.append(track)
            masks.append(other.masks[row].astype(np.float32))
    shape = (0, *first.masks.shape[1:])
    return FrameTracks(np.array(ids, np.int32), np.stack(masks) if masks else np.zeros(shape, np.float32))


def mean_mask(
    first: Float[np.ndarray, "h4 w4"], other: Float[np.ndarray, "h4 w4"], weight: float
) -> Float[np.ndarray, "h4 w4"]:
    """Logits of the mean of two masks' probabilities, the other's with `weight` 0..1; 0 gives `first`, 1 `other`.

    Logits of two models have scales of their own, probabilities do not.
    """
    with np.errstate(divide="ignore"):
        mine, its = np.log([1 - weight, weight])
    inside = np.logaddexp(mine - np.logaddexp(0, -first), its - np.logaddexp(0, -other))
    outside = np.logaddexp(mine - np.logaddexp(0, first), its - np.logaddexp(0, other))
    return (inside - outside).astype(np.float32)
