"""Video semantic segmentation: a semantic map of all classes, no instances (spec: tarvis 6.3, 12.1).

Settings (`config.tasks.semantic`): `num_classes`, `class_map`, `semantic_points`, `semantic_weight`, `regularization`,
`ignore_null_classes` and `group`, as in `tasks.panoptic`.
"""

from vps_jax.tasks import queries
from vps_jax.tasks.settings import CLIPS, SEMANTIC, complete
from vps_jax.tasks.targets import id_map_targets
from vps_jax.types import Clip, ClipPrediction, QueryOutputs, Targets

DEFAULTS = {**CLIPS, **SEMANTIC}


def make_targets(clip: Clip, settings) -> Targets:
    """Targets of a batch of clips; things are folded into their classes and no instance is left."""
    s = complete(settings, DEFAULTS, "semantic")
    targets = id_map_targets(clip, s["num_classes"], s["class_map"])
    return targets._replace(instance_ids=0 * targets.instance_ids, instance_classes=0 * targets.instance_classes - 1)


def loss(outputs: QueryOutputs, targets: Targets, key, settings, mesh=None, points=None):
    """Loss summed over all prediction sets, of the `semantic` group alone; see `tasks.panoptic.loss`."""
    return queries.over_sets(*set_terms(outputs, targets.semantic, key, settings, mesh, points))


def set_terms(outputs, labels, key, settings, mesh=None, points=None):
    """Loss, and the weighted terms of every prediction set, `[d]` each."""
    s = complete(settings, DEFAULTS, "semantic")
    drawn = queries.given_points(points) if points else queries.random_points(key, outputs, s)
    return queries.semantic_terms(outputs, labels, s, drawn, background=False, mesh=mesh)


def decode(outputs: QueryOutputs, settings) -> ClipPrediction:
    """Semantic logits of the last prediction set, `[b, k, t, h4, w4]`; the rest is None."""
    complete(settings, DEFAULTS, "semantic")
    return queries.decode_queries(outputs, background=False)
