"""The instance task: the likeliest pairs of track and class of a whole video (spec: tarvis 8.7)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.infer.fusion import put_masks, unpacked
from vps_jax.infer.stitching import softmax
from vps_jax.media.pending import PendingBlobs
from vps_jax.types import ClosedTrack, FrameScores, InstanceMask, PanopticFrame

UNKNOWN = 255  # category of a pixel that no instance has


class Candidate(NamedTuple):
    """A class, 0-based, that a track may be of, and its probability, 0..1."""

    track_id: int
    category: int
    score: float


def fuse_instances(frames: Iterable[FrameScores], classes: ClassTable, *, most: int) -> Iterator[PanopticFrame]:
    """Frames with the likeliest instances of one video.

    All tracks of the video are ranked together, so frames wait, compressed, for the last one.

    Args:
      frames: of one video, with tracks.
      classes: of the tracks; things alone are instances.
      most: number of pairs (track, class) that are kept in a video.
    """
    blobs, waiting, closed = PendingBlobs(), [], []
    try:
        for frame in frames:
            waiting.append((frame.stem, frame.sizes.original, put_masks(frame.tracks, frame.sizes, blobs)))
            closed += frame.tracks.closed
        kept = likeliest(closed, classes.thing_ids, most)
        tracks = {candidate.track_id for candidate in kept}
        for stem, size, keys in waiting:
            masks = {i: unpacked(blobs.pop(key), size) for i, key in keys.items() if i in tracks}
            yield instance_frame(stem, size, disjoint_in_class(kept, masks))
    finally:
        blobs.close()


def likeliest(closed: Sequence[ClosedTrack], things: Sequence[int], most: int) -> list[Candidate]:
    """The best pairs of track and thing class, by falling score; a track may come with several classes."""
    if not closed:
        return []
    scores = softmax(np.stack([track.class_logits for track in closed]))[:, 1:][:, list(things)]  # [n, things]
    best = np.argsort(-scores, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(best, scores.shape)
    return [
        Candidate(closed[row].track_id, int(things[column]), float(scores[row, column]))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]


def disjoint_in_class(kept: Sequence[Candidate], masks: Mapping[int, np.ndarray]) -> list[InstanceMask]:
    """The kept instances of a frame; of two of one class the likelier has the pixels that both cover."""
    taken, masks_shown = {}, []
    for track_id, category, score in kept:
        if track_id not in masks:
            continue
        mask = masks[track_id]
        if category in taken:
            mask = mask & ~taken[category]
        taken[category] = taken[category] | mask if category in taken else mask
        if mask.any():
            masks_shown.append(InstanceMask(track_id, category, score, mask))
    return masks_shown


def instance_frame(stem: str, size: tuple[int, int], instances: Sequence[InstanceMask]) -> PanopticFrame:
    """A frame of instances in the order of falling scores; where they overlap the maps show the likelier."""
    categories, track_ids, scores = np.full(size, UNKNOWN, np.uint8), np.zeros(size, np.int32), {}
    for track_id, category, score, mask in reversed(instances):
        categories[mask], track_ids[mask], scores[track_id] = category, track_id, score
    return PanopticFrame(stem, categories, track_ids, scores, tuple(instances))
