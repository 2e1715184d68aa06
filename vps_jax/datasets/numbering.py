"""Instances of a video whose official numbers do not fit: numbered anew from 1, per video and class, in their order."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vps_jax.datasets.labels import MOST_INSTANCES, panoptic_value

WIDE = 1 << 16  # wide values are class * WIDE + official number; -1 is void


def renumber(wide: Iterable[int], things: Sequence[int]) -> dict[int, int]:
    """Label value of every wide value that a video shows; never two objects with one number.

    Args:
      wide: class * WIDE + official number, 0 for a pixel of the class and of no object; negative ones are void.
      things: classes that have objects; numbers of other classes mean nothing.

    Returns:
      Wide value -> panoptic value; an object beyond the 255th of its class is a pixel of the class.
    """
    values, seen = {}, {}
    for value in sorted(set(wide)):
        category, number = divmod(value, WIDE)
        if value < 0:
            continue
        instance = 0
        if number and category in things:
            seen[category] = seen.get(category, 0) + 1
            instance = seen[category] if seen[category] <= MOST_INSTANCES else 0
        values[value] = panoptic_value(category, instance)
    return values


def look_up(wide: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    """Label values uint16 `[h, w]` of wide values `[h, w]`; 0 where a value is not in the table."""
    order = np.array(sorted(values) or [-1])
    codes = np.array([values.get(int(value), 0) for value in order])
    place = np.minimum(np.searchsorted(order, wide), len(order) - 1)
    return np.where(order[place] == wide, codes[place], 0).astype(np.uint16)


def beyond(values: Mapping[int, int], things: Sequence[int]) -> int:
    """How many objects of these classes found no number."""
    return sum(value // WIDE in things and value % WIDE > 0 and code % 256 == 0 for value, code in values.items())
