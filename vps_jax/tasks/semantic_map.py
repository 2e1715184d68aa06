"""Video semantic segmentation: a semantic map of all classes, no instances (spec: tarvis 6.3, 12.1)."""

import dataclasses
from typing import ClassVar

from vps_jax import config
from vps_jax.tasks import terms
from vps_jax.tasks.targets import id_map_targets
from vps_jax.types import Clip, ClipPrediction, QueryOutputs, Targets


@dataclasses.dataclass(frozen=True)
class Semantic:
    """See `tasks.Task`."""

    name: ClassVar[str] = "semantic"
    numbers: config.Semantic
    num_classes: int
    class_map: tuple[int, ...] | None = None

    def make_targets(self, clip: Clip) -> Targets:
        """Targets of a batch of clips; things are folded into their classes and no instance is left."""
        targets = id_map_targets(clip, self.num_classes, self.class_map)
        no_instance = 0 * targets.instance_classes - 1
        return targets._replace(instance_ids=0 * targets.instance_ids, instance_classes=no_instance)

    def loss(self, outputs: QueryOutputs, targets: Targets, key, mesh=None, points=None):
        """Loss summed over all prediction sets, of the queries `semantic` alone; `points` as in `tasks.panoptic`."""
        points = terms.given_points(points) if points else terms.random_points(key, outputs, self.numbers)
        return terms.over_sets(
            *terms.semantic_terms(outputs, targets.semantic, self.numbers, points, background=False, mesh=mesh)
        )

    def decode(self, outputs: QueryOutputs) -> ClipPrediction:
        """Semantic logits of the last prediction set, `[b, k, t, h4, w4]`; the rest is None."""
        return terms.decode_queries(outputs, background=False)
