"""Video consistency mVC_n: does the prediction stay constant where the truth does (spec: metrics 5.4)."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from vps_jax.evaluation.protocol import Settings, Table, merge_videos, other_scores, per_video
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
        """Next frame: unsigned `[h, w]`, truth class + 1, other values are void; prediction class, others are none."""
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
        agreeing = constant & (self._constant[1] >= n)
        if not self.quirks.ignore_truth:
            agreeing &= truth.astype(np.int64) == prediction.astype(np.int64) + 1
        total = np.count_nonzero(constant)
        return np.count_nonzero(agreeing) / total if total else float("nan")

    def scores(self) -> dict[int, np.ndarray]:
        """Window length -> float64 score of each window in 0..1, nan where no truth is constant."""
        drop = 1 if self.quirks.drop_last_window else 0
        return {n: np.array(scores[: len(scores) - drop]) for n, scores in self._scores.items()}


class VideoConsistency:
    """State: every window's score of every video, and the tracker of the video whose frames are passing."""

    def __init__(self, num_classes: int, *, lengths: Sequence[int] = LENGTHS, quirks: Quirks = OFFICIAL):
        self.num_classes = num_classes
        self.lengths = tuple(lengths)
        self.quirks = quirks
        self.videos: dict[str, dict[int, np.ndarray]] = {}
        self._tracker = self._new_tracker()

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """The empty state."""
        return cls(len(settings.classes.names), quirks=settings.quirks)

    def _new_tracker(self) -> Tracker:
        return Tracker(self.num_classes, lengths=self.lengths, quirks=self.quirks)

    def watch(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """The next frame of a video, see `Tracker.add`."""
        self._tracker.add(truth, prediction)

    def update(self, video: str, seen: Any = None) -> None:
        """End the video whose frames were watched; nothing else of it is needed.

        Raises:
          ValueError: the video was scored before.
        """
        scores, self._tracker = self._tracker.scores(), self._new_tracker()
        merge_videos(self.videos, {video: scores})

    def merge(self, other: "VideoConsistency") -> None:
        """Take in the videos of another state; ValueError for other lengths or quirks, or a video that both have."""
        if (self.lengths, self.quirks) != (other.lengths, other.quirks):
            raise ValueError(f"lengths {other.lengths} with {other.quirks} cannot be merged into {self.lengths}")
        merge_videos(self.videos, other.videos)

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

    @staticmethod
    def headline(numbers: Mapping) -> dict[str, float | None]:
        """mVC of every length."""
        return {f"mvc{n}": numbers[f"mvc{n}"] for n in numbers["windows"]}

    @staticmethod
    def rows(numbers: Mapping) -> list[Table]:
        """mVC of every length, of all videos and of each."""
        return [
            other_scores([(f"mVC{n}", numbers[f"mvc{n}"]) for n in numbers["windows"]]),
            per_video(numbers, [f"mvc{n}" for n in numbers["windows"]]),
        ]


def _percent(scores: np.ndarray) -> float | None:
    known = scores[~np.isnan(scores)]
    return float(100 * known.mean()) if len(known) else None
