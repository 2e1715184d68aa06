"""Label codes: what the 65,536 values of a label map mean."""

from dataclasses import dataclass

import numpy as np

VALUES = 65536
PER_CLASS = 256  # values per class in the panoptic code


@dataclass(frozen=True, eq=False)
class LabelCode:
    """Meaning of the values of a label map, which is uint16 `[h, w]`.

    Attributes:
      name: kept in prepared folders.
      classes: int32 `[65536]`, class of each value, -1 where the value takes no part in training.
      is_instance: bool `[65536]`, whether the value is one object of its class.
      known: bool `[65536]`, values that the data set's description allows, void included; others are reported.
      void: values of pixels that nobody labelled.
    """

    name: str
    classes: np.ndarray
    is_instance: np.ndarray
    known: np.ndarray
    void: tuple[int, ...] = (0,)


def panoptic_value(category: int, instance: int) -> int:
    """Value of an instance of a class in the panoptic code; instance 0 is a pixel of the class and of no object."""
    return (category + 1) * PER_CLASS + instance


def panoptic_code() -> LabelCode:
    """(class + 1) * 256 + instance, with 0 for no instance; below 256 is void. At most 255 classes and instances."""
    values = np.arange(VALUES)
    classes = np.where(values >= PER_CLASS, values // PER_CLASS - 1, -1).astype(np.int32)
    is_instance = (values >= PER_CLASS) & (values % PER_CLASS > 0)
    return LabelCode("panoptic", classes, is_instance, (values == 0) | (values >= PER_CLASS))


PANOPTIC = panoptic_code()
