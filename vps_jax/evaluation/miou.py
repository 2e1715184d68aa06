"""Semantic scores: mIoU, pixel and class accuracy, frequency-weighted IoU (spec: metrics 5.3).

A confusion matrix is int64 `[c+1, c+1]`, rows truth, columns prediction; index c is no class (void). Matrices add.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from vps_jax.datasets.classes import ClassTable, class_table
from vps_jax.evaluation.counts import VideoCounts, check_classes, count_frame
from vps_jax.evaluation.protocol import MATRIX, Settings, Table, merge_videos, other_scores, per_class, per_video


def confusion_of_counts(counts: VideoCounts, num_classes: int) -> np.ndarray:
    """Confusion matrix of a panoptic video: a pixel has the class that its frame's table gives its id."""
    truth = counts.truth.categories[:, counts.pair_truth]  # [t, k]
    prediction = counts.prediction.categories[:, counts.pair_prediction]
    return _confusion(truth, prediction, counts.shared, num_classes)


def confusion_of_maps(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion matrix of one frame of class maps `[h, w]` with 0-based classes; other values are no class."""
    pairs = count_frame(*(_without_negatives(labels, num_classes) for labels in (truth, prediction)))
    return _confusion(pairs.truth, pairs.prediction, pairs.pixels, num_classes)


def _without_negatives(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Negative labels, which cannot be counted as ids, become another value that is no class."""
    return np.where(labels < 0, num_classes, labels) if labels.dtype.kind == "i" else labels


def _confusion(truth: np.ndarray, prediction: np.ndarray, pixels: np.ndarray, num_classes: int) -> np.ndarray:
    size = num_classes + 1
    rows, columns = (np.where((c >= 0) & (c < num_classes), c, num_classes) for c in (truth, prediction))
    cells = np.bincount((rows * size + columns).ravel(), weights=pixels.ravel(), minlength=size * size)
    return cells.astype(np.int64).reshape(size, size)  # the float64 sums are whole numbers below 2^53


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """IoU of each class and of no class, float64 `[c+1]` in 0..1 over pixels with truth; nan where the union is empty.

    Void truth takes no part. No class as a prediction has intersection 0.
    """
    known = confusion.copy()
    known[-1] = 0
    hit = np.diag(known).astype(float)
    union = known.sum(axis=0) + known.sum(axis=1) - hit
    return np.where(union > 0, hit / np.maximum(union, 1), np.nan)


def semantic_scores(confusion: np.ndarray) -> dict[str, float | int | None]:
    """`miou`, `pixel_accuracy`, `class_accuracy`, `frequency_weighted_iou` in percent; `classes` in the truth.

    The means run over the classes that the truth has: false positives of other classes only hurt the classes that
    they replace. A pixel predicted as no class is a miss (the official script has no value for it). None when the
    truth has no labelled pixel.
    """
    known = confusion[:-1]  # [c, c+1]
    size = known.sum(axis=1)
    present = size > 0
    if not present.any():
        return dict.fromkeys(SCORE_NAMES) | {"classes": 0}
    iou, hit, size = class_iou(confusion)[:-1][present], np.diag(known)[present], size[present]
    return {
        "miou": float(100 * iou.mean()),
        "pixel_accuracy": float(100 * hit.sum() / size.sum()),
        "class_accuracy": float(100 * (hit / size).mean()),
        "frequency_weighted_iou": float(100 * (iou * size).sum() / size.sum()),
        "classes": int(present.sum()),
    }


VOID_NAME = "void"
SCORE_NAMES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "class_accuracy": "class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
}


