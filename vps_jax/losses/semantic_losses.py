"""Semantic cross entropy at uncertain points, one frame of one prediction set at a time (spec: tarvis 6.3, 6.4)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vps_jax.losses.mask_losses import POINTS
from vps_jax.ops import masks as mask_ops
from vps_jax.ops import sampling
from vps_jax.shapes import Bool, Float, Integer, Shaped
from vps_jax.types import IGNORE, Array

POINTS_AT_A_TIME = 16384  # points whose logits exist together
NEVER = -1000.0  # uncertainty of an ignored candidate, logit of a null class


class SemanticSums(NamedTuple):
    """Sums over the points of all frames, `[b]` each; `ce` and `labelled` count the points with a label.

    Attributes:
      ce: cross entropy, times the weights of the labels' classes if there are any.
      labelled: number of points with a label, or the sum of their weights.
      norm: L2 norm of the logits.
      points: number of points.
    """

    ce: Float[Array, " b"]
    labelled: Float[Array, " b"]
    norm: Float[Array, " b"]
    points: Float[Array, " b"]


def semantic_logits(
    features: Float[Array, "b *at c"],
    embeds: Float[Array, "b k c"],
    background: Float[Array, "b g c"] | None = None,
) -> Float[Array, "b *at classes"]:
    """Class logits per pixel.

    Args:
      features: `[b, ..., c]`.
      embeds: `[b, k, c]`.
      background: `[b, g, c]` or None. The largest of its logits comes first, before the classes.

    Returns:
      float32 `[b, ..., k]` or `[b, ..., 1 + k]`.
    """
    logits = mask_ops.mask_logits(features, embeds)
    if background is None:
        return logits
    best = jnp.max(mask_ops.mask_logits(features, background), axis=-1, keepdims=True)
    return jnp.concatenate([best, logits], axis=-1)


def uncertain_points(
    logits: Float[Array, "b h w k"],
    ignored: Bool[Array, "b h w"],
    base: Float[Array, "b m 2"],
    shift: Float[Array, "b 2"],
    num_points: int,
) -> Float[Array, "b p 2"]:
    """Points of one frame (spec: tarvis 6.3).

    Args:
      logits: `[b, h, w, k]`.
      ignored: bool `[b, h, w]`.
      base, shift: `[b, m, 2]` and `[b, 2]`, see `sampling.Draw`.

    Returns:
      `[b, p, 2]`.
    """
    drawn, fresh = sampling.candidates(base, shift, num_points)
    ignored = ignored[..., None].astype(jnp.float32)

    def uncertainty(points):  # [b, p, 2]
        # as published, a candidate that touches an ignored cell at all is out
        touched = sampling.bilinear(ignored, points)[..., 0] != 0
        return jnp.where(touched, NEVER, sampling.class_uncertainty(sampling.bilinear(logits, points)))

    values = jax.lax.map(uncertainty, in_pieces(drawn)).swapaxes(0, 1).reshape(drawn.shape[:2])
    return sampling.most_uncertain(values, drawn, fresh)


def in_pieces(points: Shaped[Array, "b p 2"]) -> Shaped[Array, "pieces b q 2"]:
    """Cut `[b, p, 2]` into equal pieces `[pieces, b, p / pieces, 2]` whose logits are of a bearable size."""
    b, count, _ = points.shape
    pieces = next((k for k in range(1, count) if count % k == 0 and count // k <= POINTS_AT_A_TIME), 1)
    return points.reshape(b, pieces, -1, 2).swapaxes(0, 1)


def class_weights(labels: Integer[Array, "b t h w"], num_classes: int, power: float) -> Float[Array, "b k"]:
    """Weight of every class, the same for all clips of the batch [ours].

    Args:
      labels: int32 `[b, t, h, w]` with `IGNORE`.
      num_classes: k.
      power: 0 weighs all pixels the same, 1 all classes.

    Returns:
      float32 `[b, k]`, (pixels of the largest class / pixels of the class) ** power; 1 for the largest.
    """
    pixels = jnp.stack([jnp.sum(labels == c, dtype=jnp.float32) for c in range(num_classes)])
    weights = (jnp.max(pixels) / jnp.maximum(pixels, 1)) ** power
    return jnp.broadcast_to(weights, (labels.shape[0], num_classes))


def point_sums(
    logits: Float[Array, "b p k"],
    labels: Integer[Array, "b p"],
    null: Bool[Array, "b k"] | None = None,
    weights: Float[Array, "b k"] | None = None,
) -> SemanticSums:
    """Sums of one frame.

    Args:
      logits: `[b, p, k]`.
      labels: `[b, p]` with `IGNORE`.
      null: bool `[b, k]`, classes that leave the softmax, or None.
      weights: `[b, k]` of the classes, or None for 1.
    """
    if null is not None:
        logits = jnp.where(null[:, None], NEVER, logits)
    known = labels != IGNORE
    # the label's logit and weight by comparison: the gradient of a gather would be a scatter
    of_label = jnp.arange(logits.shape[-1]) == labels[..., None]
    label_logit = jnp.sum(jnp.where(of_label, logits, 0), axis=-1)
    ce, weight = jax.nn.logsumexp(logits, axis=-1) - label_logit, known
    if weights is not None:
        weight = jnp.sum(jnp.where(of_label, weights[:, None], 0), axis=-1)
        ce = weight * ce
    # the square root's slope at zero is infinite; there the norm has the subgradient 0
    square = jnp.sum(jnp.square(logits), axis=-1)
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    count = jnp.full(labels.shape[0], labels.shape[1], jnp.float32)
    return SemanticSums(
        jnp.sum(jnp.where(known, ce, 0), axis=1),
        jnp.sum(weight, axis=1, dtype=jnp.float32),
        jnp.sum(norm, axis=1),
        count,
    )


def seen_classes(logits: Float[Array, "b p k"], labels: Integer[Array, "b p"]) -> Bool[Array, "b k"]:
    """Classes that are a label or the best guess at some point: `[b, p, k]`, `[b, p]` -> bool `[b, k]`."""
    classes = jnp.arange(logits.shape[-1])
    labelled = jnp.any(labels[..., None] == classes, axis=1)
    return labelled | jnp.any(jnp.argmax(logits, axis=-1)[..., None] == classes, axis=1)


def null_classes(features, embeds, background, labels, given, choose, group: int):
    """Classes that no point of a group's clips has as label or best guess: bool `[b, k]`, without gradient.

    `choose(logits, frame, given[frame])` gives the points of a frame; see `set_sums` for the rest.
    """
    features, embeds, background = jax.lax.stop_gradient((features, embeds, background))

    def frame_seen(x):
        frame, given = x
        logits = semantic_logits(features[:, frame], embeds, background)
        points = choose(logits, frame, given)
        return seen_classes(sampling.bilinear(logits, points), sampling.nearest(labels[:, frame], points))

    seen = jax.lax.map(frame_seen, (jnp.arange(features.shape[1]), given))  # [t, b, k]
    seen = jnp.any(seen, axis=0).reshape(-1, group, seen.shape[-1])
    return ~jnp.repeat(jnp.any(seen, axis=1), group, axis=0)


def set_sums(
    features: Float[Array, "b t h4 w4 c"],
    embeds: Float[Array, "b k c"],
    background: Float[Array, "b g c"] | None,
    labels: Integer[Array, "b t h w"],
    *,
    num_points: int,
    ignore_null_classes: bool,
    group: int,
    weights: Float[Array, "b k"] | None = None,
    base: Float[Array, "b m 2"] | None = None,
    shifts: Float[Array, "b t 2"] | None = None,
    points: Float[Array, "b t p 2"] | None = None,
) -> SemanticSums:
    """Sums of one prediction set.

    Args:
      features: `[b, t, h4, w4, c]`.
      embeds: `[b, k, c]`.
      background: `[b, g, c]` or None, see `semantic_logits`.
      labels: int32 `[b, t, h, w]` with `IGNORE`.
      num_points: per frame.
      ignore_null_classes: cut the logit of a class that no point of the group's clips has as label or best guess.
      group: clips whose points count together for that, divides `b`.
      weights: `[b, k]` of the classes, or None for 1.
      base, shifts: `[b, m, 2]` and `[b, t, 2]`, random numbers to choose the points from, see `sampling.Draw`.
      points: `[b, t, p, 2]` to use instead of choosing.
    """
    frames = jnp.arange(features.shape[1])
    given = jnp.swapaxes(shifts if points is None else points, 0, 1)  # [t, b, ...]
    ignored = mask_ops.quarter(labels == IGNORE)

    def choose(logits, frame, given):
        if points is not None:
            return given
        chosen = uncertain_points(jax.lax.stop_gradient(logits), ignored[:, frame], base, given, num_points)
        return checkpoint_name(chosen, POINTS)

    @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(POINTS))
    def frame_sums(features, embeds, background, frame, given, null):
        logits = semantic_logits(features[:, frame], embeds, background)  # [b, h4, w4, k]

        @jax.checkpoint
        def piece_sums(logits, points):
            return point_sums(
                sampling.bilinear(logits, points), sampling.nearest(labels[:, frame], points), null, weights
            )

        def step(total, points):
            return jax.tree.map(jnp.add, total, piece_sums(logits, points)), None

        return jax.lax.scan(step, zero, in_pieces(choose(logits, frame, given)))[0]

    zero = SemanticSums(*[jnp.zeros(features.shape[0], jnp.float32)] * 4)
    null = null_classes(features, embeds, background, labels, given, choose, group) if ignore_null_classes else None

    def step(total, x):
        return jax.tree.map(jnp.add, total, frame_sums(features, embeds, background, *x, null)), None

    return jax.lax.scan(step, zero, (frames, given))[0]
