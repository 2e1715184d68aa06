"""Loss and decoding that the panoptic and the instance task share: TarViS' instance queries with classes."""

import jax.numpy as jnp

from vps_jax.losses import matching, set_loss
from vps_jax.losses.masks import Objects
from vps_jax.losses.semantic import semantic_logits
from vps_jax.ops.masks import mask_logits
from vps_jax.tasks.targets import sample_keys
from vps_jax.types import ClipPrediction, QueryOutputs

REGULARIZATION = 1e-3


def instance_terms(outputs: QueryOutputs, objects: Objects, keys, s, *, mesh=None, points=None):
    """Weighted terms `class`, `mask` and `dice` of every prediction set, `[d]` each (spec: tarvis 6.2).

    Args:
      outputs: class logits have the background first.
      keys: `[2, b]`.
      s: complete settings.
      points: `matcher` `[d, b, p, 2]` and `instance` `[d, b, n, t, p, 2]`, or None.
    """
    features = outputs.mask_features.astype(jnp.float32)
    embeds = outputs.mask_embeds["instance"].astype(jnp.float32)
    weights = (s["class_weight"], s["mask_weight"], s["dice_weight"])
    shared = points["matcher"] if points else matching.matching_points(keys[0], s["match_points"])
    columns = matching.match(features, embeds, outputs.class_logits, objects, shared, weights=weights, mesh=mesh)
    classes = set_loss.class_terms(
        outputs.class_logits, columns, objects, null=0, null_weight=s["background_weight"], group=s["group"]
    )
    mask, dice = set_loss.mask_terms(
        features,
        embeds,
        columns,
        objects,
        keys[1],
        num_points=s["mask_points"],
        group=s["group"],
        points=points["instance"] if points else None,
    )
    return {"class": weights[0] * classes, "mask": weights[1] * mask, "dice": weights[2] * dice}


def semantic_terms(outputs: QueryOutputs, labels, keys, s, *, background: bool, points=None):
    """Weighted terms `semantic` and, if on, `regularization` of every set, `[d]` each (spec: tarvis 6.3, 6.4).

    Args:
      labels: int32 `[b, t, h, w]` with `IGNORE`; class 0 is the background when `background`.
      keys: `[b]`.
      points: `semantic` `[d, b, t, p, 2]`, or None.
    """
    branch = set_loss.Semantic(
        outputs.mask_embeds["semantic"].astype(jnp.float32),
        outputs.mask_embeds["background"].astype(jnp.float32) if background else None,
        labels,
    )
    ce, norm = set_loss.semantic_terms(
        outputs.mask_features.astype(jnp.float32),
        branch,
        keys,
        num_points=s["semantic_points"],
        ignore_null_classes=s["ignore_null_classes"],
        group=s["group"],
        points=points["semantic"] if points else None,
    )
    terms = {"semantic": s["semantic_weight"] * ce}
    if s["regularization"]:
        terms["regularization"] = REGULARIZATION * norm
    return terms


def total(terms):
    """Sum over sets: `(scalar, dict of scalars)`, the dict adds up to the scalar."""
    sums = {name: jnp.sum(term) for name, term in terms.items()}
    return sum(sums.values()), sums


def keys_of(key, outputs: QueryOutputs, parts: int):
    """Keys `[parts, b]` for a loss."""
    return sample_keys(key, outputs.mask_features.shape[0], parts)


def decode_queries(outputs: QueryOutputs, *, background: bool) -> ClipPrediction:
    """Scores of the last prediction set, with leading `b` (spec: tarvis 8.2)."""
    features = outputs.mask_features.astype(jnp.float32)
    last = {name: embeds[-1].astype(jnp.float32) for name, embeds in outputs.mask_embeds.items()}
    semantic = semantic_logits(features, last["semantic"], last["background"] if background else None)
    instances = mask_logits(features, last["instance"]) if "instance" in last else None
    return ClipPrediction(
        instance_masks=None if instances is None else jnp.moveaxis(instances, -1, 1),
        instance_classes=None if outputs.class_logits is None else outputs.class_logits[-1].astype(jnp.float32),
        semantic=jnp.moveaxis(semantic, -1, 1),
    )
