"""Video object segmentation: objects given by a mask or a point, followed through the clip (spec: tarvis 4.4, 6.5).

Every object has its row of the clip's table, in the order in which the model got the exemplars: first those given by a
mask, then those given by a point.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from vps_jax import config
from vps_jax.losses import set_loss
from vps_jax.losses.mask_losses import Objects
from vps_jax.ops import sampling
from vps_jax.ops.masks import inmost_point, mask_logits
from vps_jax.tasks.targets import instances_of
from vps_jax.tasks.terms import over_sets
from vps_jax.types import IGNORE, Clip, ClipPrediction, QueryOutputs, Targets

QUERIES_IN_TRAINING, QUERIES = 4, 8  # of an object given by a mask; one given by a point has one query


@dataclasses.dataclass(frozen=True)
class Vos:
    """See `tasks.Task`; objects have no classes."""

    name: ClassVar[str] = "vos"
    numbers: config.Vos
    num_classes: int = 0
    class_map: tuple[int, ...] | None = None

    def make_targets(self, clip: Clip) -> Targets:
        """Targets of a batch of clips: the objects of the table without their classes, no semantic map."""
        ids, present, overlaps = instances_of(clip, clip.instance_classes >= 0)
        return Targets(ids, jnp.where(present, 0, -1), jnp.full_like(ids, IGNORE), overlaps)

    def exemplars(self, clip: Clip, point_objects: int = 0):
        """What the model is shown in training: every object as it is in the reference frame (spec: tarvis 7.6, 7.8).

        Args:
          clip: batch of clips.
          point_objects: how many objects, the last ones of the table, are given by a point instead of a mask: the pixel
            farthest from the object's edge, the one closest to its centroid among equals.

        Returns:
          mapping `frames` int32 `[b, 1]`, `masks` bool `[b, n - p, 1, h, w]`, and with point objects `points`
          `[b, p, 2]` (y, x in 0..1) and `point_frames` int32 `[b, p]`.
        """
        targets = self.make_targets(clip)
        objects = Objects.of_targets(targets)
        rows = jnp.arange(clip.instance_classes.shape[1])
        batch, n = clip.instance_classes.shape
        frames = jnp.zeros((batch, 1), jnp.int32) if clip.reference is None else clip.reference[:, None]
        ids = jnp.take_along_axis(targets.instance_ids, frames[..., None, None], axis=1)  # [b, 1, h, w]
        masks = objects.covers(ids, rows[None, :, None, None])  # [b, n, h, w]
        shown = {"frames": frames, "masks": masks[:, : n - point_objects, None]}
        if point_objects:
            shown["points"] = jax.vmap(jax.vmap(inmost_point))(masks[:, n - point_objects :])
            shown["point_frames"] = jnp.broadcast_to(frames, (batch, point_objects))
        return shown

    def loss(self, outputs: QueryOutputs, targets: Targets, key, mesh=None, points=None):
        """Loss summed over all prediction sets; see `tasks.Task`.

        Args:
          outputs: query groups `background_vos` and `vos` of a model in training.
          points: `vos` `[d, b, 1 + n, t, p, 2]`, (x, y) in 0..1.
        """
        objects = Objects.of_targets(targets)
        return over_sets(*self.set_terms(outputs, objects, key, mesh, points))

    def set_terms(self, outputs, objects: Objects, key, mesh=None, points=None, *, queries: int = QUERIES_IN_TRAINING):
        """Loss, and the weighted terms `mask` and `dice` of every set, `[d]`; `queries` of an object with a mask."""
        numbers, features = self.numbers, outputs.mask_features.astype(jnp.float32)
        embeds = {name: outputs.mask_embeds[name].astype(jnp.float32) for name in ("background_vos", "vos")}
        (batch, n), frames, sets = objects.valid.shape, features.shape[1], embeds["vos"].shape[0]
        if points is None:
            base, shifts = sampling.draw(key, batch, sets, numbers.mask_points, ((1 + n, frames),))
            random = {"base": base, "shifts": shifts[0]}
        else:
            random = {"points": points["vos"]}

        def logits(features, embeds):
            return object_logits(features, embeds["background_vos"], embeds["vos"], n, queries)

        mask, dice = set_loss.object_terms(
            features, logits, embeds, objects, num_points=numbers.mask_points, group=numbers.normalize_clips, mesh=mesh,
            **random,
        )  # fmt: skip
        terms = {"mask": numbers.mask_weight * mask, "dice": numbers.dice_weight * dice}
        return jnp.sum(terms["mask"]) + jnp.sum(terms["dice"]), terms

    def decode(self, outputs: QueryOutputs, *, point_objects: int = 0) -> ClipPrediction:
        """Logits of the last prediction set of a model that is not in training, with a leading `b`.

        Returns:
          `instance_masks`: objects `[b, n, t, h4, w4]`; `semantic`: background `[b, 1, t, h4, w4]`; no classes.
        """
        last = {name: outputs.mask_embeds[name][-1].astype(jnp.float32) for name in ("background_vos", "vos")}
        n = (last["vos"].shape[1] - point_objects) // QUERIES + point_objects
        features = outputs.mask_features.astype(jnp.float32)
        logits = object_logits(features, last["background_vos"], last["vos"], n, QUERIES)
        return ClipPrediction(instance_masks=logits[:, 1:], instance_classes=None, semantic=logits[:, :1])


def object_logits(features, background, objects, num_objects: int, queries: int):
    """Background, then objects: the largest logit of the queries of each.

    Args:
      features: `[b, t, h4, w4, c]`.
      background: `[b, g, c]`.
      objects: `[b, q, c]`: `queries` for every object with a mask, then one for every object with a point.
      num_objects: of both kinds.

    Returns:
      `[b, 1 + num_objects, t, h4, w4]`.
    """
    surplus = objects.shape[1] - num_objects  # every object with a mask has `queries` - 1 more than one
    with_mask = surplus // (queries - 1) if queries > 1 else num_objects
    every = mask_logits(features, objects)  # [b, t, h4, w4, q]
    cut = with_mask * queries
    best = jnp.max(every[..., :cut].reshape(*every.shape[:-1], with_mask, queries), axis=-1)
    first = jnp.max(mask_logits(features, background), axis=-1, keepdims=True)
    return jnp.moveaxis(jnp.concatenate([first, best, every[..., cut:]], axis=-1), -1, 1)
