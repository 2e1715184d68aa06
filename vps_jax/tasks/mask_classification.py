"""Semantic segmentation as mask classification: Mask2Former's loss with one mask per class (spec: vit_adapter 5.1).

Settings (`config.tasks.mask_classification`):
  num_classes: K; the class logits have "no object" last.
  class_map: class of the task for every class of the data set, -1 for none; None when they are the same.
  match_points, mask_points: points of the matcher and of each mask.
  class_weight, mask_weight, dice_weight: 2, 5, 5, in the loss as in the matcher.
  background_weight: 0.1, weight of "no object" in the class loss.
  group: images over which a loss is normalised at once. Published: the two of a device. None: all of the batch.

Pixels without a label count as background of every mask, as published.
"""

import jax
import jax.numpy as jnp

from vps_jax.losses.masks import Objects
from vps_jax.ops import sampling
from vps_jax.ops.masks import ids_present, mask_logits
from vps_jax.tasks import queries
from vps_jax.tasks.settings import CLIPS, INSTANCES, complete
from vps_jax.tasks.targets import id_map_targets
from vps_jax.types import Clip, ClipPrediction, QueryOutputs, Targets

DEFAULTS = {**CLIPS, **INSTANCES, "group": None}


def make_targets(clip: Clip, settings) -> Targets:
    """Targets of a batch: row `c` of the table is class `c`, empty when the sample does not show it."""
    s = complete(settings, DEFAULTS, "mask_classification")
    return class_masks(id_map_targets(clip, s["num_classes"], s["class_map"]).semantic, s["num_classes"])


def class_masks(semantic, num_classes: int) -> Targets:
    """One object per class present: int32 `[b, t, h, w]` with `IGNORE` -> targets."""
    ids = jnp.maximum(semantic + 1, 0)  # IGNORE is no object
    classes = jnp.where(ids_present(ids, num_classes), jnp.arange(num_classes), -1)
    return Targets(ids, classes, semantic)


def loss(outputs: QueryOutputs, targets: Targets, key, settings, mesh=None, points=None):
    """Loss summed over all prediction sets, of the group `object`.

    Args:
      outputs: class logits `[d, b, q, k + 1]` with "no object" last.
      key: randomness of all points.
      mesh: the mesh ('data', 'fsdp') that the batch is sharded over, or None.
      points: `matcher` `[d, b, p, 2]` and `instance` `[d, b, k, t, p, 2]` to use instead of drawing; or None.

    Returns:
      scalar, and the weighted terms that it is the sum of.
    """
    return queries.over_sets(*set_terms(outputs, targets, key, settings, mesh, points))


def set_terms(outputs: QueryOutputs, targets: Targets, key, settings, mesh=None, points=None):
    """Loss, and the weighted terms `class`, `mask` and `dice` of every prediction set, `[d]` each."""
    s = complete(settings, DEFAULTS, "mask_classification")
    objects = Objects(targets.instance_ids, targets.instance_classes, targets.instance_classes >= 0)
    drawn = queries.given_points(points) if points else _random_points(key, outputs, objects, s)
    return queries.matched_terms(outputs, objects, s, drawn, group="object", null=s["num_classes"], mesh=mesh)


def _random_points(key, outputs: QueryOutputs, objects: Objects, s):
    """As `tasks.queries.random_points`, for the masks alone."""
    batch, frames = outputs.mask_features.shape[:2]
    sets, rows = outputs.class_logits.shape[0], objects.valid.shape[1]
    most = max(s["mask_points"], -(-s["match_points"] // sampling.OVERSAMPLE))
    base, shifts = sampling.draw(key, batch, sets, most, ((rows, frames),))
    return {"matcher": base[None, :, : s["match_points"]], "instance": {"base": base, "shifts": shifts[0]}}


def decode(outputs: QueryOutputs, settings) -> ClipPrediction:
    """Scores `[b, k, t, h4, w4]` of the last prediction set, the sum over queries of class probability times mask
    probability, so 0 and up (spec: vit_adapter 7); no instances."""
    complete(settings, DEFAULTS, "mask_classification")
    classes = jax.nn.softmax(outputs.class_logits[-1].astype(jnp.float32), axis=-1)[..., :-1]  # [b, q, k]
    logits = mask_logits(
        outputs.mask_features.astype(jnp.float32), outputs.mask_embeds["object"][-1].astype(jnp.float32)
    )
    scores = jnp.einsum("bqk,bthwq->bkthw", classes, jax.nn.sigmoid(logits))
    return ClipPrediction(instance_masks=None, instance_classes=None, semantic=scores)
