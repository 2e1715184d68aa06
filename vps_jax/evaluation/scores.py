"""The scores of panoptic videos side by side: one pass over the frames of a video feeds them all.

`Settings` say which; `count_frames` and `score_counts` turn one video into states; `merge` joins states of different
videos, in any order and grouping, to the same bits; `compute` gives the numbers.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.evaluation import counts as counting
from vps_jax.evaluation.anatomy import ErrorAnatomy
from vps_jax.evaluation.miou import MeanIoU, confusion_of_counts
from vps_jax.evaluation.quirks import OFFICIAL, Quirks
from vps_jax.evaluation.stq import SegmentationTrackingQuality
from vps_jax.evaluation.vc import Tracker, VideoConsistency
from vps_jax.evaluation.vpq import VideoPQ, window_lengths
from vps_jax.taxonomy import ClassTable
from vps_jax.types import UserError

DEFAULT = ("vpq", "stq", "pq", "miou", "vc")
METRICS = (*DEFAULT, "anatomy")


class Settings(NamedTuple):
    """What to score and how.

    Attributes:
      classes: the truth's class table.
      metrics: names out of `METRICS`.
      windows: window lengths of VPQ in frames.
      quirks: habits of the official scripts that are on.
    """

    classes: ClassTable
    metrics: tuple[str, ...]
    windows: tuple[int, ...] = window_lengths("leaderboard")
    quirks: Quirks = OFFICIAL


def choose_metrics(
    metrics: str | Sequence[str] | None, known: Sequence[str], default: Sequence[str]
) -> tuple[str, ...]:
    """Names of a text `vpq,stq` or a sequence; None is the default, `all` is what is known.

    Raises:
      UserError: a name that is not known for this kind of truth.
    """
    if metrics is None:
        return tuple(default)
    names = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
    if names == ["all"]:
        return tuple(known)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        found = repr(unknown[0]) if unknown else "no metric"
        raise UserError(f"metrics: {found}; this truth can be scored with {', '.join(known)}")
    return tuple(name for name in known if name in names)


def make_states(settings: Settings) -> dict:
    """Empty state of each metric."""
    classes, quirks = settings.classes, settings.quirks
    make = {
        "vpq": lambda: VideoPQ(classes, windows=settings.windows, quirks=quirks),
        "stq": lambda: SegmentationTrackingQuality(classes, quirks=quirks),
        "pq": lambda: VideoPQ(classes, windows=(1,), quirks=quirks),
        "miou": lambda: MeanIoU(classes),
        "vc": VideoConsistency,
        "anatomy": lambda: ErrorAnatomy(classes, windows=settings.windows, quirks=quirks),
    }
    return {name: make[name]() for name in settings.metrics}


def _classes_of(ids: np.ndarray, segments: counting.Segments, none: int) -> np.ndarray:
    """Class of each id by the frame's table, `none` where it is not listed; uint8 `[n]`."""
    by_id = np.argsort(segments.ids)
    sorted_ids = np.append(segments.ids[by_id], -1)
    categories = np.append(segments.categories[by_id], none)
    at = np.searchsorted(sorted_ids[:-1], ids)
    return np.where(sorted_ids[at] == ids, categories[at], none).astype(np.uint8)


def count_frames(
    frames: Iterable[tuple[counting.SegmentFrame, counting.SegmentFrame]], settings: Settings
) -> tuple[counting.VideoCounts, Tracker | None]:
    """Counts of one video, and the consistency tracker when `vc` is asked for; holds two frames at a time.

    Args:
      frames: (truth, prediction) of each frame, of one size.
    """
    tracker = Tracker(len(settings.classes.names), quirks=settings.quirks) if "vc" in settings.metrics else None
    pairs, truth_tables, prediction_tables = [], [], []
    for truth, prediction in frames:
        lengths, (truth_ids, prediction_ids) = counting.runs(truth.pixels, prediction.pixels)
        pairs.append(counting.count_runs(lengths, truth_ids, prediction_ids))
        truth_tables.append(truth.segments)
        prediction_tables.append(prediction.segments)
        if tracker:
            shape = truth.pixels.shape[:2]
            # as VSPW's masks: class + 1 in the truth, where 255 + 1 is 0 for void
            truth_map = np.repeat(_classes_of(truth_ids, truth.segments, 255) + np.uint8(1), lengths).reshape(shape)
            map_ = np.repeat(_classes_of(prediction_ids, prediction.segments, 255), lengths).reshape(shape)
            tracker.add(truth_map, map_)
    return counting.join_frames(pairs, truth_tables, prediction_tables), tracker


def score_counts(video: str, counts: counting.VideoCounts, tracker: Tracker | None, settings: Settings) -> dict:
    """States of one video."""
    states = make_states(settings)
    for name, state in states.items():
        if name == "vc":
            state.update(video, tracker.scores())
        elif name == "miou":
            state.update(video, confusion_of_counts(counts, len(settings.classes.names)))
        else:
            state.update(video, counts)
    return states


def score_video(
    video: str, frames: Iterable[tuple[counting.SegmentFrame, counting.SegmentFrame]], settings: Settings
) -> dict:
    """States of one video from its frames in memory."""
    return score_counts(video, *count_frames(frames, settings), settings)


def merge(states: dict, others: dict) -> None:
    """Take the videos of `others` into `states`."""
    for name, state in states.items():
        state.merge(others[name])


def compute(states: dict) -> dict:
    """Metric -> its numbers, in percent."""
    results = {name: state.compute() for name, state in states.items()}
    if "pq" in results:
        results["pq"] = _image_quality(results["pq"])
    return results


def _image_quality(result: dict) -> dict:
    """Image PQ is VPQ over windows of one frame; its dictionary leaves the windows out."""
    per_class = {
        c: {"name": row["name"], "isthing": row["isthing"]} | row["windows"]["1"]
        for c, row in result["per_class"].items()
    }
    per_video = {video: {"pq": row["vpq"]} for video, row in result["per_video"].items()}
    return result["windows"]["1"] | {"per_class": per_class, "per_video": per_video}
