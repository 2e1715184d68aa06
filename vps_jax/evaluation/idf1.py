"""IDF1 of things: how long tracks keep the one identity that fits them best, as TrackEval defines it.

Source: Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking, ECCVW 2016. What
counts as a detection is in `detections`; classes are averaged.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import detections
from vps_jax.evaluation.counts import VideoCounts, check_classes
from vps_jax.evaluation.protocol import Settings, Table, merge_videos, other_scores, per_class, per_video

THRESHOLD = 0.5
NAMES = ("idf1", "idp", "idr")


class Identities(NamedTuple):
    """Of one class in one video: detections that keep their identity, true ones, predicted ones."""

    tp: int
    truth: int
    prediction: int


def identities_of(frames: list[detections.Detections]) -> Identities:
    """Give each true track at most one predicted track, so that they meet (IoU 0.5 or above) as often as possible."""
    from scipy.optimize import linear_sum_assignment  # half a second of import that most scores do not pay

    truth, prediction, frames = detections.global_ids(frames)
    meetings = np.zeros((len(truth), len(prediction)), np.int64)
    for g, p, iou in frames:
        meetings[np.ix_(g, p)] += iou >= THRESHOLD
    chosen = linear_sum_assignment(meetings, maximize=True)
    return Identities(int(meetings[chosen].sum()), int(truth.sum()), int(prediction.sum()))


def scores(parts: Iterable[Identities]) -> dict[str, float]:
    """`idf1`, `idp`, `idr` in percent of one class."""
    tp, truth, prediction = (sum(column) for column in zip(*parts, strict=True))
    return {
        "idf1": 100 * tp / max(1, (truth + prediction) / 2),
        "idp": 100 * tp / max(1, prediction),
        "idr": 100 * tp / max(1, truth),
    }


class IdentityF1:
    """State: the identities of every video and class."""

    def __init__(self, classes: ClassTable):
        self.classes = classes
        self.videos: dict[str, dict[int, Identities]] = {}

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """The empty state."""
        return cls(settings.classes)

    def update(self, video: str, counts: VideoCounts) -> None:
        """Add one video; ValueError when it was added before."""
        check_classes(counts, len(self.classes.names))
        detected = detections.of_video(counts, np.asarray(self.classes.is_thing, bool))
        by_class = {c: identities_of(frames) for c, frames in detected}
        merge_videos(self.videos, {video: {c: one for c, one in by_class.items() if one.truth + one.prediction}})

    def merge(self, other: "IdentityF1") -> None:
        """Take in the videos of another state."""
        merge_videos(self.videos, other.videos)

    def compute(self) -> dict:
        """`idf1`, `idp`, `idr`: means over the thing classes that occur; `per_class`, `per_video`."""
        return detections.summary(self.videos, self.classes, scores, NAMES)

    @staticmethod
    def headline(numbers: Mapping) -> dict[str, float | None]:
        """IDF1."""
        return {"idf1": numbers["idf1"]}

    @staticmethod
    def rows(numbers: Mapping) -> list[Table]:
        """IDF1, precision and recall of identities, of all, of classes and of videos."""
        return [
            other_scores([(name.upper(), numbers[name]) for name in NAMES]),
            per_class(numbers, NAMES, lambda row: (row[name] for name in NAMES)),
            per_video(numbers, NAMES),
        ]
