"""Panoptic quality: matching of segments, tables of counts per class, and their means (spec: metrics 5.1).

The table of a set is `[c, 4]` float64: IoU sum, true positives, false positives, false negatives of each class. Tables
add. Image PQ is the case of one frame; `vpq` feeds tubes of several frames through the same matching.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

IOU, TP, FP, FN = range(4)


class Window(NamedTuple):
    """Segments of `w` windows of one video (`w = 1` for an image), ready to be matched.

    Attributes:
      truth_category: int64 `[w, g]`, -1 where the id is not listed in the window.
      truth_area: int64 `[w, g]`.
      truth_crowd: bool `[w, g]`.
      truth_order: int64 `[w, g]`, in which order the ids come up in the window's tables.
      category: int64 `[w, p]` of the predicted ids, -1 where not listed.
      area: int64 `[w, p]`.
      void: int64 `[w, p]`, pixels of a predicted id on truth void.
      pair_truth, pair_prediction: int64 `[k]`.
      shared: int64 `[w, k]`, pixels that a pair shares.
    """

    truth_category: np.ndarray
    truth_area: np.ndarray
    truth_crowd: np.ndarray
    truth_order: np.ndarray
    category: np.ndarray
    area: np.ndarray
    void: np.ndarray
    pair_truth: np.ndarray
    pair_prediction: np.ndarray
    shared: np.ndarray


def matches(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """IoU of every pair, and whether it is a match: one class, no crowd, IoU above (not at) a half.

    Truth void inside a prediction is taken out of the union, crowd is not.

    Returns:
      IoU float64 `[w, k]`, 0 where the pair is no candidate; match bool `[w, k]`.
    """
    g, p = window.pair_truth, window.pair_prediction
    category = window.truth_category[:, g]  # [w, k]
    candidate = (category >= 0) & (category == window.category[:, p]) & ~window.truth_crowd[:, g]
    union = window.area[:, p] + window.truth_area[:, g] - window.shared - window.void[:, p]
    candidate &= (union > 0) & (window.shared > 0)  # a json whose areas are too small can give a union of nothing
    iou = np.where(candidate, window.shared / np.where(candidate, union, 1), 0.0)
    return iou, iou > 0.5


def crowd_overlap(window: Window, *, last_only: bool) -> np.ndarray:
    """Pixels `[w, p]` of each predicted id on the crowd of its class: on the last listed one, or on all."""
    forgiving = window.truth_crowd & (window.truth_category >= 0)  # [w, g]
    overlap = np.zeros_like(window.area)
    if not forgiving.any():
        return overlap
    if last_only:
        same = window.truth_category[:, :, None] == window.truth_category[:, None, :]  # [w, g, g]
        later = window.truth_order[:, :, None] < window.truth_order[:, None, :]
        forgiving &= ~(same & later & forgiving[:, None, :]).any(axis=2)
    g, p = window.pair_truth, window.pair_prediction
    counts = forgiving[:, g] & (window.truth_category[:, g] == window.category[:, p])  # [w, k]
    np.add.at(overlap.T, p, np.where(counts, window.shared, 0).T)
    return overlap


def table_of(window: Window, num_classes: int, *, last_crowd: bool = True) -> np.ndarray:
    """Table `[c, 4]` of all windows together.

    A prediction without match is no false positive when more than half of it is on void or on crowd of its class.
    """
    iou, match = matches(window)
    w, k = np.nonzero(match)
    g, p = window.pair_truth[k], window.pair_prediction[k]
    matched_truth = np.zeros(window.truth_category.shape, bool)
    matched_truth[w, g] = True
    matched = np.zeros(window.category.shape, bool)
    matched[w, p] = True

    missed = (window.truth_category >= 0) & ~window.truth_crowd & ~matched_truth
    excused = window.void + crowd_overlap(window, last_only=last_crowd)
    wrong = (window.category >= 0) & ~matched & ~(2 * excused > window.area)
    table = np.zeros((num_classes, 4))
    table[:, IOU] = np.bincount(window.truth_category[w, g], weights=iou[w, k], minlength=num_classes)
    table[:, TP] = np.bincount(window.truth_category[w, g], minlength=num_classes)
    table[:, FP] = np.bincount(window.category[wrong], minlength=num_classes)
    table[:, FN] = np.bincount(window.truth_category[missed], minlength=num_classes)
    return table


def quality(table: np.ndarray) -> dict[str, np.ndarray]:
    """`pq`, `sq`, `rq` of each class, float64 `[c]` in 0..1; nan for a class that is nowhere, `sq` 0 if unmatched."""
    iou, tp, fp, fn = table.T
    counted = tp + fp + fn > 0
    weight = np.where(counted, tp + fp / 2 + fn / 2, np.nan)
    sq = np.where(counted, iou / np.maximum(tp, 1), np.nan)
    return {"pq": iou / weight, "sq": sq, "rq": tp / weight}


def mean_quality(table: np.ndarray, subset: np.ndarray) -> dict[str, float | int | None]:
    """Mean of `pq`, `sq`, `rq` in percent over the classes of `subset` (bool `[c]`) that occur, and their number.

    A class that only false positives have counts with 0. All None when no class occurs (the official script divides
    by zero there).
    """
    values = {name: value[subset] for name, value in quality(table).items()}
    counted = ~np.isnan(values["pq"])
    n = int(counted.sum())
    means = {name: float(100 * value[counted].mean()) if n else None for name, value in values.items()}
    return means | {"classes": n}


def summarize(table: np.ndarray, is_thing: Sequence[bool]) -> dict[str, dict]:
    """`all`, `things` and `stuff` means of a table `[c, 4]`."""
    things = np.asarray(is_thing, bool)
    subsets = {"all": np.ones_like(things), "things": things, "stuff": ~things}
    return {name: mean_quality(table, subset) for name, subset in subsets.items()}


def sparse(table: np.ndarray) -> dict[str, list]:
    """Class -> IoU sum, true positives, false positives, false negatives of the classes that occur, as json has it."""
    return {
        str(c): [float(table[c, IOU]), *(int(table[c, i]) for i in (TP, FP, FN))]
        for c in np.flatnonzero(table[:, 1:].any(axis=1))
    }


def resampled(parts: Sequence[dict[str, list]], weights: np.ndarray) -> np.ndarray:
    """Mean PQ in percent of sets of parts, from `sparse` tables.

    Args:
      parts: one per video.
      weights: `[b, v]`, how often each video is in a set.

    Returns:
      float64 `[b]`, nan where no class occurs.
    """
    classes = sorted({c for part in parts for c in part}, key=int)
    tables = np.zeros((len(parts), len(classes), 4))
    for v, part in enumerate(parts):
        for i, c in enumerate(classes):
            tables[v, i] = part.get(c, (0, 0, 0, 0))
    iou, tp, fp, fn = np.moveaxis(np.tensordot(weights.astype(float), tables, axes=1), -1, 0)  # [b, c] each
    size = tp + fp / 2 + fn / 2
    occurs = size > 0
    total = np.where(occurs, iou / np.where(occurs, size, 1), 0.0).sum(axis=1)
    number = occurs.sum(axis=1)
    return np.where(number > 0, 100 * total / np.maximum(number, 1), np.nan)
