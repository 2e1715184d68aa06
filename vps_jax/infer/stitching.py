"""Overlapping clips of one video joined into frames with consistent identities, clip after clip, in bounded memory.

Two facts make streaming exact. A frame's masks and semantic logits cannot change once the next clip starts behind it,
because a frame is covered by two clips at most. A track that the directly preceding clip does not hold can never come
back, so the mean of its class logits is final as soon as one clip passes without it (spec: tarvis 8.3, 8.4).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

from vps_jax.config import ClipInference
from vps_jax.shapes import Bool, Float
from vps_jax.types import Array, ClipPrediction, ClosedTrack, UserError


class StitchedFrame(NamedTuple):
    """Scores of one frame after joining, at stride 4 of the padded input.

    Attributes:
      index: position in the video, from 0.
      track_ids: int32 `[n]`, in no particular order: every track of the clip that owns the frame.
      instance_masks: float32 logits `[n, h4, w4]`.
      semantic: logits `[k, h4, w4]`, on the device if the clip's were.
    """

    index: int
    track_ids: np.ndarray
    instance_masks: np.ndarray
    semantic: Array


class Stitched(NamedTuple):
    """What became final: frames in video order, and tracks."""

    frames: list[StitchedFrame]
    closed: list[ClosedTrack]


class _Clip(NamedTuple):
    """Kept tracks of one clip; masks are float32 `[n, t, h4, w4]` on the host."""

    first: int
    track_ids: np.ndarray
    masks: np.ndarray


class Stitcher:
    """Joins the clips of one video; holds one clip and its common frames with the next, nothing else."""

    def __init__(self, infer: ClipInference):
        self.infer = infer
        self._next_id = 1
        self._clip: _Clip | None = None
        self._waiting: list[StitchedFrame] = []  # frames of the last clip that the next may touch
        self._open: dict[int, tuple[np.ndarray, int]] = {}  # id -> sum of class logits, number of clips

    @property
    def held_frames(self) -> int:
        """Number of frames whose scores are in memory."""
        return len(self._waiting)

    def add(self, first: int, prediction: ClipPrediction) -> Stitched:
        """Join the next clip.

        Args:
          first: index of its first frame in the video; clips come in order and without gaps.
          prediction: its raw scores, numpy or device arrays.

        Returns:
          Frames before `first` and tracks that the clip does not continue.

        Raises:
          ValueError: the clip leaves a gap, or does not move on.
        """
        known = [frame.index for frame in self._waiting]
        if not (known[0] < first <= known[-1] + 1 if known else first == 0):
            raise ValueError(f"clip starts at frame {first}, frames {known} are waiting")
        done = [frame for frame in self._waiting if frame.index < first]
        common = [frame for frame in self._waiting if frame.index >= first]
        masks, class_logits = _kept_tracks(prediction, self.infer)
        track_ids, pairs = self._identify(masks, num_common=len(common))
        closed = self._count(track_ids, class_logits)
        self._waiting = self._join(common, first, prediction.semantic, masks, track_ids, pairs)
        self._clip = _Clip(first, track_ids, masks)
        return Stitched(done, closed)

    def finish(self) -> Stitched:
        """The video is over: everything that waits is final."""
        done, self._waiting, self._clip = self._waiting, [], None
        return Stitched(done, self._count(np.zeros(0, np.int32), np.zeros((0, 0))))

    def _identify(self, masks: np.ndarray, *, num_common: int) -> tuple[np.ndarray, dict[int, int]]:
        """Ids of the tracks: inherited where matched, else new in query order; and the pairs, new -> old row."""
        pairs = {}
        if num_common and self._clip is not None:
            before = self._clip.masks[:, self._clip.masks.shape[1] - num_common :]
            pairs = associate(before > 0, masks[:, :num_common] > 0, min_iou=self.infer.association_iou)
        ids = np.zeros(len(masks), np.int32)
        for row in range(len(masks)):
            if row in pairs:
                ids[row] = self._clip.track_ids[pairs[row]]
            else:
                ids[row] = self._next_id
                self._next_id += 1
        return ids, pairs

    def _count(self, track_ids: np.ndarray, class_logits: np.ndarray) -> list[ClosedTrack]:
        """Add a clip's class logits to the open tracks; returns the tracks that it does not continue."""
        before, self._open = self._open, {}
        for track_id, logits in zip(track_ids.tolist(), class_logits, strict=True):
            total, clips = before.pop(track_id, (0.0, 0))
            self._open[track_id] = (total + logits, clips + 1)
        return [ClosedTrack(track_id, total / clips) for track_id, (total, clips) in before.items()]

    def _join(self, common, first: int, semantic, masks, track_ids, pairs) -> list[StitchedFrame]:
        """The clip's frames: the common ones averaged with what waits, the others its own."""
        joined = []
        for t, frame in enumerate(common):
            instances = frame.instance_masks
            if self.infer.instance_overlap == "mean" and pairs:
                instances = instances.copy()
                for new, old in pairs.items():
                    instances[old] = (instances[old] + masks[new, t]) / 2
            mean = _mean_with_frame(frame.semantic, semantic, t)
            joined.append(frame._replace(instance_masks=instances, semantic=mean))
        for t in range(len(common), semantic.shape[1]):
            joined.append(StitchedFrame(first + t, track_ids, masks[:, t], _frame(semantic, t)))
        return joined


