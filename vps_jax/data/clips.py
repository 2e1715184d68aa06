"""Which frames make a training clip (spec: tarvis 7.6)."""

from collections.abc import Sequence

import numpy as np


def choose_frames(
    has_instance: Sequence[bool], length: int, *, window: float, rng: np.random.Generator
) -> tuple[int, ...]:
    """Frames of one training clip.

    A reference frame is drawn among the frames that show an instance (among all when none does), the others without
    replacement from round(window * length) frames to either side. A video with too few frames repeats some.

    Args:
      has_instance: one bool per frame of the video.
      length: frames of the clip, T.
      window: half width of the neighbourhood in clip lengths; the product is rounded half to even. 0: frames that
        follow each other, from any start (spec: videomt 8).
      rng: where the randomness comes from.

    Returns:
      `length` frame numbers in ascending order.
    """
    frames = np.arange(len(has_instance))
    if window == 0:
        start = int(rng.integers(max(len(frames) - length, 0) + 1))
        repeated = rng.choice(frames, max(length - len(frames), 0))
        return tuple(sorted(map(int, [*frames[start : start + length], *repeated])))
    anchors = frames[np.asarray(has_instance, bool)]
    reference = int(rng.choice(anchors if len(anchors) else frames))
    reach = round(window * length)
    near = frames[max(0, reference - reach) : reference + reach + 1]
    others = near[near != reference]
    chosen = rng.permutation(others)[: length - 1]
    missing = length - 1 - len(chosen)
    repeated = rng.choice(near, missing) if missing else near[:0]
    return tuple(sorted([reference, *map(int, chosen), *map(int, repeated)]))


def choose_following_frames(
    can_start: Sequence[bool], length: int, *, window: float, rng: np.random.Generator
) -> tuple[int, ...]:
    """Frames of one VOS clip: the reference first, the others after it (spec: tarvis 7.6).

    The reference is drawn among the frames that may be one, those with enough frames behind them first; the others come
    without replacement from the next round(window * length) - 1 frames. A video with too few repeats some.

    Args:
      can_start: one bool per frame, at least one True.
      length: frames of the clip, T.
      window: reach in clip lengths; the product is rounded half to even.
      rng: where the randomness comes from.

    Returns:
      `length` frame numbers in ascending order; the first is the reference.
    """
    frames = np.arange(len(can_start))
    reference = int(rng.choice(usable_starts(can_start, length)))
    reach = max(round(window * length), length)
    others = frames[reference + 1 : reference + reach]
    chosen = rng.permutation(others)[: length - 1]
    missing = length - 1 - len(chosen)
    repeated = rng.choice(frames[reference : reference + reach], missing) if missing else others[:0]
    return tuple(sorted([reference, *map(int, chosen), *map(int, repeated)]))


def usable_starts(can_start: Sequence[bool], length: int) -> np.ndarray:
    """Frames that may be the reference of a VOS clip: those with enough frames behind them, or all if none has."""
    starts = np.flatnonzero(can_start)
    roomy = starts[starts + length <= len(can_start)]
    return roomy if len(roomy) else starts
