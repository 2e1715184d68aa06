"""Video instance segmentation: instances with classes, a semantic map of background and things (spec: tarvis 6.2, 6.4).

Settings are those of `tasks.panoptic` (published: semantic_points 12544), and
  void_is_background: pixels without a label are background, as published for data sets that label things alone;
    otherwise they take no part (spec: tarvis 12.2).

Labels are those of the nearest pixel. The published code samples class numbers bilinearly and truncates them, which
invents classes at edges (spec: tarvis 9.5).
"""

import jax.numpy as jnp

from vps_jax.losses.masks import Objects
from vps_jax.tasks import queries
from vps_jax.tasks.settings import CLIPS, INSTANCES, SEMANTIC, complete
from vps_jax.tasks.targets import id_map_targets
from vps_jax.types import IGNORE, Clip, ClipPrediction, QueryOutputs, Targets

BACKGROUND = 0
DEFAULTS = {**CLIPS, **INSTANCES, **SEMANTIC, "semantic_points": 12544, "void_is_background": False}


def make_targets(clip: Clip, settings) -> Targets:
    """Targets of a batch of clips; the semantic map has 0 for background and `1 + c` for class `c` of the task."""
    s = complete(settings, DEFAULTS, "instance")
    outside = s["num_classes"]  # a mark of its own until the background has moved to 0
    targets = id_map_targets(clip, s["num_classes"], s["class_map"], outside=outside)
    void = BACKGROUND if s["void_is_background"] else IGNORE
    labels = jnp.where(targets.semantic == IGNORE, void, targets.semantic + 1)
    return targets._replace(semantic=jnp.where(targets.semantic == outside, BACKGROUND, labels))


def loss(outputs: QueryOutputs, targets: Targets, key, settings, mesh=None, points=None):
    """Loss summed over all prediction sets; as `tasks.panoptic.loss`, with the query group `background` too."""
    objects = Objects(targets.instance_ids, targets.instance_classes + 1, targets.instance_classes >= 0)
    return queries.over_sets(*set_terms(outputs, objects, targets.semantic, key, settings, mesh, points))


def set_terms(outputs, objects: Objects, labels, key, settings, mesh=None, points=None):
    """Loss, and the weighted terms of every prediction set, `[d]`; `labels` is the semantic map with background 0."""
    s = complete(settings, DEFAULTS, "instance")
    drawn = queries.given_points(points) if points else queries.random_points(key, outputs, s, objects.valid.shape[1])
    instances, terms = queries.matched_terms(outputs, objects, s, drawn, mesh=mesh)
    semantic, more = queries.semantic_terms(outputs, labels, s, drawn, background=True, mesh=mesh)
    return instances + semantic, terms | more


def decode(outputs: QueryOutputs, settings) -> ClipPrediction:
    """Scores of the last prediction set with a leading `b`; semantic `[b, 1 + k, t, h4, w4]`, background first."""
    complete(settings, DEFAULTS, "instance")
    return queries.decode_queries(outputs, background=True)
