"""Average precision of video instances, as YouTube-VIS and OVIS score it (spec: metrics 5.5).

Two tracks' IoU is that of their tubes: intersections over all frames by unions over all frames. Everything else is
COCO's protocol: greedy matching by score at IoU .50:.05:.95, 101 recall points, size ranges, a number of detections
per video and class.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np

from vps_jax.datasets import rle
from vps_jax.evaluation.protocol import SCORES, Settings, Table, merge_videos, per_class, per_video
from vps_jax.evaluation.quirks import OFFICIAL, Quirks

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MAX_DETECTIONS = (1, 10, 100)
# mean pixels per frame in which the track is; both ends belong to a range
SIZES = {"all": (0, 1e10), "small": (0, 128**2), "medium": (128**2, 256**2), "large": (256**2, 1e10)}


class Track(NamedTuple):
    """One instance through a video.

    Attributes:
      category: any id that the class list has.
      frames: runs (see `rle`) of each frame's mask, None where it is absent; as many as the video has frames.
      score: of a prediction, higher is surer.
      crowd: truth that is neither to be found nor wrong to be found.
      areas: pixels per frame as the truth json writes them, None to count them.
    """

    category: int
    frames: Sequence[np.ndarray | None]
    score: float = 0.0
    crowd: bool = False
    areas: Sequence[float | None] | None = None


class TrackPair(NamedTuple):
    """True and predicted tracks of one video."""

    truth: Sequence[Track]
    predictions: Sequence[Track]


def mean_area(track: Track) -> float:
    """Mean of the areas of the frames that have any; 0 without any."""
    areas = track.areas if track.areas is not None else [0 if runs is None else rle.area(runs) for runs in track.frames]
    areas = [value for value in areas if value]
    return float(np.mean(areas)) if areas else 0.0


def tube_ious(predictions: Sequence[Track], truth: Sequence[Track], quirks: Quirks = OFFICIAL) -> np.ndarray:
    """IoU `[d, g]` of every predicted with every true track, 0 where both are empty.

    Raises:
      ValueError: two tracks of different numbers of frames.
    """
    areas, truth_areas = (
        np.array([[0 if runs is None else rle.area(runs) for runs in track.frames] for track in tracks])
        for tracks in (predictions, truth)
    )
    ious = np.zeros((len(predictions), len(truth)))
    for d, g in np.ndindex(ious.shape):
        pairs = zip(predictions[d].frames, truth[g].frames, strict=True)
        shared = sum(rle.intersection(a, b) for a, b in pairs if a is not None and b is not None)
        union = areas[d].sum() + truth_areas[g].sum() - shared
        if truth[g].crowd and not quirks.crowd_union:
            union = areas[d].sum()
        ious[d, g] = shared / union if union else 0.0
    return ious


class Matches(NamedTuple):
    """What one video adds to one class. `d` detections, best first; `a` size ranges; `r` thresholds.

    Attributes:
      scores: float64 `[d]`.
      matched: bool `[a, r, d]`.
      ignored: bool `[a, r, d]`: neither right nor wrong.
      positives: int64 `[a]`, true tracks that are to be found.
    """

    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    positives: np.ndarray


def match(predictions: Sequence[Track], truth: Sequence[Track], quirks: Quirks = OFFICIAL) -> Matches:
    """Match one class in one video: the surest detection first takes the free true track of highest IoU.

    Among equal IoUs the later track is taken, as officially. A track outside the size range, or a crowd, is taken only
    when no other can be; what takes it is ignored. A crowd may be taken many times.
    """
    order = np.argsort([-track.score for track in predictions], kind="stable")[: MAX_DETECTIONS[-1]]
    predictions = [predictions[i] for i in order]
    ious = tube_ious(predictions, truth, quirks)
    crowd = np.array([track.crowd for track in truth], bool)
    sizes, truth_sizes = (np.array([mean_area(track) for track in tracks]) for tracks in (predictions, truth))
    matched, ignored, positives = [], [], []
    for low, high in SIZES.values():
        ignore = crowd | (truth_sizes < low) | (truth_sizes > high)
        hit, skip = _match_greedily(ious, ignore, crowd)
        matched.append(hit)
        ignored.append(skip | (~hit & ((sizes < low) | (sizes > high))))
        positives.append(np.count_nonzero(~ignore))
    scores = np.array([track.score for track in predictions], float)
    return Matches(scores, np.stack(matched), np.stack(ignored), np.array(positives))


def _match_greedily(ious: np.ndarray, ignore: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each detection is matched, and to an ignored track: bool `[r, d]` each; ious `[d, g]`, the rest `[g]`."""
    r, (d, g) = len(THRESHOLDS), ious.shape
    hit, skip = np.zeros((r, d), bool), np.zeros((r, d), bool)
    if not g:
        return hit, skip
    taken = np.zeros((r, g), bool)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for i in range(d):
        free = (~taken | crowd) & (ious[i] >= least)  # [r, g]
        wanted = free & ~ignore
        candidates = np.where(wanted.any(axis=1, keepdims=True), wanted, free)
        best = g - 1 - np.argmax(np.where(candidates, ious[i], -1.0)[:, ::-1], axis=1)  # the last of equals
        hit[:, i] = candidates.any(axis=1)
        skip[:, i] = hit[:, i] & ignore[best]
        taken[hit[:, i], best[hit[:, i]]] = True
    return hit, skip


