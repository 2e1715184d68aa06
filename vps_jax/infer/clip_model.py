"""A model as a function from frames to raw scores, compiled once per shape; features of common frames are kept.

The backbone sees frames one by one, so the frames that two clips share go through it once. It runs in chunks of equal
length (the step between clips), the last one filled up with copies, so that it is one program per shape; the neck and
the decoder are one program per shape and clip length, because the time code depends on the length (spec: tarvis 3.2).
"""

import collections
import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.infer.predictor import Network, group_classes
from vps_jax.shapes import Integer
from vps_jax.tasks import make_task
from vps_jax.types import ClipPrediction, Geometry

PAD_MULTIPLE = 64  # a constant of the temporal neck (spec: tarvis 1)
PAD_VALUE = 128
CLIP_OUTPUTS = {
    "instance_masks": "[query, frame, row, column]: logits at stride 4 of the padded frame",
    "instance_classes": "[query, class]: logits, background first",
    "semantic": "[class, frame, row, column]: logits at stride 4 of the padded frame",
}


def resized_size(original: tuple[int, int], *, short_side: int | None, max_side: int) -> tuple[int, int]:
    """Height and width with the aspect kept: short side `short_side`, unless the long one would exceed `max_side`.

    Without a short side they stay as they are.
    """
    if short_side is None:
        return tuple(original)
    scale = min(short_side / min(original), max_side / max(original))
    return tuple(max(1, round(side * scale)) for side in original)


def geometry(original: tuple[int, int], *, short_side: int | None, max_side: int) -> Geometry:
    """Sizes of a video whose frames are `original` (height, width) pixels."""
    resized = resized_size(original, short_side=short_side, max_side=max_side)
    padded = tuple(-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in resized)
    return Geometry(padded, resized, tuple(original))