class MeanIoU:
    """State: one confusion matrix of all videos, and each video's own score."""

    def __init__(self, classes: ClassTable | None = None):
        self.classes = classes or class_table("vspw")
        size = len(self.classes.names) + 1
        self.confusion = np.zeros((size, size), np.int64)
        self.videos: dict[str, dict] = {}  # scores and counts of each

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """The empty state."""
        return cls(settings.classes)

    def update(self, video: str, counts: VideoCounts) -> None:
        """Add one video.

        Raises:
          ValueError: the video was scored before, or a category is none of the classes.
        """
        check_classes(counts, len(self.classes.names))
        self.add(video, confusion_of_counts(counts, len(self.classes.names)))

    def add(self, video: str, confusion: np.ndarray) -> None:
        """Add one video's confusion matrix; ValueError when the video was scored before."""
        merge_videos(self.videos, {video: semantic_scores(confusion) | {"counts": class_overlaps(confusion)}})
        self.confusion += confusion

    def merge(self, other: "MeanIoU") -> None:
        """Take in the videos of another state; ValueError when both have one."""
        merge_videos(self.videos, other.videos)
        self.confusion += other.confusion

    def compute(self) -> dict:
        """`semantic_scores` of all videos, with `per_class` (text of id -> name, iou), `per_video`, and `confusion`.

        `confusion`: `classes` are names, the last is void; `pixels` has true -> predicted class -> number.
        """
        iou = class_iou(self.confusion)
        rows = {
            str(c): {
                "name": self.classes.names[c],
                "isthing": bool(self.classes.is_thing[c]),
                "iou": float(100 * iou[c]),
            }
            for c in np.flatnonzero(self.confusion[:-1].sum(axis=1))
        }
        videos = {video: self.videos[video] for video in sorted(self.videos)}
        return semantic_scores(self.confusion) | {
            "per_class": rows,
            "per_video": videos,
            "confusion": {
                "classes": [*self.classes.names, VOID_NAME],
                "pixels": {
                    str(t): {str(p): int(row[p]) for p in np.flatnonzero(row)}
                    for t, row in enumerate(self.confusion)
                    if row.any()
                },
            },
        }

    @staticmethod
    def headline(numbers: Mapping) -> dict[str, float | None]:
        """mIoU."""
        return {"miou": numbers["miou"]}

    @staticmethod
    def resample(numbers: Mapping, weights: np.ndarray) -> dict[str, np.ndarray]:
        """`miou` of sets in which video v of `per_video` occurs `weights[b, v]` times: float64 `[b]`, nan undefined."""
        parts = [row["counts"] for row in numbers["per_video"].values()]
        hit, union, truth = resampled_overlaps(parts, weights)
        return {"miou": 100 * mean_over(hit / np.maximum(union, 1), truth > 0)}

    @staticmethod
    def rows(numbers: Mapping) -> list[Table]:
        """The four means, classes, videos and the confusion matrix."""
        return [
            other_scores([(title, numbers[name]) for name, title in SCORE_NAMES.items()]),
            per_class(numbers, ("iou",), lambda row: (row["iou"],)),
            per_video(numbers, tuple(SCORE_NAMES)),
            confusion_table(numbers["confusion"]),
        ]


def confusion_table(confusion: Mapping) -> Table:
    """Pixels of every true (row) and predicted (column) class that occurs."""
    names, pixels = confusion["classes"], confusion["pixels"]
    columns = sorted({c for row in pixels.values() for c in row} | pixels.keys(), key=int)
    rows = [(names[int(t)], *(row.get(p, 0) for p in columns)) for t, row in pixels.items()]
    return Table(MATRIX, "Pixels of every true and predicted class", ("truth", *(names[int(c)] for c in columns)), rows)


def class_overlaps(confusion: np.ndarray) -> dict[str, list[int]]:
    """Class -> intersection, union and truth pixels over labelled pixels; the number after the last class is void."""
    known = confusion.copy()
    known[-1] = 0
    hit, truth = np.diag(known), known.sum(axis=1)
    union = known.sum(axis=0) + truth - hit
    return {str(c): [int(hit[c]), int(union[c]), int(truth[c])] for c in np.flatnonzero(union)}


def resampled_overlaps(parts: Sequence[Mapping[str, list[int]]], weights: np.ndarray) -> np.ndarray:
    """Sums of `class_overlaps` over sets in which part v is `weights[b, v]` times: float64 `[3, b, c]`."""
    classes = sorted({c for part in parts for c in part}, key=int)
    counts = np.array([[part.get(c, (0, 0, 0)) for c in classes] for part in parts], float)
    counts = counts.reshape(len(parts), len(classes), 3)
    return np.moveaxis(np.tensordot(weights.astype(float), counts, axes=1), -1, 0)


def mean_over(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Mean along the last axis of the values that count, nan where none does."""
    number = counted.sum(axis=-1)
    total = np.where(counted, values, 0.0).sum(axis=-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
