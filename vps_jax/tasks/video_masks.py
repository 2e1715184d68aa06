"""Segments of a video as masks with one class each, carried by queries from frame to frame (spec: videomt 8).

Every segment of a clip is one object: a thing, or all of a stuff class. Pixels without a label count as background of
every mask, as published.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from vps_jax import config
from vps_jax.losses import first_appearance
from vps_jax.losses.first_appearance import FrameSets
from vps_jax.losses.mask_losses import Objects
from vps_jax.ops import sampling
from vps_jax.ops.masks import ids_present
from vps_jax.tasks import terms
from vps_jax.tasks.mask_classification import class_masks
from vps_jax.tasks.targets import id_map_targets
from vps_jax.types import Clip, ClipPrediction, FrameQueryOutputs, Targets


@dataclasses.dataclass(frozen=True)
class VideoMasks:
    """See `tasks.Task`."""

    name: ClassVar[str] = "video_masks"
    numbers: config.VideoMasks
    num_classes: int
    class_map: tuple[int, ...] | None = None

    def make_targets(self, clip: Clip) -> Targets:
        """Targets of a batch of clips, one row for each segment.

        Rows are the clip's instances and then the classes, for pixels that no instance has; classes alone where the
        segments are semantic, instances alone where they are instances.
        """
        targets = id_map_targets(clip, self.num_classes, self.class_map)
        if self.numbers.segments == "instance":
            return targets
        if self.numbers.segments == "semantic":
            return class_masks(targets.semantic, self.num_classes)
        rows = targets.instance_classes.shape[1]
        ids = jnp.where(targets.semantic < 0, 0, 1 + rows + targets.semantic)
        ids = jnp.where(targets.instance_ids > 0, targets.instance_ids, ids)
        there = ids_present(ids, rows + self.num_classes)[:, rows:]
        stuff = jnp.where(there, jnp.arange(self.num_classes), -1)
        return Targets(ids, jnp.concatenate([targets.instance_classes, stuff], axis=1), targets.semantic)

    def loss(self, outputs: FrameQueryOutputs, targets: Targets, key, mesh=None, points=None):
        """Loss summed over all prediction sets; see `tasks.Task`.

        Args:
          points: `matcher` `[d, b, t, p, 2]` and `instance` `[d, b, n, t, p, 2]`.
        """
        objects = Objects.of_targets(targets)
        return terms.over_sets(*self.set_terms(outputs, objects, key, mesh, points))

    def set_terms(self, outputs: FrameQueryOutputs, objects: Objects, key, mesh=None, points=None):
        """Loss, and the weighted terms `class`, `mask` and `dice` of every prediction set, `[d]` each."""
        n = self.numbers
        embeds, logits = (a.astype(jnp.float32) for a in (outputs.mask_embeds, outputs.class_logits))
        sets = FrameSets(outputs.mask_features.astype(jnp.float32), embeds, logits)
        first = first_appearance.first_frames(objects)
        if n.match_frame == "first":  # even an object that comes later
            first = jnp.zeros_like(first)
        return first_appearance.terms(
            sets,
            objects,
            first,
            self._given(points) if points else self._random_points(key, sets, objects),
            weights=(n.class_weight, n.mask_weight, n.dice_weight),
            null_weight=n.background_weight,
            num_points=n.mask_points,
            group=n.normalize_clips,
            mesh=mesh,
        )

    def _random_points(self, key, sets: FrameSets, objects: Objects):
        """What the terms choose their points from; every frame of every clip draws its own."""
        d, b, t = sets.features.shape[:3]
        n = self.numbers
        most = max(n.mask_points, -(-n.match_points // sampling.OVERSAMPLE))
        base, shifts = sampling.draw(key, b * t, d, most, ((objects.valid.shape[1], 1),))
        matcher = base[None, :, : n.match_points].reshape(1, b, t, -1, 2)
        return {"matcher": self._matched(matcher), "base": base, "shifts": shifts[0]}

    def _given(self, points):
        """`[d, b, n, t, p, 2]` of the masks with every frame a sample."""
        masks = jnp.moveaxis(points["instance"], 3, 2)  # [d, b, t, n, p, 2]
        masks = masks.reshape(masks.shape[0], -1, *masks.shape[3:])[:, :, :, None]
        return {"matcher": self._matched(points["matcher"]), "points": masks}

    def _matched(self, points):
        """The points of those frames in which objects are matched."""
        return points[:, :, :1] if self.numbers.match_frame == "first" else points

    def decode(self, outputs: FrameQueryOutputs) -> ClipPrediction:
        """Scores of the last prediction set, every array with a leading `b`.

        Returns:
          mask logits `[b, q, t, h4, w4]`; class logits of every frame `[b, t, q, k + 1]`, "no object" last; and
          `[b, k, t, h4, w4]`, the sum over queries of a frame's class probability times mask probability (0..q).
        """
        features, embeds = (a[-1].astype(jnp.float32) for a in (outputs.mask_features, outputs.mask_embeds))
        masks = jnp.einsum("bthwc,btqc->bqthw", features, embeds)
        classes = outputs.class_logits[-1].astype(jnp.float32)
        semantic = jnp.einsum("bqthw,btqk->bkthw", jax.nn.sigmoid(masks), jax.nn.softmax(classes)[..., :-1])
        return ClipPrediction(instance_masks=masks, instance_classes=classes, semantic=semantic)