def associate(
    before: Bool[np.ndarray, "n t h4 w4"], after: Bool[np.ndarray, "m t h4 w4"], *, min_iou: float
) -> dict[int, int]:
    """Which tracks of a clip continue one of the clip before it (spec: tarvis 8.3).

    Args:
      before: bool `[n, t, h4, w4]`, masks of the earlier clip on the common frames.
      after: bool `[m, t, h4, w4]`, masks of the later clip there.
      min_iou: a pair of the assignment with the largest sum of IoU counts only above this.

    Returns:
      later row -> earlier row. Two empty masks have IoU 1, as published.
    """
    if not len(before) or not len(after):
        return {}
    # sums of up to 2^24 ones are exact in float32
    x, y = (masks.reshape(len(masks), -1).astype(np.float32) for masks in (before, after))  # [n, p], [m, p]
    shared = (x @ y.T).astype(np.float64)  # [n, m]
    union = x.sum(1, dtype=np.float64)[:, None] + y.sum(1, dtype=np.float64)[None] - shared
    iou = (shared + 1) / (union + 1)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return {int(j): int(i) for i, j in zip(rows, columns, strict=True) if iou[i, j] > min_iou}


def split_clips(frames: Iterable, *, clip_frames: int, overlap_frames: int) -> Iterator[tuple[int, list]]:
    """Cut a stream of frames into overlapping clips (spec: tarvis 8.1).

    Yields:
      (index of the first frame, frames): starts are multiples of `clip_frames - overlap_frames`; the first clip that
      reaches the end of the stream is the last, and may be shorter.

    Raises:
      UserError: an overlap that is negative or longer than half a clip (a frame would be in three clips).
    """
    if clip_frames < 1 or not 0 <= 2 * overlap_frames <= clip_frames:
        raise UserError(
            f"overlap_frames={overlap_frames} with clip_frames={clip_frames}: expected 0 to {max(clip_frames, 0) // 2} "
            "(half a clip), choose a smaller overlap"
        )
    step, first, held, fresh = clip_frames - overlap_frames, 0, [], 0
    for frame in frames:
        held.append(frame)
        fresh += 1
        if len(held) == clip_frames:
            yield first, list(held)
            held, first, fresh = held[step:], first + step, 0
    if fresh:
        yield first, held


def _kept_tracks(prediction: ClipPrediction, infer: ClipInference) -> tuple[np.ndarray, np.ndarray]:
    """Masks `[n, t, h4, w4]` and class logits `[n, 1 + k]` of the queries that are tracks, in query order."""
    if prediction.instance_masks is None:
        return np.zeros((0, *prediction.semantic.shape[1:]), np.float32), np.zeros((0, 0))
    class_logits = np.asarray(prediction.instance_classes, np.float64)  # [q, 1 + k]
    score = softmax(class_logits)[:, 1:].max(-1, initial=0.0)
    keep = np.flatnonzero(score >= infer.score_threshold)
    best = np.argsort(-score[keep], kind="stable")[: infer.max_tracks_per_clip]
    keep = keep[np.sort(best)]
    return _rows(prediction.instance_masks, keep), class_logits[keep]


def softmax(logits: Float[np.ndarray, "*at k"]) -> Float[np.ndarray, "*at k"]:
    """Softmax of the last axis on the host, in the dtype of `logits`."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _rows(masks: Array, keep: np.ndarray) -> np.ndarray:
    """Chosen rows on the host; on a device the choice is padded to multiples of eight, so that few programs compile."""
    if isinstance(masks, np.ndarray):
        return masks[keep]
    padded = np.zeros(-(-len(keep) // 8) * 8, np.int32)
    padded[: len(keep)] = keep
    return np.asarray(_take_rows(masks, padded))[: len(keep)]


_take_rows = jax.jit(lambda masks, rows: masks[rows])
_take_frame = jax.jit(lambda semantic, t: jax.lax.dynamic_index_in_dim(semantic, t, axis=1, keepdims=False))
_take_mean = jax.jit(
    lambda frame, semantic, t: 0.5 * (frame + jax.lax.dynamic_index_in_dim(semantic, t, axis=1, keepdims=False))
)


def _frame(semantic: Array, t: int) -> Array:
    """Frame `t` of `[k, t, h4, w4]`."""
    return semantic[:, t] if isinstance(semantic, np.ndarray) else _take_frame(semantic, t)


def _mean_with_frame(frame: Array, semantic: Array, t: int) -> Array:
    """Mean of a waiting frame `[k, h4, w4]` and frame `t` of the next clip."""
    if isinstance(semantic, np.ndarray):
        return 0.5 * (frame + semantic[:, t])
    return _take_mean(frame, semantic, t)
