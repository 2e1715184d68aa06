"""Terms of the losses, and decoding, that tasks share: TarViS' panoptic, instance and semantic, mask classification."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vps_jax.losses import matcher, set_loss
from vps_jax.losses.mask_losses import Objects
from vps_jax.losses.semantic_losses import class_weights, semantic_logits
from vps_jax.ops import sampling
from vps_jax.ops.masks import mask_logits
from vps_jax.shapes import Float, Integer
from vps_jax.types import Array, ClipPrediction, QueryOutputs

Terms = dict[str, Float[Array, " d"]]  # the weighted terms of every prediction set and its statistics, for the record

REGULARIZATION = 1e-3


def matched_terms(
    outputs: QueryOutputs,
    objects: Objects,
    numbers: Any,
    points: Mapping[str, Any],
    *,
    group: str = "instance",
    null: int = 0,
    mesh=None,
) -> tuple[Float[Array, ""], Terms]:
    """Loss of queries that are matched with objects (spec: tarvis 6.2, vit_adapter 5.1).

    Args:
      outputs: see `types.QueryOutputs`.
      numbers: of the task, see `config`.
      points: see `random_points`.
      group: the queries' group.
      null: the column of the class logits that says background or no object.

    Returns:
      the sum over all sets, and the weighted terms `class`, `mask` and `dice` and the statistics of the matching of
      every set, `[d]` each, for the record.
    """
    features = outputs.mask_features.astype(jnp.float32)
    embeds, logits = outputs.mask_embeds[group].astype(jnp.float32), outputs.class_logits
    weights = (numbers.class_weight, numbers.mask_weight, numbers.dice_weight)
    columns = matcher.match(features, embeds, logits, objects, points["matcher"], weights=weights, mesh=mesh)
    classes = set_loss.class_terms(
        logits, columns, objects, null=null, null_weight=numbers.background_weight, group=numbers.normalize_clips
    )
    loss, mask, dice = set_loss.mask_terms(
        features,
        embeds,
        columns,
        objects,
        weights=weights[1:],
        num_points=numbers.mask_points,
        group=numbers.normalize_clips,
        mesh=mesh,
        **points["instance"],
    )
    classes = weights[0] * classes
    found = {"class": classes, "mask": mask, "dice": dice, **matcher.statistics(columns)}
    return loss + jnp.sum(classes), found


def semantic_terms(
    outputs: QueryOutputs,
    labels: Integer[Array, "b t h w"],
    numbers: Any,
    points: Mapping[str, Any],
    *,
    background: bool,
    mesh=None,
) -> tuple[Float[Array, ""], Terms]:
    """Semantic loss (spec: tarvis 6.3, 6.4).

    Args:
      labels: int32 `[b, t, h, w]` with `IGNORE`; class 0 is the background when `background`.
      numbers: of the task, see `config`.
      points: see `random_points`.

    Returns:
      the sum over all sets, and the weighted terms `semantic` and, if on, `regularization` of every set, `[d]` each.
    """
    embeds, balance = outputs.mask_embeds["semantic"].astype(jnp.float32), numbers.class_balance
    branch = set_loss.Semantic(
        embeds,
        outputs.mask_embeds["background"].astype(jnp.float32) if background else None,
        labels,
        class_weights(labels, embeds.shape[2] + background, balance) if balance else None,
    )
    ce, norm = set_loss.semantic_terms(
        outputs.mask_features.astype(jnp.float32),
        branch,
        num_points=numbers.semantic_points,
        ignore_null_classes=numbers.ignore_null_classes,
        group=numbers.normalize_clips,
        mesh=mesh,
        **points["semantic"],
    )
    terms = {"semantic": numbers.semantic_weight * ce}
    if numbers.regularization:
        terms["regularization"] = REGULARIZATION * norm
    return sum(jnp.sum(term) for term in terms.values()), terms


def random_points(key, outputs: QueryOutputs, numbers: Any, rows: int = 0) -> dict[str, Any]:
    """What the terms choose their points from, for `rows` objects; 0 for a task without objects.

    Returns:
      `matcher`: `[1, b, p, 2]`, one set of points per sample that predictions, targets, frames and sets share.
      `instance`, `semantic`: `base` and `shifts` of `sampling.Draw`.
    """
    batch, frames = outputs.mask_features.shape[:2]
    sets = outputs.mask_embeds["semantic"].shape[0]
    match_points = numbers.match_points if rows else 0
    most = max(numbers.semantic_points, numbers.mask_points if rows else 0)
    # the matcher's points are the first of the base, which is longer than a map's share of it
    most = max(most, -(-match_points // sampling.OVERSAMPLE))
    base, shifts = sampling.draw(key, batch, sets, most, ((rows, frames), (frames,)))
    return {
        "matcher": base[None, :, :match_points],
        "instance": {"base": base, "shifts": shifts[0]},
        "semantic": {"base": base, "shifts": shifts[1]},
    }


def given_points(points: Mapping[str, Float[Array, "..."]]) -> dict[str, Any]:
    """`random_points` for points that are known: a mapping of `matcher`, `instance` and `semantic` to arrays."""
    return {name: {"points": a} if name != "matcher" else a for name, a in points.items()}


def over_sets(loss: Float[Array, ""], terms: Terms) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The result of a task's `loss`: terms summed over the sets, and statistics of the last one, without gradient."""
    one = {name: term[-1] if name.startswith(matcher.STATISTICS) else jnp.sum(term) for name, term in terms.items()}
    return loss, jax.lax.stop_gradient(one)


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