def preprocess(image: Integer[np.ndarray, "h w 3"], sizes: Geometry) -> Integer[np.ndarray, "ph pw 3"]:
    """RGB uint8 `[h, w, 3]` resized bilinearly and padded right and bottom with 128 (spec: tarvis 8.1)."""
    height, width = sizes.resized
    out = np.full((*sizes.padded, 3), PAD_VALUE, np.uint8)
    out[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return out


class Programs:
    """The compiled functions of a model. `counts` says how often each was compiled, by shape.

    Attributes:
      backbone: (variables, images `[1, t, h, w, 3]`) -> maps `[1, t, h_i, w_i, c_i]`.
      split: those maps -> a list of the same per frame.
      decode: (variables, that list) -> one `ClipPrediction` per query set.
      neck, decode_objects: (variables, that list) -> the neck's maps; (variables, maps, exemplars) -> logits
        `[n, t, h4, w4]` of the objects, in two programs because their number changes with every video.
    """

    def __init__(self, model, sets: tuple[tuple[str, str | None], ...], chunk: int):
        self.counts: collections.Counter[str] = collections.Counter()
        decoders = [make_task(task, num_classes=group_classes(model, group)).decode for task, group in sets]

        def backbone(variables, images):
            self._count("backbone", images.shape[1:4])  # runs when traced, not when called
            return model.apply(variables, images, method="backbone_features")

        def decode(variables, frames):
            features = tuple(jnp.concatenate(maps, axis=1) for maps in zip(*frames, strict=True))
            self._count("decoder", (len(frames), *(4 * side for side in features[0].shape[2:4])))
            outputs = _outputs(model, variables, features, sets)
            return tuple(_scores(one, decode) for one, decode in zip(outputs, decoders, strict=True))

        def neck(variables, frames):
            features = tuple(jnp.concatenate(maps, axis=1) for maps in zip(*frames, strict=True))
            self._count("neck", (len(frames), *(4 * side for side in features[0].shape[2:4])))
            return model.apply(variables, features, method="neck_maps")

        def decode_objects(variables, maps, exemplars):
            masks, points = exemplars["masks"], exemplars.get("points", jnp.zeros((1, 0, 2)))
            number = masks.shape[1] + points.shape[1]
            self._count(f"decoder of {number} objects", (maps[1].shape[1], masks.shape[2], *masks.shape[3:]))
            outputs = model.apply(variables, maps, task="vos", exemplars=exemplars, last=True, method="decode")
            return _scores(outputs, functools.partial(decoders[0], point_objects=points.shape[1])).instance_masks

        self.neck, self.decode_objects = jax.jit(neck), jax.jit(decode_objects)
        self.backbone = jax.jit(backbone)
        self.decode = jax.jit(decode)
        self.split = jax.jit(lambda maps: [tuple(x[:, t : t + 1] for x in maps) for t in range(chunk)])

    def _count(self, what: str, shape: Sequence[int]) -> None:
        self.counts[f"{what} {'x'.join(map(str, shape))}"] += 1


def _outputs(model, variables, features, sets):
    """The last prediction set for every query set; several of them share one pass through the neck."""
    if len(sets) == 1:
        ((task, group),) = sets
        return [model.apply(variables, features, task=task, group=group, method="decode_features")]
    maps = model.apply(variables, features, method="neck_maps")
    return [model.apply(variables, maps, task=task, group=group, last=True, method="decode") for task, group in sets]


def _scores(outputs, decode) -> ClipPrediction:
    """Scores of the only clip of the batch. Masks are cut at 0 and compared with one another: no TF32 on the way."""
    with jax.default_matmul_precision("highest"):
        scores = decode(outputs)
    return jax.tree.map(lambda x: x[0], scores)


# evaluations during training ask for the same model again and again: compile once
_programs = functools.lru_cache(maxsize=8)(Programs)


class ClipModel:
    """Raw scores of the clips of one video after another."""

    def __init__(self, model, variables: Mapping, sets: Sequence[tuple[str, str | None]], *, chunk: int):
        """Compiled programs are shared by all instances with an equal model, query sets and chunk.

        Args:
          model: flax module with the methods `backbone_features` and `decode_features`, and for several query sets
            `neck_maps` and `decode`.
          variables: its parameters.
          sets: (task, semantic group) of each query set; they share backbone and neck.
          chunk: frames per run of the backbone.
        """
        self._variables = jax.device_put(variables)
        self._chunk = chunk
        self._run = _programs(model, tuple(sets), chunk)
        self._features: dict[int, tuple] = {}  # frame index -> maps [1, 1, h_i, w_i, c_i]

    @property
    def programs(self) -> dict[str, int]:
        """How often each program was compiled in this process, by its name and shape (frames x height x width)."""
        return dict(self._run.counts)

    def fresh(self) -> "ClipModel":
        """Another runner with the same weights and programs and no features, for the next video."""
        other = copy.copy(self)
        other._features = {}
        return other

    def predict_sets(self, first: int, images: Sequence[np.ndarray]) -> tuple[ClipPrediction, ...]:
        """Scores of the clip that starts at frame `first`, one `ClipPrediction` on the device per query set.

        Args:
          first: index in the video; frames of the clip before keep their features.
          images: preprocessed frames, uint8 `[h, w, 3]` each, sides multiples of 64.
        """
        return self._run.decode(self._variables, self._frames(first, images))

    def predict_objects(self, first: int, images: Sequence[np.ndarray], exemplars: Mapping[str, Any]) -> np.ndarray:
        """Logits float32 `[n, t, h4, w4]` of the objects of a clip, in the order of the exemplars.

        Args:
          first, images: as for `predict_sets`.
          exemplars: see `models.object_encoder.ObjectEncoder`.
        """
        maps = self._run.neck(self._variables, self._frames(first, images))
        return np.asarray(self._run.decode_objects(self._variables, maps, exemplars))

    def _frames(self, first: int, images: Sequence[np.ndarray]) -> tuple:
        """Backbone maps of the frames of a clip; those of the clip before are kept where both share them."""
        indices = range(first, first + len(images))
        self._features = {i: maps for i, maps in self._features.items() if i in indices}
        missing = [i for i in indices if i not in self._features]
        for start in range(0, len(missing), self._chunk):
            self._extract(missing[start : start + self._chunk], images, first)
        return tuple(self._features[i] for i in indices)

    def network(self, sizes: Geometry, length: int) -> Network:
        """The scores of a clip of `length` frames, for the first query set."""
        (height, width), (padded_height, padded_width) = sizes.resized, sizes.padded
        margins = ((0, 0), (0, padded_height - height), (0, padded_width - width), (0, 0))

        def scores(variables, frames):
            images = jnp.pad(frames, margins, constant_values=PAD_VALUE)
            maps = []
            for start in range(0, length, self._chunk):
                chunk = jnp.asarray([min(start + i, length - 1) for i in range(self._chunk)])
                # without the barrier XLA would fuse what are programs of their own, and round otherwise
                maps += jax.lax.optimization_barrier(
                    self._run.split(self._run.backbone(variables, images[chunk][None]))
                )
            scored = self._run.decode(variables, tuple(maps[:length]))[0]
            return tuple(one for one in scored if one is not None)

        frames = jax.ShapeDtypeStruct((length, height, width, 3), jnp.uint8)
        scored = jax.eval_shape(scores, self._variables, frames)
        names = CLIP_OUTPUTS if len(scored) == len(CLIP_OUTPUTS) else {"semantic": CLIP_OUTPUTS["semantic"]}
        about = "consecutive RGB frames, resized bilinearly as by OpenCV's INTER_LINEAR"
        return Network(scores, self._variables, {"frames": frames}, names, about)

    def _extract(self, indices: list[int], images: Sequence[np.ndarray], first: int) -> None:
        """Backbone features of up to `chunk` frames."""
        filled = indices + indices[-1:] * (self._chunk - len(indices))
        stacked = np.stack([images[i - first] for i in filled])[None]  # [1, t, h, w, 3]
        frames = self._run.split(self._run.backbone(self._variables, stacked))
        self._features.update(zip(indices, frames, strict=False))
