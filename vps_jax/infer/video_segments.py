"""Segments of a video from the classes and masks of carried queries (spec: videomt 5).

A query is one segment through the whole video, its index the identity. Three rules decide what is kept: the authors'
by the video as a whole, the port's by each frame alone, and an online rule by what has been seen so far.
"""

import functools
from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.ops.resize import resize
from vps_jax.shapes import Bool, Float, Integer
from vps_jax.types import Array, Geometry

Size = tuple[int, int]
COVERED = 0.5  # mask probability from which a pixel is the query's own
QUERIES_AT_A_TIME = 16  # whose full-size masks exist together


class Kept(NamedTuple):
    """Queries that may become segments, in their order: index, class and score, numpy `[n]` each."""

    queries: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


class Areas(NamedTuple):
    """Pixels of each query, int `[n]` each: those it owns, those its mask covers, and those of both kinds."""

    owned: np.ndarray
    covered: np.ndarray
    both: np.ndarray


class Segment(NamedTuple):
    """One segment of a video; `query` is the first that made it."""

    id: int
    category: int
    is_thing: bool
    query: int
    score: float


def kept_queries(class_logits: Float[Array, "q k"], threshold: float) -> Kept:
    """Queries whose likeliest class is one, above the threshold: logits `[q, k + 1]`, "no object" last."""
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(class_logits, jnp.float32), axis=-1))
    classes, scores = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
    queries = np.flatnonzero((classes < probabilities.shape[-1] - 1) & (scores > threshold))
    return Kept(queries, classes[queries], scores[queries])


def probabilities(logits: Float[Array, "t h4 w4 n"], geometry: Geometry) -> Float[Array, "t h w n"]:
    """Mask probabilities at the size of the result: logits `[t, h4, w4, n]` -> `[t, h, w, n]`.

    The authors' two steps: logits to the filled-up size, the sigmoid, and what was filled up cut off, to the result's.
    """
    return resize(jax.nn.sigmoid(_unpadded(logits, geometry)), geometry.original)


@functools.partial(jax.jit, static_argnames="geometry")
def owners(scores: Float[Array, " n"], logits: Float[Array, "t h4 w4 n"], geometry: Geometry):
    """Who owns which pixel of some frames; see `owned`.

    Args:
      scores: `[n]`.
      logits: mask logits `[t, h4, w4, n]`.
    """
    return owned(scores, probabilities(logits, geometry))


def owned(scores: Float[Array, " n"], probability: Float[Array, "t h w n"]):
    """The owner of every pixel is the query with the largest score times probability.

    Args:
      scores: `[n]`; a negative one never owns anything.
      probability: `[t, h, w, n]`.

    Returns:
      int32 `[t, h, w]`, the owner where its own mask covers the pixel, else -1; and `Areas` over these frames.
    """
    owner = jnp.argmax(scores * probability, axis=-1)
    mine = owner[..., None] == jnp.arange(scores.shape[0])
    covered = probability >= COVERED
    count = lambda mask: jnp.sum(mask, axis=(0, 1, 2), dtype=jnp.int32)  # noqa: E731
    painted = jnp.where(jnp.any(mine & covered, axis=-1), owner, -1)
    return painted, Areas(count(mine), count(covered), count(mine & covered))


def segments(
    kept: Kept, areas: Areas, things: Collection[int], overlap: float, *, strict: bool = False, first_id: int = 1
) -> tuple[list[Segment], np.ndarray]:
    """Decide over the kept queries in their order.

    Args:
      kept: queries.
      areas: of each of them, over the frames that decide.
      things: classes whose every query is a segment; all queries of another class share one.
      overlap: least share of a mask's pixels that it must own; the share may exceed 1.
      strict: it must own more than that share (the port).
      first_id: of the segments.

    Returns:
      The segments, and the id of every kept query, `first_id - 1` for none: int `[n]`.
    """
    accepted, of_class = [], {}
    ids = np.full(len(kept.queries), first_id - 1)
    for i, (query, category, score) in enumerate(zip(*kept, strict=True)):
        a, b, both = (int(area[i]) for area in areas)
        if not (a and b and both) or a / b < overlap or (strict and a / b == overlap):
            continue
        category, is_thing = int(category), int(category) in things
        if is_thing or category not in of_class:
            of_class[category] = first_id + len(accepted)
            accepted.append(Segment(of_class[category], category, is_thing, int(query), float(score)))
        ids[i] = of_class[category]
    return accepted, ids


