"""Label codes: what the 65,536 values of a label map mean."""

from dataclasses import dataclass

import numpy as np

from vps_jax.datasets.classes import ClassTable

VALUES = 65536
PER_CLASS = 256  # values per class in the panoptic code
MOST_INSTANCES = PER_CLASS - 1  # of a class in one video
MOST_CLASSES = VALUES // PER_CLASS - 1


@dataclass(frozen=True, eq=False)
class LabelCode:
    """Meaning of the values of a label map, which is uint16 `[h, w]`.

    Attributes:
      name: kept in prepared folders.
      classes: int32 `[65536]`, class of each value, -1 where the value takes no part in training.
      is_instance: bool `[65536]`, whether the value is one object of its class.
      known: bool `[65536]`, values that the data set's description allows, void included; others are reported.
      void: values of unlabelled pixels.
    """

    name: str
    classes: np.ndarray
    is_instance: np.ndarray
    known: np.ndarray
    void: tuple[int, ...] = (0,)


def panoptic_value(category: int, instance: int) -> int:
    """Value of an instance of a class in the panoptic code; instance 0 is a pixel of the class and of no object."""
    return (category + 1) * PER_CLASS + instance


def class_of(value: int) -> int:
    """Class of a value of the panoptic code, -1 for void."""
    return value // PER_CLASS - 1


def panoptic_code(classes: ClassTable | None = None) -> LabelCode:
    """(class + 1) * 256 + instance, with 0 for no instance; below 256 is void. At most 255 classes and instances.

    Values above the last class name combinations of overlapping instances; without a table there are 255 classes.
    """
    values, count = np.arange(VALUES), MOST_CLASSES if classes is None else len(classes.names)
    taken = (values >= PER_CLASS) & (values < panoptic_value(count, 0))
    meaning = np.where(taken, values // PER_CLASS - 1, -1).astype(np.int32)
    return LabelCode("panoptic", meaning, taken & (values % PER_CLASS > 0), (values == 0) | (values >= PER_CLASS))


PANOPTIC = panoptic_code()