def precision_recall(parts: Sequence[Matches], size: int, limit: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Precision at the 101 recalls `[r, 101]` and the highest recall `[r]` of one class; None without truth.

    Args:
      parts: one per video; of equal scores the earlier video's comes first.
      size: index of the size range.
      limit: detections per video.
    """
    positives = sum(int(part.positives[size]) for part in parts)
    if not positives:
        return None
    scores = np.concatenate([part.scores[:limit] for part in parts])
    order = np.argsort(-scores, kind="stable")
    matched = np.concatenate([part.matched[size, :, :limit] for part in parts], axis=1)[:, order]
    ignored = np.concatenate([part.ignored[size, :, :limit] for part in parts], axis=1)[:, order]
    right = np.cumsum(matched & ~ignored, axis=1)  # [r, d]
    wrong = np.cumsum(~matched & ~ignored, axis=1)
    recall = right / positives
    precision = right / (right + wrong + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    precision = np.append(precision, np.zeros((len(precision), 1)), axis=1)  # beyond the highest recall
    at = [np.searchsorted(row, RECALLS, side="left") for row in recall]
    curve = np.stack([row[i] for row, i in zip(precision, at, strict=True)])
    return curve, recall[:, -1] if len(scores) else np.zeros(len(recall))


class AveragePrecision:
    """State: the matches of every video and class."""

    def __init__(self, categories: dict[int, str], *, quirks: Quirks = OFFICIAL):
        self.categories = categories
        self.quirks = quirks
        self.videos: dict[int | str, dict[int, Matches]] = {}

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """The empty state."""
        names = settings.classes.names
        return cls({c: name for c, name in enumerate(names) if name}, quirks=settings.quirks)

    def update(self, video: int | str, seen: TrackPair) -> None:
        """Score one video.

        Raises:
          ValueError: the video was scored before.
        """
        matches = {}
        for category in self.categories:
            mine = [
                [track for track in tracks if track.category == category] for tracks in (seen.predictions, seen.truth)
            ]
            if any(mine):
                matches[category] = match(*mine, self.quirks)
        merge_videos(self.videos, {video: matches})

    def merge(self, other: "AveragePrecision") -> None:
        """Take in the videos of another state; ValueError for other quirks or a video that both have."""
        if self.quirks != other.quirks:
            raise ValueError(f"{other.quirks} cannot be merged into {self.quirks}")
        merge_videos(self.videos, other.videos)

    def compute(self) -> dict:
        """Percent: `ap`, `ap50`, `ap75`, `ap_small|medium|large`, `ar1|10|100`, `ar_small|medium|large`, `per_class`,
        `per_video` (`ap`, `ap50`, `ap75`).

        Means over thresholds, recalls and the classes that have truth in the size range; None when none has.
        """
        curves = {
            (size, limit): {c: self._one_class(c, s, limit) for c in self.categories}
            for s, size in enumerate(SIZES)
            for limit in MAX_DETECTIONS
            if size == "all" or limit == MAX_DETECTIONS[-1]
        }
        most = MAX_DETECTIONS[-1]
        everything = curves["all", most]
        result = {
            "ap": _mean(everything, lambda curve, _: curve),
            "ap50": _mean(everything, lambda curve, _: curve[0]),
            "ap75": _mean(everything, lambda curve, _: curve[5]),
        }
        sizes = [size for size in SIZES if size != "all"]
        result |= {f"ap_{size}": _mean(curves[size, most], lambda curve, _: curve) for size in sizes}
        result |= {f"ar{limit}": _mean(curves["all", limit], lambda _, recall: recall) for limit in MAX_DETECTIONS}
        result |= {f"ar_{size}": _mean(curves[size, most], lambda _, recall: recall) for size in sizes}
        result["per_class"] = {
            str(c): {"name": self.categories[c], "ap": _mean({c: one}, lambda curve, _: curve)}
            for c, one in everything.items()
            if one is not None
        }
        result["per_video"] = {str(video): self._one_video(video) for video in sorted(self.videos)}
        return result

    def _one_class(self, category: int, size: int, limit: int):
        parts = [self.videos[video][category] for video in sorted(self.videos) if category in self.videos[video]]
        return precision_recall(parts, size, limit)

    def _one_video(self, video: int | str) -> dict[str, float | None]:
        """AP as if the video were the whole set; None when it has no truth."""
        curves = {c: precision_recall([one], 0, MAX_DETECTIONS[-1]) for c, one in self.videos[video].items()}
        return {
            "ap": _mean(curves, lambda curve, _: curve),
            "ap50": _mean(curves, lambda curve, _: curve[0]),
            "ap75": _mean(curves, lambda curve, _: curve[5]),
        }

    @staticmethod
    def headline(numbers: Mapping) -> dict[str, float | None]:
        """AP over all thresholds, and at 0.5 and 0.75."""
        return {name: numbers[name] for name in ("ap", "ap50", "ap75")}

    @staticmethod
    def rows(numbers: Mapping) -> list[Table]:
        """All means, AP of classes and of videos."""
        means = [(name.upper().replace("_", " "), value) for name, value in numbers.items() if name[:2] in ("ap", "ar")]
        return [
            Table(SCORES, "Average precision and recall", ("score", "percent"), means),
            per_class(numbers, ("ap",), lambda row: (row["ap"],)),
            per_video(numbers, ("ap", "ap50", "ap75")),
        ]


def _mean(classes: dict, pick) -> float | None:
    values = [pick(*one) for one in classes.values() if one is not None]
    return float(100 * np.mean(values)) if values else None
