"""HOTA of things: detection and association of tracks at 19 thresholds of mask IoU, as TrackEval defines it.

Source: Luiten et al., HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking, IJCV 2020. What counts as a
detection is in `detections`; classes are averaged.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import detections
from vps_jax.evaluation.counts import VideoCounts, check_classes
from vps_jax.evaluation.protocol import Settings, Table, merge_videos, other_scores, per_class, per_video

THRESHOLDS = np.arange(0.05, 0.99, 0.05)
EPSILON = np.finfo(float).eps
NAMES = ("hota", "deta", "assa", "loca")


class Sums(NamedTuple):
    """What the frames of one class in one video add up to, at each threshold: float64 `[19]` each.

    Attributes:
      tp, fn, fp: detections.
      association: of every true positive, the share of its two tracks that are matched to each other.
      iou: of the true positives.
    """

    tp: np.ndarray
    fn: np.ndarray
    fp: np.ndarray
    association: np.ndarray
    iou: np.ndarray


def sums_of(frames: list[detections.Detections]) -> Sums:
    """Match one class through one video: once for all thresholds, by IoU weighted with how well two tracks agree."""
    from scipy.optimize import linear_sum_assignment  # half a second of import that most scores do not pay

    truth, prediction, frames = detections.global_ids(frames)
    agreement = _agreement(truth, prediction, frames)
    matched = np.zeros((len(THRESHOLDS), len(truth), len(prediction)))
    iou = np.zeros(len(THRESHOLDS))
    for g, p, similarity in frames:
        rows, columns = linear_sum_assignment(-(agreement[np.ix_(g, p)] * similarity))
        for a, threshold in enumerate(THRESHOLDS):
            hit = similarity[rows, columns] >= threshold - EPSILON
            matched[a, g[rows[hit]], p[columns[hit]]] += 1
            iou[a] += similarity[rows[hit], columns[hit]].sum()
    tp = matched.sum(axis=(1, 2))
    shares = matched / np.maximum(1, truth[:, None] + prediction - matched)
    return Sums(tp, truth.sum() - tp, prediction.sum() - tp, (matched * shares).sum(axis=(1, 2)), iou)


def _agreement(truth: np.ndarray, prediction: np.ndarray, frames: list[detections.Detections]) -> np.ndarray:
    """How well two tracks agree over the video, float64 `[G, P]`: a soft IoU of the frames in which they overlap."""
    overlap = np.zeros((len(truth), len(prediction)))
    for g, p, similarity in frames:
        union = similarity.sum(axis=0) + similarity.sum(axis=1)[:, None] - similarity
        overlap[np.ix_(g, p)] += np.where(union > EPSILON, similarity / np.where(union > EPSILON, union, 1), 0.0)
    return overlap / (truth[:, None] + prediction - overlap)


def scores(parts: Iterable[Sums]) -> dict[str, float]:
    """`hota`, `deta`, `assa`, `loca` in percent of one class, means over the thresholds."""
    tp, fn, fp, association, iou = (np.sum(column, axis=0) for column in zip(*parts, strict=True))
    deta = tp / np.maximum(1, tp + fn + fp)
    assa = association / np.maximum(1, tp)
    loca = np.maximum(1e-10, iou) / np.maximum(1e-10, tp)
    values = (np.sqrt(deta * assa), deta, assa, loca)
    return {name: float(100 * value.mean()) for name, value in zip(NAMES, values, strict=True)}


class HigherOrderTrackingAccuracy:
    """State: the sums of every video and class."""

    def __init__(self, classes: ClassTable):
        self.classes = classes
        self.videos: dict[str, dict[int, Sums]] = {}

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """The empty state."""
        return cls(settings.classes)

    def update(self, video: str, counts: VideoCounts) -> None:
        """Add one video; ValueError when it was added before."""
        check_classes(counts, len(self.classes.names))
        detected = detections.of_video(counts, np.asarray(self.classes.is_thing, bool))
        by_class = {
            c: sums_of(frames) for c, frames in detected if any(len(f.truth) + len(f.prediction) for f in frames)
        }
        merge_videos(self.videos, {video: by_class})

    def merge(self, other: "HigherOrderTrackingAccuracy") -> None:
        """Take in the videos of another state."""
        merge_videos(self.videos, other.videos)

    def compute(self) -> dict:
        """`hota`, `deta`, `assa`, `loca`: means over the thing classes that occur; `per_class`, `per_video`."""
        return detections.summary(self.videos, self.classes, scores, NAMES)

    @staticmethod
    def headline(numbers: Mapping) -> dict[str, float | None]:
        """HOTA."""
        return {"hota": numbers["hota"]}

    @staticmethod
    def rows(numbers: Mapping) -> list[Table]:
        """HOTA and its parts, of all, of classes and of videos."""
        titles = {"hota": "HOTA", "deta": "DetA", "assa": "AssA", "loca": "LocA"}
        return [
            other_scores([(title, numbers[name]) for name, title in titles.items()]),
            per_class(numbers, NAMES, lambda row: (row[name] for name in NAMES)),
            per_video(numbers, NAMES),
        ]
