"""Segmentation and tracking quality STQ = sqrt(AQ * SQ) as VIPSeg's script computes it (spec: metrics 5.2)."""

import math
from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np

from vps_jax.datasets.classes import ClassTable, class_table
from vps_jax.evaluation import miou
from vps_jax.evaluation.counts import Tubes, VideoCounts, check_classes
from vps_jax.evaluation.protocol import Settings, Table, merge_videos, other_scores, per_class, per_video
from vps_jax.evaluation.quirks import OFFICIAL, Quirks


class VideoTracks(NamedTuple):
    """What one video adds.

    `association` is the sum of a(g) over its `tracks` truth tracks, `sq` is in 0..1 and None without a labelled pixel,
    `overlaps` are those of `miou.class_overlaps`.
    """

    association: float
    tracks: int
    sq: float | None
    frames: int
    overlaps: dict[str, list[int]]


def _first_listed_id(tubes: Tubes) -> int:
    """Index of the id that the video's tables list first, -1 when they list none."""
    frames, ids = np.nonzero(tubes.categories >= 0)
    if not len(frames):
        return -1
    at_start = frames == frames[0]  # nonzero goes frame by frame
    return int(ids[at_start][np.argmin(tubes.order[frames[0], ids[at_start]])])


def _track_sizes(labels: np.ndarray, pixels: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(labels, weights=pixels, minlength=size)


def associations(counts: VideoCounts, is_thing: np.ndarray, quirks: Quirks = OFFICIAL) -> tuple[float, int]:
    """Sum of a(g) over the truth tracks of one video, and their number.

    A track is one id with one class, so an id that changes its class is two; classes of the two sides need not agree.
    """
    truth, prediction = counts.truth, counts.prediction
    t, k = np.nonzero(counts.shared)
    pixels = counts.shared[t, k]
    g, p = counts.pair_truth[k], counts.pair_prediction[k]
    truth_class, class_ = truth.categories[t, g], prediction.categories[t, p]
    thing = np.append(is_thing, False)  # class -1 (void) is no thing
    truth_thing, predicted_thing = thing[truth_class], thing[class_]

    crowd = np.zeros(len(t), bool)
    if quirks.first_thing_crowd:
        crowd |= g == _first_listed_id(truth)
    if not quirks.crowd_tracks:
        crowd |= truth.crowd[t, g]
    crowd &= truth_thing
    counted = predicted_thing & ~crowd
    if not quirks.void_in_tracks:
        counted &= truth_class >= 0

    keys, truth_label = np.unique(g * (len(is_thing) + 1) + truth_class, return_inverse=True)
    size = _track_sizes(truth_label[truth_thing & ~crowd], pixels[truth_thing & ~crowd], len(keys))
    predicted_keys, label = np.unique(p * (len(is_thing) + 1) + class_, return_inverse=True)
    predicted_size = _track_sizes(label[counted], pixels[counted], len(predicted_keys))

    both = truth_thing & counted
    pairs, inverse = np.unique(truth_label[both] * len(predicted_keys) + label[both], return_inverse=True)
    shared = np.bincount(inverse, weights=pixels[both], minlength=len(pairs))
    a, b = pairs // max(len(predicted_keys), 1), pairs % max(len(predicted_keys), 1)
    union = size[a] + predicted_size[b] - shared
    return float((shared * shared / union / size[a]).sum()), int((size > 0).sum())


def _sq(confusion: np.ndarray, quirks: Quirks) -> float | None:
    """Mean IoU in 0..1 over the classes with a union; by the script's quirk predicted void is one more class.

    None when the truth has no labelled pixel.
    """
    iou = miou.class_iou(confusion)
    iou = iou if quirks.void_class else iou[:-1]
    counted = ~np.isnan(iou)
    return float(iou[counted].mean()) if counted.any() else None


class SegmentationTrackingQuality:
    """State: one confusion matrix of all videos, and each video's associations."""

    def __init__(self, classes: ClassTable | None = None, *, quirks: Quirks = OFFICIAL):
        self.classes = classes or class_table("vipseg")
        self.quirks = quirks
        size = len(self.classes.names) + 1
        self.confusion = np.zeros((size, size), np.int64)
        self.videos: dict[str, VideoTracks] = {}

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """The empty state."""
        return cls(settings.classes, quirks=settings.quirks)

    def update(self, video: str, counts: VideoCounts) -> None:
        """Add one video.

        Raises:
          ValueError: the video was scored before, or a category is none of the classes.
        """
        check_classes(counts, len(self.classes.names))
        confusion = miou.confusion_of_counts(counts, len(self.classes.names))
        association, tracks = associations(counts, np.asarray(self.classes.is_thing, bool), self.quirks)
        overlaps = miou.class_overlaps(confusion)
        if not self.quirks.void_class:
            overlaps.pop(str(len(self.classes.names)), None)
        one = VideoTracks(association, tracks, _sq(confusion, self.quirks), len(counts.shared), overlaps)
        merge_videos(self.videos, {video: one})
        self.confusion += confusion

    def merge(self, other: "SegmentationTrackingQuality") -> None:
        """Take in the videos of another state; ValueError for other quirks or a video that both have."""
        if self.quirks != other.quirks:
            raise ValueError(f"{other.quirks} cannot be merged into {self.quirks}")
        merge_videos(self.videos, other.videos)
        self.confusion += other.confusion

    def compute(self) -> dict:
        """`stq`, `aq`, `sq` in percent, `tracks`, `per_class` IoU, `per_video`.

        AQ is 0 without any truth track, as officially; SQ and STQ are None when the truth has no labelled pixel.
        """
        videos = [self.videos[video] for video in sorted(self.videos)]
        tracks = sum(video.tracks for video in videos)
        iou = miou.class_iou(self.confusion)
        names = (*self.classes.names, "predicted void")
        return _scores(sum(video.association for video in videos), tracks, _sq(self.confusion, self.quirks)) | {
            "tracks": tracks,
            "per_class": {
                str(c): {"name": names[c], "iou": float(100 * iou[c])} for c in np.flatnonzero(~np.isnan(iou))
            },
            "per_video": {
                name: _scores(video.association, video.tracks, video.sq)
                | {"tracks": video.tracks, "frames": video.frames, "counts": video.overlaps}
                for name, video in sorted(self.videos.items())
            },
        }

    @staticmethod
    def headline(numbers: Mapping) -> dict[str, float | None]:
        """STQ."""
        return {"stq": numbers["stq"]}

    @staticmethod
    def resample(numbers: Mapping, weights: np.ndarray) -> dict[str, np.ndarray]:
        """`stq` of sets in which video v of `per_video` occurs `weights[b, v]` times: float64 `[b]`, nan undefined."""
        videos = list(numbers["per_video"].values())
        hit, union, _ = miou.resampled_overlaps([row["counts"] for row in videos], weights)
        sq = miou.mean_over(hit / np.maximum(union, 1), union > 0)
        tracks = np.array([row["tracks"] for row in videos], float)
        associated = np.array([row["aq"] / 100 for row in videos]) * tracks
        return {"stq": 100 * np.sqrt(sq * (weights @ associated) / np.maximum(weights @ tracks, 1))}

    @staticmethod
    def rows(numbers: Mapping) -> list[Table]:
        """STQ and its factors, IoU of classes, videos."""
        names = ("stq", "aq", "sq", "tracks", "frames")
        return [
            other_scores([(name.upper(), numbers[name]) for name in names[:3]]),
            per_class(numbers, ("stq_iou",), lambda row: (row["iou"],)),
            per_video(numbers, names),
        ]


def _scores(association: float, tracks: int, sq: float | None) -> dict[str, float | None]:
    aq = association / tracks if tracks else 0.0
    if sq is None:
        return {"stq": None, "aq": 100 * aq, "sq": None}
    return {"stq": 100 * math.sqrt(aq * sq), "aq": 100 * aq, "sq": 100 * sq}
