"""A clip on its way from the records to a batch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

Size = tuple[int, int]  # height, width
PAD_LEVEL = 128  # raw grey of padded image pixels (spec: tarvis 1)
WIDE_TABLES = int(cv2.__version__.split(".")[0]) >= 5  # OpenCV looks 16 bits up


class Sample(NamedTuple):
    """Frames, label values and what the values mean.

    Attributes:
      images: uint8 `[t, h, w, 3]`, RGB 0..255.
      labels: uint16 `[t, h, w]`, label values.
      wanted: bool `[65536]`, values that are instances; in a VOS clip, those of its objects. A combination is wanted
        when one of its instances is.
      classes: int32 `[65536]`, class of each value, -1 for void.
      pad: level or RGB triple of padded pixels.
      combinations: label value -> the instances that overlap in its pixels.
      reference: the frame in which the objects of a VOS clip are given.
    """

    images: np.ndarray
    labels: np.ndarray
    wanted: np.ndarray
    classes: np.ndarray
    pad: Any = PAD_LEVEL
    combinations: Mapping[int, tuple[int, ...]] = {}
    reference: int = 0


def with_combinations(flags: np.ndarray, combinations: Mapping[int, tuple[int, ...]]) -> np.ndarray:
    """bool `[65536]` per label value: a combination has the flag when one of its instances has it."""
    if not combinations:
        return flags
    flags = flags.copy()
    for value, members in combinations.items():
        flags[value] = flags[list(members)].any()
    return flags


def pixel_counts(labels: np.ndarray) -> np.ndarray:
    """How many pixels of label maps uint16 `[..., h, w]` have each value, int64 `[65536]`: a faster `np.bincount`."""
    tall = np.ascontiguousarray(labels).reshape(-1, labels.shape[-1])
    if tall.size >= 2**24:  # OpenCV counts in float32
        return np.bincount(tall.ravel(), minlength=65536)
    return cv2.calcHist([tall], [0], None, [65536], [0, 65536]).ravel().astype(np.int64)


def looked_up(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Entries of a table bool or uint16 `[65536]` for label maps uint16 `[t, h, w]`: a faster `table[labels]`."""
    if not WIDE_TABLES:
        return np.take(table, labels)
    tall = np.ascontiguousarray(labels).reshape(-1, labels.shape[-1])
    entries = table.view(np.uint8) if table.dtype == bool else table
    return cv2.LUT(tall, entries).view(table.dtype).reshape(labels.shape)


def instances_shown(labels: np.ndarray, sample: Sample) -> np.ndarray:
    """Ascending label values of the wanted instances that a label map `[..., h, w]` shows, alone or in combinations."""
    shown = np.flatnonzero((pixel_counts(labels) > 0) & sample.wanted)
    if not sample.combinations:
        return shown
    members = [v for value in shown.tolist() for v in sample.combinations.get(value, (value,)) if sample.wanted[v]]
    return np.unique(np.array(members, np.int64))
