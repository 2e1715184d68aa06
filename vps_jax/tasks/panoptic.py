"""Video panoptic segmentation: instances with classes, and a semantic map of all classes (spec: tarvis 6.2, 6.3)."""

import dataclasses
from typing import ClassVar

from vps_jax import config
from vps_jax.losses.mask_losses import Objects
from vps_jax.tasks import terms
from vps_jax.tasks.targets import id_map_targets
from vps_jax.types import Clip, ClipPrediction, QueryOutputs, Targets


@dataclasses.dataclass(frozen=True)
class Panoptic:
    """See `tasks.Task`."""

    name: ClassVar[str] = "panoptic"
    with_background: ClassVar[bool] = False  # whether the semantic map has a class of its own for all other pixels
    numbers: config.Panoptic
    num_classes: int
    class_map: tuple[int, ...] | None = None

    def make_targets(self, clip: Clip) -> Targets:
        """Targets of a batch of clips; thing pixels carry their class in the semantic map too."""
        return id_map_targets(clip, self.num_classes, self.class_map)

    def loss(self, outputs: QueryOutputs, targets: Targets, key, mesh=None, points=None):
        """Loss summed over all prediction sets; see `tasks.Task`.

        Args:
          outputs: query groups `instance` and `semantic`, and `background` if the semantic map has that class; class
            logits `[d, b, q, 1 + k]` with the background first.
          points: `matcher` `[d, b, p, 2]`, `instance` `[d, b, n, t, p, 2]` and `semantic` `[d, b, t, p, 2]`, (x, y) in
            0..1.
        """
        # class 0 of the class logits is the background
        objects = Objects.of_targets(targets, first_class=1)
        return terms.over_sets(*self.set_terms(outputs, objects, targets.semantic, key, mesh, points))

    def set_terms(self, outputs, objects: Objects, labels, key, mesh=None, points=None):
        """Loss, and the weighted terms of every prediction set, `[d]` each; `labels` is the semantic map."""
        n, rows = self.numbers, objects.valid.shape[1]
        points = terms.given_points(points) if points else terms.random_points(key, outputs, n, rows)
        instances, matched = terms.matched_terms(outputs, objects, n, points, mesh=mesh)
        semantic, more = terms.semantic_terms(outputs, labels, n, points, background=self.with_background, mesh=mesh)
        return instances + semantic, matched | more

    def decode(self, outputs: QueryOutputs) -> ClipPrediction:
        """Scores of the last prediction set; semantic logits `[b, k, t, h4, w4]`, or `1 + k` with background first."""
        return terms.decode_queries(outputs, background=self.with_background)
