"""Things of a panoptic video as detections with identities, class by class, for the tracking scores."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation.counts import VideoCounts

MATCH = 0.5  # IoU from which a prediction counts as that of a true thing, wherever else it lies


class Detections(NamedTuple):
    """One class in one frame: `g` true and `p` predicted things.

    Attributes:
      truth: int64 `[g]`, index of the truth's id in the video.
      prediction: int64 `[p]`, index of the predicted id.
      iou: float64 `[g, p]`.
    """

    truth: np.ndarray
    prediction: np.ndarray
    iou: np.ndarray


def of_video(counts: VideoCounts, is_thing: np.ndarray) -> Iterator[tuple[int, list[Detections]]]:
    """Every thing class that a video's truth or prediction has, with its detections frame by frame.

    A true crowd is no detection. A prediction with more than half of its pixels on truth void or on crowd of its class,
    and no true thing at IoU 0.5 or above, is none either.
    """
    categories = np.union1d(counts.truth.categories, counts.prediction.categories)
    cells = [_cells(counts, shared) for shared in counts.shared]
    for c in categories[(categories >= 0) & is_thing[categories]].tolist():
        yield c, [_one_frame(counts, t, c, cells[t]) for t in range(len(cells))]


def _cells(counts: VideoCounts, shared: np.ndarray) -> np.ndarray:
    """Shared pixels of a frame, int64 `[truth ids, predicted ids]`; index 0 is void on both sides."""
    cells = np.zeros((len(counts.truth.ids), len(counts.prediction.ids)), np.int64)
    cells[counts.pair_truth, counts.pair_prediction] = shared
    return cells


def _one_frame(counts: VideoCounts, t: int, c: int, cells: np.ndarray) -> Detections:
    truth, prediction = counts.truth, counts.prediction
    of_class = truth.categories[t] == c
    g = np.flatnonzero(of_class & ~truth.crowd[t] & (truth.pixels[t] > 0))
    p = np.flatnonzero((prediction.categories[t] == c) & (prediction.pixels[t] > 0))
    shared = cells[np.ix_(g, p)]
    area = prediction.pixels[t, p]
    iou = shared / (truth.pixels[t, g][:, None] + area - shared)
    forgiven = cells[0, p] + cells[np.ix_(np.flatnonzero(of_class & truth.crowd[t]), p)].sum(axis=0)
    counted = (2 * forgiven <= area) | (iou >= MATCH).any(axis=0)
    return Detections(g, p[counted], iou[:, counted])


def global_ids(frames: list[Detections]) -> tuple[np.ndarray, np.ndarray, list[Detections]]:
    """How often each identity occurs, int64 `[G]` and `[P]`, and the frames with identities counted from 0."""
    columns = []
    for side in ("truth", "prediction"):
        ids = [getattr(frame, side) for frame in frames]
        known, places, number = np.unique(np.concatenate(ids), return_inverse=True, return_counts=True)
        columns.append((number, np.split(places, np.cumsum([len(one) for one in ids])[:-1])))
    (truth, truth_ids), (prediction, prediction_ids) = columns
    renumbered = [Detections(g, p, frame.iou) for g, p, frame in zip(truth_ids, prediction_ids, frames, strict=True)]
    return truth, prediction, renumbered


def summary(
    videos: Mapping[str, Mapping[int, Any]],
    classes: ClassTable,
    scores: Callable[[Iterable], dict],
    names: Sequence[str],
) -> dict:
    """Numbers of a tracking score from what was counted.

    Args:
      videos: video -> thing class -> counts.
      classes: names of the classes.
      scores: counts of one class, of any number of videos -> the named numbers in percent.
      names: of the numbers.

    Returns:
      the numbers as means over the classes that occur; `per_class`, from the counts of all videos; `per_video`, as
      means over the classes of the video.
    """
    videos = {video: videos[video] for video in sorted(videos)}
    by_class = {
        c: scores(counted[c] for counted in videos.values() if c in counted)
        for c in sorted({c for counted in videos.values() for c in counted})
    }
    rows = {str(c): {"name": classes.names[c], "isthing": True} | row for c, row in by_class.items()}
    one = {v: _mean([scores([part]) for part in counted.values()], names) for v, counted in videos.items()}
    return _mean(list(by_class.values()), names) | {"per_class": rows, "per_video": one}


def _mean(rows: list[dict[str, float]], names: Sequence[str]) -> dict[str, float | None]:
    return {name: sum(row[name] for row in rows) / len(rows) if rows else None for name in names}
