"""Video instance segmentation: instances with classes, a semantic map of background and things (spec: tarvis 6.2, 6.4).

Labels are those of the nearest pixel. The published code samples class numbers bilinearly and truncates them, which
invents classes at edges (spec: tarvis 9.5).
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from vps_jax import config
from vps_jax.tasks.panoptic import Panoptic
from vps_jax.tasks.targets import id_map_targets
from vps_jax.types import IGNORE, Clip, Targets

BACKGROUND = 0


@dataclasses.dataclass(frozen=True)
class Instance(Panoptic):
    """The losses of `Panoptic`, with a background class in the semantic map; see `tasks.Task`."""

    name: ClassVar[str] = "instance"
    with_background: ClassVar[bool] = True
    numbers: config.Instance

    def make_targets(self, clip: Clip) -> Targets:
        """Targets of a batch of clips; the semantic map has 0 for background and `1 + c` for class `c` of the task.

        A pixel without a label is background if `numbers.void_is_background`, and otherwise takes no part
        (spec: tarvis 12.2).
        """
        outside = self.num_classes  # a mark of its own until the background has moved to 0
        targets = id_map_targets(clip, self.num_classes, self.class_map, outside=outside)
        void = BACKGROUND if self.numbers.void_is_background else IGNORE
        labels = jnp.where(targets.semantic == IGNORE, void, targets.semantic + 1)
        return targets._replace(semantic=jnp.where(targets.semantic == outside, BACKGROUND, labels))
