"""Video panoptic segmentation: instances with classes, and a semantic map of all classes (spec: tarvis 6.2, 6.3).

Settings (`config.tasks.panoptic`; the values are the published Swin-L fine-tuning ones):
  num_classes: classes of the task, things and stuff.
  class_map: class of the task for every class of the data set, -1 for none; None when they are the same.
  match_points, mask_points: points of the matcher, and of each (object, frame) mask.
  semantic_points, semantic_weight: points of each frame, and the weight of their cross entropy.
  regularization: add 1e-3 times the mean L2 norm of the semantic logits; excludes the next.
  ignore_null_classes: leave classes that a batch neither has nor guesses out of its semantic softmax.
  class_weight, mask_weight, dice_weight: 2, 5, 5, in the loss as in the matcher.
  background_weight: 0.1, weight of "no object" in the class loss.
  group: clips over which a loss is normalised at once; 1 as published, see `losses.set_loss`. Divides the batch.
"""

from vps_jax.losses.masks import Objects
from vps_jax.tasks import queries
from vps_jax.tasks.settings import CLIPS, INSTANCES, SEMANTIC, complete
from vps_jax.tasks.targets import id_map_targets
from vps_jax.types import Clip, ClipPrediction, QueryOutputs, Targets

DEFAULTS = {**CLIPS, **INSTANCES, **SEMANTIC}


def make_targets(clip: Clip, settings) -> Targets:
    """Targets of a batch of clips; thing pixels carry their class in the semantic map too."""
    s = complete(settings, DEFAULTS, "panoptic")
    return id_map_targets(clip, s["num_classes"], s["class_map"])


def loss(outputs: QueryOutputs, targets: Targets, key, settings, mesh=None, points=None):
    """Loss summed over all prediction sets.

    Args:
      outputs: groups `instance` and `semantic`; class logits `[d, b, q, 1 + k]` with the background first.
      key: randomness of all points.
      mesh: the mesh ('data', 'fsdp') that the batch is sharded over, or None.
      points: `matcher` `[d, b, p, 2]`, `instance` `[d, b, n, t, p, 2]` and `semantic` `[d, b, t, p, 2]`, (x, y) in
        0..1, to use instead of drawing; or None.

    Returns:
      scalar, and the weighted terms that it is the sum of.
    """
    # class 0 of the class logits is the background
    objects = Objects(targets.instance_ids, targets.instance_classes + 1, targets.instance_classes >= 0)
    return queries.over_sets(*set_terms(outputs, objects, targets.semantic, key, settings, mesh, points))


def set_terms(outputs, objects: Objects, labels, key, settings, mesh=None, points=None):
    """Loss, and the weighted terms of every prediction set, `[d]` each; `labels` is the semantic map."""
    s = complete(settings, DEFAULTS, "panoptic")
    drawn = queries.given_points(points) if points else queries.random_points(key, outputs, s, objects.valid.shape[1])
    instances, terms = queries.matched_terms(outputs, objects, s, drawn, mesh=mesh)
    semantic, more = queries.semantic_terms(outputs, labels, s, drawn, background=False, mesh=mesh)
    return instances + semantic, terms | more


def decode(outputs: QueryOutputs, settings) -> ClipPrediction:
    """Scores of the last prediction set, every array with a leading `b`; semantic logits of the k classes."""
    complete(settings, DEFAULTS, "panoptic")
    return queries.decode_queries(outputs, background=False)
