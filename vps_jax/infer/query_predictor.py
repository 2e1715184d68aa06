"""VidEoMT on a video: queries carried from frame to frame, decided by the whole video or by what has been seen.

The authors' rules need the mean class logits of the whole video before the first frame is given (spec: videomt 5.1). So
the network looks at all frames once and keeps what its heads need, as far as a budget of memory goes; frames beyond
it are looked at again. Either way the numbers are those of the whole video at once, and memory does not grow with it.
"""

import collections
import functools
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vps_jax.config import QueryInference
from vps_jax.datasets.classes import ClassTable
from vps_jax.infer import video_segments
from vps_jax.infer.fusion import fuse_frames
from vps_jax.infer.instances import instance_frame
from vps_jax.infer.predictor import DECODED_AHEAD, Network, group_classes
from vps_jax.infer.score_maps import to_grid
from vps_jax.infer.video_segments import Areas, OnlineRule, kept_queries
from vps_jax.media.background import ahead
from vps_jax.media.pending import PendingBlobs
from vps_jax.media.video import Frame, Video, frames_of_one_size
from vps_jax.shapes import Integer
from vps_jax.types import Array, ClosedTrack, FrameScores, FrameTracks, Geometry, InstanceMask, PanopticFrame

MULTIPLE = 32  # the network fills frames up to it
VOID = 255  # category of a pixel that no segment has
KEPT_BYTES = 2 << 30  # of tokens in memory: 140 frames of 720x1280 for ViT-L


class QueryScores(NamedTuple):
    """A `types.ScoreMap`: classes and masks of all queries in one frame.

    Attributes:
      class_logits: `[q, k + 1]`, "no object" last: the mean over the video, or over the frames until now.
      map_classes: those that class maps are made of, `[q, k + 1]`: the same, or the frame's own.
      logits: mask logits `[h4, w4, q]`.
      sizes: of the video as the model saw it.
      online: whether they are decided by the frames until now.
    """

    class_logits: Array
    map_classes: Array
    logits: Array
    sizes: Geometry
    online: bool

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.class_logits.shape[-1] - 1

    def labels(self, classes: Sequence[int] | None = None) -> np.ndarray:
        """Best class per pixel, by the sum over queries of class probability times mask probability."""
        scores = video_segments.semantic_scores(self.map_classes, self.logits[None], self.sizes)[0]
        if classes is None:
            return np.asarray(jnp.argmax(scores, axis=-1), np.uint8)
        chosen = np.asarray(classes)
        return chosen[np.asarray(jnp.argmax(scores[..., chosen], axis=-1))].astype(np.uint8)

    def on_grid(self, sizes: Geometry, classes: Sequence[int]) -> Array:
        """Scores of `classes` at stride 4, brought to the grid of another model: see `score_maps.to_grid`."""
        return to_grid(_grid_scores(self.map_classes, self.logits), np.asarray(classes, np.int32), self.sizes, sizes)


