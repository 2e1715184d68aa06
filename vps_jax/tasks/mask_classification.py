"""Semantic segmentation as mask classification: Mask2Former's loss with one mask per class (spec: vit_adapter 5.1).

Pixels without a label count as background of every mask, as published.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from vps_jax import config
from vps_jax.losses.mask_losses import Objects
from vps_jax.ops import sampling
from vps_jax.ops.masks import ids_present, mask_logits
from vps_jax.shapes import Int32
from vps_jax.tasks import terms
from vps_jax.tasks.targets import id_map_targets
from vps_jax.types import Array, Clip, ClipPrediction, QueryOutputs, Targets


@dataclasses.dataclass(frozen=True)
class MaskClassification:
    """See `tasks.Task`."""

    name: ClassVar[str] = "mask_classification"
    numbers: config.MaskClassification
    num_classes: int
    class_map: tuple[int, ...] | None = None

    def make_targets(self, clip: Clip) -> Targets:
        """Targets of a batch: row `c` of the table is class `c`, empty when the sample does not show it."""
        return class_masks(id_map_targets(clip, self.num_classes, self.class_map).semantic, self.num_classes)

    def loss(self, outputs: QueryOutputs, targets: Targets, key, mesh=None, points=None):
        """Loss summed over all prediction sets, of the query group `object`; see `tasks.Task`.

        Args:
          outputs: class logits `[d, b, q, k + 1]` with "no object" last.
          points: `matcher` `[d, b, p, 2]` and `instance` `[d, b, k, t, p, 2]`.
        """
        return terms.over_sets(*self.set_terms(outputs, targets, key, mesh, points))

    def set_terms(self, outputs: QueryOutputs, targets: Targets, key, mesh=None, points=None):
        """Loss, and the weighted terms `class`, `mask` and `dice` of every prediction set, `[d]` each."""
        objects = Objects.of_targets(targets)
        points = terms.given_points(points) if points else self._random_points(key, outputs, objects)
        return terms.matched_terms(
            outputs, objects, self.numbers, points, group="object", null=self.num_classes, mesh=mesh
        )

    def _random_points(self, key, outputs: QueryOutputs, objects: Objects):
        """As `tasks.terms.random_points`, for the masks alone."""
        batch, frames = outputs.mask_features.shape[:2]
        sets, rows = outputs.class_logits.shape[0], objects.valid.shape[1]
        most = max(self.numbers.mask_points, -(-self.numbers.match_points // sampling.OVERSAMPLE))
        base, shifts = sampling.draw(key, batch, sets, most, ((rows, frames),))
        matcher = base[None, :, : self.numbers.match_points]
        return {"matcher": matcher, "instance": {"base": base, "shifts": shifts[0]}}

    def decode(self, outputs: QueryOutputs) -> ClipPrediction:
        """Scores `[b, k, t, h4, w4]` of the last prediction set, the sum over queries of class probability times mask
        probability, so 0 and up (spec: vit_adapter 7); no instances."""
        classes = jax.nn.softmax(outputs.class_logits[-1].astype(jnp.float32), axis=-1)[..., :-1]  # [b, q, k]
        logits = mask_logits(
            outputs.mask_features.astype(jnp.float32), outputs.mask_embeds["object"][-1].astype(jnp.float32)
        )
        scores = jnp.einsum("bqk,bthwq->bkthw", classes, jax.nn.sigmoid(logits))
        return ClipPrediction(instance_masks=None, instance_classes=None, semantic=scores)


def class_masks(semantic: Int32[Array, "b t h w"], num_classes: int) -> Targets:
    """One object per class present: int32 `[b, t, h, w]` with `IGNORE` -> targets."""
    ids = jnp.maximum(semantic + 1, 0)  # IGNORE is no object
    classes = jnp.where(ids_present(ids, num_classes), jnp.arange(num_classes), -1)
    return Targets(ids, classes, semantic)