def paint(painted: Integer[Array, "*at"], ids: Integer[np.ndarray, " n"], void: int = 0) -> Integer[np.ndarray, "*at"]:
    """Owners `[t, h, w]`, -1 for nobody, as ids of their segments; `void` for nobody."""
    return np.append(ids, void)[np.asarray(painted)]


@functools.partial(jax.jit, static_argnames="geometry")
def semantic_scores(class_logits: Float[Array, "q k"], logits: Float[Array, "t h4 w4 q"], geometry: Geometry):
    """Scores of every class at the size of the result (spec: videomt 5.1).

    Args:
      class_logits: `[q, k + 1]`.
      logits: mask logits `[t, h4, w4, q]`.

    Returns:
      `[t, h, w, k]`, the sum over queries of class probability times mask probability; the largest is the class.
    """
    classes = jax.nn.softmax(class_logits.astype(jnp.float32), axis=-1)[:, :-1]
    parts = -(-classes.shape[0] // QUERIES_AT_A_TIME)
    extra = parts * QUERIES_AT_A_TIME - classes.shape[0]
    classes = jnp.pad(classes, ((0, extra), (0, 0))).reshape(parts, QUERIES_AT_A_TIME, -1)
    logits = jnp.pad(logits, ((0, 0), (0, 0), (0, 0), (0, extra)))
    logits = jnp.moveaxis(logits.reshape(*logits.shape[:3], parts, QUERIES_AT_A_TIME), 3, 0)

    def add(total, part):
        classes, logits = part
        masks = jax.nn.sigmoid(_unpadded(logits, geometry))
        return total + jnp.einsum("thwq,qk->thwk", masks, classes, precision=jax.lax.Precision.HIGHEST), None

    zero = jnp.zeros((logits.shape[1], *geometry.resized, classes.shape[-1]))
    scores = jax.lax.scan(add, zero, (classes, logits))[0]
    return resize(scores, geometry.original)  # which is linear: the same as resizing every mask


def top_instances(class_logits: Float[Array, "q k"], count: int) -> Kept:
    """The likeliest (query, class) pairs, by falling score: logits `[q, k + 1]`; a query may come more than once."""
    scores = np.asarray(jax.nn.softmax(jnp.asarray(class_logits, jnp.float32), axis=-1))[:, :-1]
    best = np.argsort(-scores, axis=None, kind="stable")[:count]
    queries, classes = np.unravel_index(best, scores.shape)
    return Kept(queries, classes, scores[queries, classes])


@functools.partial(jax.jit, static_argnames="geometry")
def instance_masks(logits: Float[Array, "t h4 w4 n"], geometry: Geometry) -> Bool[Array, "t h w n"]:
    """Masks of instances: logits `[t, h4, w4, n]`, resized twice without a sigmoid, above 0 -> bool `[t, h, w, n]`."""
    return resize(_unpadded(logits, geometry), geometry.original) > 0


def _unpadded(logits, geometry: Geometry):
    """Logits at the size that was filled up, cut to the frame."""
    height, width = geometry.resized
    return resize(logits.astype(jnp.float32), geometry.padded)[:, :height, :width]


class FrameRule(NamedTuple):
    """The port's decisions on one frame alone (spec: videomt 5.2); ids start at 0 and mean nothing in another frame.

    Attributes:
      score: least class probability of a segment.
      overlap: a segment must own more than this share of its mask.
      things: classes whose queries are not fused.
    """

    score: float
    overlap: float
    things: Collection[int]

    def panoptic(self, class_logits, logits, size: Size) -> tuple[np.ndarray, list[Segment]]:
        """Ids `[h, w]`, -1 for void, and segments: class logits `[q, k + 1]`, mask logits `[h4, w4, q]`."""
        kept = kept_queries(class_logits, self.score)
        if not kept.queries.size:
            return np.full(size, -1), []
        masks = jax.nn.sigmoid(resize(jnp.asarray(logits)[None, ..., kept.queries], size))
        painted, areas = owned(jnp.asarray(kept.scores), masks)
        found, ids = segments(kept, areas, self.things, self.overlap, strict=True, first_id=0)
        return paint(painted[0], ids, void=-1), found

    def semantic(self, class_logits, logits, size: Size):
        """Scores `[h, w, k]`: class times mask probability at stride 4, then resized."""
        classes = jax.nn.softmax(class_logits, axis=-1)[:, :-1]
        scores = jnp.einsum("hwq,qk->hwk", jax.nn.sigmoid(logits), classes, precision=jax.lax.Precision.HIGHEST)
        return resize(scores, size)

    def instance(self, class_logits, logits, size: Size) -> tuple[np.ndarray, list[Segment]]:
        """Ids `[h, w]`, -1 for none, later queries above earlier ones, and segments.

        The score is class probability times the mean mask probability of the mask's pixels.
        """
        classes = np.asarray(jax.nn.softmax(class_logits, axis=-1))[:, :-1]
        logits = resize(jnp.asarray(logits), size)
        inside = logits > 0
        mean = jnp.sum(jax.nn.sigmoid(logits) * inside, axis=(0, 1)) / (jnp.sum(inside, axis=(0, 1)) + 1e-6)
        scores = classes.max(axis=-1) * np.asarray(mean)
        accepted, ids, inside = [], np.full(size, -1), np.asarray(inside)
        for query in np.flatnonzero(scores >= self.score):
            if inside[..., query].any():
                ids[inside[..., query]] = len(accepted)
                category = int(classes[query].argmax())
                accepted.append(
                    Segment(len(accepted), category, category in self.things, int(query), float(scores[query]))
                )
        return ids, accepted


class OnlineRule:
    """The authors' rule on what has been seen so far, for cameras: every frame is final when it is given.

    Areas are added up over the frames until now. A query that changes its class is another segment from then on; an id
    is never used for another segment.
    """

    def __init__(self, *, score: float, overlap: float, things: Collection[int]):
        self.score, self.overlap, self.things = score, overlap, things
        self.areas: np.ndarray | int = 0  # [3, q]
        self.ids: dict[tuple[int, int], int] = {}  # (query, or -1 for stuff; class) -> id

    def __call__(self, class_logits, logits, geometry: Geometry) -> tuple[np.ndarray, list[Segment]]:
        """Decide the next frame.

        Args:
          class_logits: `[q, k + 1]`, the mean over the frames until now.
          logits: mask logits of this frame `[h4, w4, q]`.

        Returns:
          ids `[h, w]`, 0 for void, and the segments.
        """
        kept = kept_queries(class_logits, self.score)
        if not kept.queries.size:
            return np.zeros(geometry.original, np.int32), []
        scores, masks = padded(kept, jnp.asarray(logits)[None])
        painted, areas = owners(scores, masks, geometry)
        now = np.zeros((3, len(class_logits)), np.int64)
        now[:, kept.queries] = np.asarray(areas)[:, : len(kept.queries)]
        self.areas = self.areas + now
        found, ids = segments(kept, Areas(*self.areas[:, kept.queries]), self.things, self.overlap)
        keys = [(s.query if s.is_thing else -1, s.category) for s in found]
        lasting = [self.ids.setdefault(key, len(self.ids) + 1) for key in keys]
        ids = np.array([0, *lasting])[ids]
        return paint(painted[0], ids), [s._replace(id=i) for s, i in zip(found, lasting, strict=True)]


def padded(kept: Kept, logits, multiple: int = QUERIES_AT_A_TIME):
    """Scores and mask logits `[t, h4, w4, q]` of the kept queries, filled up so that few programs are compiled."""
    extra = -len(kept.queries) % multiple
    scores = jnp.asarray(np.append(kept.scores, np.full(extra, -1, np.float32)))
    queries: Sequence[int] = np.append(kept.queries, np.zeros(extra, int))
    return scores, logits[..., queries]
