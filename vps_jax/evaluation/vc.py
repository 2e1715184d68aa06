"""Video consistency mVC_n: does the prediction stay constant where the truth does (spec: data_and_metrics 5.4)."""

from collections.abc import Sequence

import numpy as np

from vps_jax.evaluation.quirks import OFFICIAL, Quirks

LENGTHS = (8, 16)  # mVC8 and mVC16


class Tracker:
    """Scores the windows of one video while its frames pass; holds one frame and one counter map of each side."""

    def __init__(self, num_classes: int, *, lengths: Sequence[int] = LENGTHS, quirks: Quirks = OFFICIAL):
        self.num_classes = num_classes
        self.quirks = quirks
        self.frames = 0
        self._scores: dict[int, list[float]] = {n: [] for n in lengths}
        self._last: tuple[np.ndarray, ...] = ()
        self._constant: list[np.ndarray] = []  # uint32 [h, w]: for how many frames a pixel has had its value

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Next frame: truth `[h, w]` uint8 with class + 1, other values are void; prediction `[h, w]` 0-based."""
        if not self.frames:
            self._constant = [np.ones(truth.shape, np.uint32), np.ones(truth.shape, np.uint32)]
        for constant, last, now in zip(self._constant, self._last, (truth, prediction), strict=False):
            constant += 1
            constant[last != now] = 1
        self._last = truth, prediction
        self.frames += 1
        for n, scores in self._scores.items():
            if self.frames >= n:
                scores.append(self._score(n))

    def _score(self, n: int) -> float:
        """Share of the pixels with constant truth over the last n frames whose prediction is constant too."""
        truth, prediction = self._last
        constant = self._constant[0] >= n
        if not self.quirks.void_constant:
            constant &= (truth >= 1) & (truth <= self.num_classes)
        kept = constant & (self._constant[1] >= n)
        if not self.quirks.ignore_truth:
            kept &= truth.astype(np.int64) == prediction.astype(np.int64) + 1
        total = np.count_nonzero(constant)
        return np.count_nonzero(kept) / total if total else float("nan")

    def scores(self) -> dict[int, np.ndarray]:
        """Window length -> float64 score of each window in 0..1, nan where no truth is constant."""
        drop = 1 if self.quirks.drop_last_window else 0
        return {n: np.array(scores[: len(scores) - drop]) for n, scores in self._scores.items()}


class VideoConsistency:
    """State: every window's score of every video."""

    def __init__(self, *, lengths: Sequence[int] = LENGTHS):
        self.lengths = tuple(lengths)
        self.videos: dict[str, dict[int, np.ndarray]] = {}

    def update(self, video: str, scores: dict[int, np.ndarray]) -> None:
        """Add what a `Tracker` found in one video.

        Raises:
          ValueError: the video was scored before.
        """
        if video in self.videos:
            raise ValueError(f"video {video} is scored twice")
        self.videos[video] = scores

    def merge(self, other: "VideoConsistency") -> None:
        """Take in the videos of another state; ValueError for other lengths or a video that both have."""
        if self.lengths != other.lengths:
            raise ValueError(f"lengths {other.lengths} cannot be merged into {self.lengths}")
        for video, scores in other.videos.items():
            self.update(video, scores)

    def compute(self) -> dict:
        """`mvc8`, `mvc16`, ... in percent and `windows`; the mean runs over windows, so long videos weigh more."""
        result: dict = {"windows": {}}
        for n in self.lengths:
            windows = np.concatenate([np.zeros(0), *(self.videos[video][n] for video in sorted(self.videos))])
            result[f"mvc{n}"] = _percent(windows)
            result["windows"][str(n)] = len(windows)
        result["per_video"] = {
            video: {f"mvc{n}": _percent(self.videos[video][n]) for n in self.lengths} for video in sorted(self.videos)
        }
        return result


def _percent(scores: np.ndarray) -> float | None:
    known = scores[~np.isnan(scores)]
    return float(100 * known.mean()) if len(known) else None