class QueryPredictor:
    """See `predictor.Predictor`."""

    kind = "probabilities"
    final_identities = True

    def __init__(self, module, variables: Mapping, infer: QueryInference, *, kept_bytes: int = KEPT_BYTES):
        """Compiled programs are shared by all instances with an equal module.

        Args:
          module: `models.videomt.VidEoMT`.
          variables: its parameters.
          infer: sizes, chunks and rules.
          kept_bytes: memory for what the heads need of frames that wait for the end of the video.
        """
        self._infer = infer
        self._module = module
        self._variables = jax.device_put(variables)
        self._run = _programs(module)
        self._kept_bytes = kept_bytes

    @staticmethod
    def check(module, infer: QueryInference) -> None:
        """Raises UserError for a semantic group that the module lacks."""
        group_classes(module, infer.semantic_group)

    @staticmethod
    def grid(infer: QueryInference, original: tuple[int, int]) -> Geometry:
        """Sizes of frames of `original` (height, width) pixels as the network sees them (spec: videomt 1)."""
        scale = min(infer.short_side_px / min(original), infer.max_side_px / max(original))
        resized = tuple(max(1, int(side * scale + 0.5)) for side in original)
        return Geometry(tuple(-(-side // MULTIPLE) * MULTIPLE for side in resized), resized, tuple(original))

    @property
    def programs(self) -> dict[str, int]:
        """How often each program was compiled in this process, by its name and shape (frames x height x width)."""
        return dict(self._run.counts)

    def network_size(self, original: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the network's frames for frames of `original` (height, width) pixels."""
        return self.grid(self._infer, original).padded

    def network(self, original: tuple[int, int]) -> Network:
        """See `predictor.Network`: the scores of a chunk of frames, and the queries for the next chunk."""
        sizes, length = self.grid(self._infer, original), self._infer.chunk_frames
        grid = tuple(side // self._module.trunk.patch for side in sizes.padded)

        def scores(variables, frames, queries):
            # without the barrier XLA would fuse what are programs of their own, and round otherwise
            looked = jax.lax.optimization_barrier(self._run.look(variables, frames[None], queries))
            states, class_logits, queries = looked
            masks = [self._run.masks(variables, states[t], grid) for t in range(length)]
            return jnp.stack(masks), class_logits, queries

        frames = jax.ShapeDtypeStruct((length, *sizes.resized, 3), jnp.uint8)
        outputs = {
            "masks": "[frame, row, column, query]: logits at stride 4 of the padded frame",
            "class_logits": "[frame, query, class]: logits, no object last",
            "queries": "[1, query, channel]: for the frames that follow",
        }
        about = "consecutive RGB frames, resized bilinearly as by Pillow"
        return Network(scores, self._variables, {"frames": frames, "queries": self._start()}, outputs, about)

    def stream(self, video: Video) -> Iterator[FrameScores]:
        """Scores of the frames, in order; a track is a query, its identity the query's number plus 1.

        A stream without a known end, such as a camera, is always decided online, frame by frame.
        """
        endless = video.num_frames == 0 and video.source is None
        if self._infer.online or endless:
            return self._online(video, chunk_frames=1 if endless else self._infer.chunk_frames)
        return self._whole(video)

    def fuse(self, frames: Iterable[FrameScores], classes: ClassTable) -> Iterator[PanopticFrame]:
        """Panoptic frames by the model's own rules; tracks over stuff where the scores came from elsewhere."""
        frames = iter(frames)
        first = next(frames, None)
        frames = itertools.chain(() if first is None else (first,), frames)
        if first is None or first.tracks is None or not isinstance(first.scores, QueryScores):
            return fuse_frames(frames, classes, min_score=self._infer.score_threshold)
        if self._infer.task == "instance":
            return self._instances(frames)
        things = frozenset(classes.thing_ids)
        return self._panoptic_online(frames, things) if first.scores.online else self._panoptic(frames, things)

    # --- streams ---

    def _online(self, video: Video, *, chunk_frames: int) -> Iterator[FrameScores]:
        total, count = 0.0, 0
        for look in self._looks(video, self._start(), chunk_frames=chunk_frames):
            for t in range(len(look.frames)):
                total, count = total + look.class_logits[t], count + 1
                yield self._scores(look, t, total / count, closing=True, online=True)

    def _whole(self, video: Video) -> Iterator[FrameScores]:
        total, count, kept, held, again = 0.0, 0, [], 0, None
        for look in self._looks(video, self._start()):
            total, count = total + look.class_logits.sum(axis=0), count + len(look.frames)
            size = look.states.size * look.states.dtype.itemsize
            if again is None and held + size <= self._kept_bytes:
                kept.append(look._replace(states=np.asarray(look.states)))
                held += size
            elif again is None:
                again = look.queries  # that the first frame beyond the budget started from
        mean, closing = total / max(count, 1), True
        later = () if again is None else self._looks(video, again, first=sum(len(look.frames) for look in kept))
        for look in itertools.chain(_emptied(kept), later):
            for t in range(len(look.frames)):
                yield self._scores(look, t, mean, closing=closing)
                closing = False

    def _looks(self, video: Video, queries, *, first: int = 0, chunk_frames: int | None = None) -> Iterator["Look"]:
        """Chunks of frames through the network, from frame `first` on."""
        sizes, length = None, chunk_frames or self._infer.chunk_frames
        frames = itertools.islice(frames_of_one_size(video), first, None)
        for chunk in _chunks(ahead(frames, DECODED_AHEAD), length):
            sizes = sizes or self.grid(self._infer, chunk[0].image.shape[:2])
            images = [preprocess(frame.image, sizes.resized) for frame in chunk]
            images += images[-1:] * (length - len(chunk))  # one program for all chunks
            started = queries
            states, classes, queries = self._run.look(self._variables, np.stack(images)[None], started)
            stems, count = [frame.stem for frame in chunk], len(chunk)
            yield Look(stems, sizes, states[:count], np.asarray(classes, np.float64)[:count], started)

    def _start(self):
        return jnp.asarray(self._variables["params"]["query"])[None]

    def _scores(
        self, look: "Look", t: int, class_logits: np.ndarray, *, closing: bool, online: bool = False
    ) -> FrameScores:
        """Scores of frame `t` of a chunk, with the mean class logits `[q, k + 1]`."""
        stem, sizes = look.frames[t], look.sizes
        grid = tuple(side // self._module.trunk.patch for side in sizes.padded)
        logits = self._run.masks(self._variables, look.states[t], grid)
        own = look.class_logits[t] if self._infer.frame_classes else class_logits
        class_logits, own = (x.astype(np.float32) for x in (class_logits, own))
        scores = QueryScores(class_logits, own, logits, sizes, online)
        if self._infer.task == "semantic":
            return FrameScores(stem, sizes, scores)
        queries = self._tracked(class_logits)
        masks = _masks_of(logits, queries)
        background_first = np.roll(class_logits[queries], 1, axis=-1)
        closed = [ClosedTrack(int(q) + 1, row) for q, row in zip(queries, background_first, strict=True)]
        tracks = FrameTracks(queries.astype(np.int32) + 1, masks, closed if closing else ())
        return FrameScores(stem, sizes, scores, tracks)

    def _tracked(self, class_logits: np.ndarray) -> np.ndarray:
        if self._infer.task == "instance":
            return np.unique(video_segments.top_instances(class_logits, self._infer.max_instances).queries)
        return kept_queries(class_logits, self._infer.score_threshold).queries

    # --- rules ---

    def _panoptic(self, frames: Iterable[FrameScores], things: frozenset) -> Iterator[PanopticFrame]:
        """By areas over the whole video: owners of the pixels wait, compressed, for the last frame."""
        blobs, waiting, areas, kept = PendingBlobs(), [], 0, None
        try:
            for frame in frames:
                if kept is None:
                    kept = kept_queries(frame.scores.class_logits, self._infer.score_threshold)
                painted, found = owners_of(kept, frame)
                areas = areas + found
                waiting.append((frame.stem, painted.shape, blobs.put(zlib.compress(painted.tobytes(), 1))))
            found, ids = video_segments.segments(kept, Areas(*areas), things, self._infer.overlap_threshold)
            for stem, size, key in waiting:
                painted = np.frombuffer(zlib.decompress(blobs.pop(key)), np.int16).reshape(size)
                yield panoptic_frame(stem, video_segments.paint(painted, ids), found)
        finally:
            blobs.close()

    def _panoptic_online(self, frames: Iterable[FrameScores], things: frozenset) -> Iterator[PanopticFrame]:
        rule = OnlineRule(score=self._infer.score_threshold, overlap=self._infer.overlap_threshold, things=things)
        for frame in frames:
            ids, segments = rule(frame.scores.class_logits, frame.scores.logits, frame.sizes)
            yield panoptic_frame(frame.stem, ids, segments)

    def _instances(self, frames: Iterable[FrameScores]) -> Iterator[PanopticFrame]:
        """The likeliest instances, whose masks may overlap; a query may come with several classes."""
        for frame in frames:
            best = video_segments.top_instances(frame.scores.class_logits, self._infer.max_instances)
            masks = np.asarray(
                video_segments.instance_masks(frame.scores.logits[None, ..., best.queries], frame.sizes)
            )[0]
            pairs = zip(best.queries.tolist(), best.classes.tolist(), best.scores.tolist(), strict=True)
            instances = [InstanceMask(q + 1, c, score, masks[..., i]) for i, (q, c, score) in enumerate(pairs)]
            yield instance_frame(frame.stem, frame.sizes.original, [one for one in instances if one.mask.any()])


class Look(NamedTuple):
    """What the network left of a chunk of frames.

    Attributes:
      frames: their names.
      sizes: of the video.
      states: tokens `[t, s, c]` after the last block.
      class_logits: float64 `[t, q, k + 1]`.
      queries: `[1, q, c]` that the first of them started from.
    """

    frames: list[str]
    sizes: Geometry
    states: Array
    class_logits: np.ndarray
    queries: Array


class Programs:
    """The compiled parts of a model. `counts` says how often each was compiled, by shape."""

    def __init__(self, module):
        self.counts: collections.Counter[str] = collections.Counter()

        def look(variables, images, queries):
            """Images `[1, t, h, w, 3]` to tokens `[t, s, c]`, class logits `[t, q, k + 1]` and the next queries."""
            self.counts[f"network {'x'.join(map(str, images.shape[1:4]))}"] += 1  # runs when traced, not when called
            features = module.apply(variables, images, method="backbone_features")
            states, queries = module.apply(variables, features, queries, method="states")
            outputs = module.apply(variables, states, features[1].shape[2:4], method="predict")
            return states[-1, 0], outputs.class_logits[-1, 0], queries

        def masks(variables, states, grid):
            """Tokens `[s, c]` of one frame to mask logits `[h4, w4, q]`."""
            self.counts[f"masks {'x'.join(map(str, grid))}"] += 1
            outputs = module.apply(variables, states[None, None, None], grid, method="predict")
            features, embeds = outputs.mask_features[-1, 0, 0], outputs.mask_embeds[-1, 0, 0]
            return jnp.einsum("hwc,qc->hwq", features.astype(jnp.float32), embeds)

        self.look = jax.jit(look)
        self.masks = jax.jit(masks, static_argnums=2)


_programs = functools.lru_cache(maxsize=8)(Programs)


@jax.jit
def _masks_of(logits, queries):
    """Maps `[n, h4, w4]` of the chosen queries, from the logits `[h4, w4, q]` of all."""
    return jnp.moveaxis(logits[..., queries], -1, 0)


@jax.jit
def _grid_scores(class_logits, logits):
    """Scores `[k, h4, w4]` at stride 4."""
    classes = jax.nn.softmax(class_logits, axis=-1)[:, :-1]
    return jnp.einsum("hwq,qk->khw", jax.nn.sigmoid(logits), classes, precision=jax.lax.Precision.HIGHEST)


def preprocess(
    image: Integer[np.ndarray, "h w 3"], size: tuple[int, int]
) -> Integer[np.ndarray, "{size[0]} {size[1]} 3"]:
    """RGB uint8 `[h, w, 3]` resized as Pillow does, which averages when it shrinks (spec: videomt 1)."""
    height, width = size
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR))


def owners_of(
    kept: video_segments.Kept, frame: FrameScores
) -> tuple[Integer[np.ndarray, "h w"], Integer[np.ndarray, "3 n"]]:
    """Owners int16 `[h, w]` of one frame's pixels among the kept queries, -1 for nobody; their areas `[3, n]`."""
    if not kept.queries.size:
        return np.full(frame.sizes.original, -1, np.int16), np.zeros((3, 0), np.int64)
    scores, logits = video_segments.padded(kept, frame.scores.logits[None])
    painted, areas = video_segments.owners(scores, logits, frame.sizes)
    return np.asarray(painted[0], np.int16), np.asarray(areas, np.int64)[:, : len(kept.queries)]


def panoptic_frame(
    stem: str, ids: Integer[np.ndarray, "h w"], segments: Sequence[video_segments.Segment]
) -> PanopticFrame:
    """Segment ids `[h, w]`, 0 for void, as classes and identities; stuff has no identity."""
    categories, tracks = np.full(1 + max((s.id for s in segments), default=0), VOID, np.uint8), None
    tracks = np.zeros(len(categories), np.int32)
    for segment in segments:
        categories[segment.id] = segment.category
        tracks[segment.id] = segment.id if segment.is_thing else 0
    return PanopticFrame(stem, categories[ids], tracks[ids])


def _chunks(frames: Iterable[Frame], length: int) -> Iterator[list[Frame]]:
    frames = iter(frames)
    while chunk := list(itertools.islice(frames, length)):
        yield chunk


def _emptied(looks: list[Look]) -> Iterator[Look]:
    """One after the other, each forgotten when the next is asked for."""
    looks.reverse()
    while looks:
        yield looks.pop()
