"""A clip on its way from the records to a batch."""

from typing import Any, NamedTuple

import numpy as np

Size = tuple[int, int]  # height, width
PAD_LEVEL = 128  # raw grey of padded image pixels (spec: tarvis 1)


class Sample(NamedTuple):
    """Frames, label values and what the values mean.

    Attributes:
      images: uint8 `[t, h, w, 3]`, RGB 0..255.
      labels: uint16 `[t, h, w]`, label values.
      wanted: bool `[65536]`, values that are instances; in a VOS clip, those of its objects.
      classes: int32 `[65536]`, class of each value, -1 for void.
      pad: level or RGB triple of padded pixels.
    """

    images: np.ndarray
    labels: np.ndarray
    wanted: np.ndarray
    classes: np.ndarray
    pad: Any = PAD_LEVEL
