"""Test-time augmentation: one model looks at a video several times, mirrored and at other sizes, side by side.

The class scores of all views are averaged on the grid of the plain one, as those of the members of an ensemble are.
Tracks are those of the plain view: identities of two passes have nothing to do with each other.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.infer.score_maps import to_grid
from vps_jax.infer.upsampling import label_map
from vps_jax.media.video import Frame, Video
from vps_jax.types import Array, FrameScores, Geometry, GivenObject, PanopticFrame, ScoreMap, UserError

PLAIN = (1.0,)


def check_views(infer: Any) -> None:
    """Raises UserError for views whose scores cannot be averaged with those of the plain one."""
    scales, flip = getattr(infer, "scales", PLAIN), getattr(infer, "flip", False)
    if not flip and scales == PLAIN:
        return
    if 1.0 not in scales:
        raise UserError(f"infer.scales={scales}: expected 1.0 among them, the pass whose tracks are taken; add it")
    if scales != PLAIN and infer.short_side_px is None:
        raise UserError(f"infer.scales={scales}: frames keep their size; expected a short side to scale, choose one")
    if infer.task == "instance":
        raise UserError("infer.task='instance': instances come from one pass; leave out flip and scales")


def with_views(predictor: Any, module: Any, variables: Mapping, infer: Any, also: Sequence[Any] = ()) -> Any:
    """A predictor that averages all views that the settings ask for; the plain predictor if they ask for one.

    Args:
      predictor: class of a predictor without views of its own.
      module, variables, infer, also: of it, see `predictor.SetPredictor`.
    """
    scales = getattr(infer, "scales", PLAIN)
    views = [(scale, mirrored) for scale in (1.0, *(s for s in scales if s != 1.0)) for mirrored in (False, True)]
    views = [view for view in views if getattr(infer, "flip", False) or not view[1]]
    if len(views) == 1:
        return predictor(module, variables, infer, **({"also": also} if also else {}))
    variables, made = jax.device_put(variables), {}  # one copy for all
    for scale in dict(views):
        more = {"also": [scaled(one, scale) for one in also]} if also else {}
        made[scale] = predictor(module, variables, scaled(infer, scale), **more)
    return Views([(made[scale], mirrored) for scale, mirrored in views])


def scaled(infer: Any, scale: float) -> Any:
    """Settings of one view at a factor on the size of the frames."""
    changes = {"scales": PLAIN, "flip": False}
    if scale != 1.0:
        sides = {name: getattr(infer, name) for name in ("short_side_px", "max_side_px")}
        changes |= {name: max(1, round(scale * side)) for name, side in sides.items()}
    own = {field.name for field in dataclasses.fields(infer)}
    return dataclasses.replace(infer, **{name: value for name, value in changes.items() if name in own})


class Views:
    """See `predictor.SetPredictor`. Averages predictors of one model; the first is the plain one."""

    def __init__(self, views: Sequence[tuple[Any, bool]]):
        """`views`: predictor, and whether it sees the mirrored video."""
        self._views = tuple(views)
        self._plain = views[0][0]
        self.kind, self.final_identities = self._plain.kind, self._plain.final_identities
        for name in ("network", "network_size"):  # `vps-jax export` writes one view
            if hasattr(self._plain, name):
                setattr(self, name, getattr(self._plain, name))

    @property
    def programs(self) -> dict[str, int]:
        """How often each program was compiled in this process, by its name and shape."""
        return {name: count for one, _ in self._views for name, count in one.programs.items()}

    def stream(self, video: Video) -> Iterator[FrameScores]:
        """Scores of the frames, in order."""
        streams = [one.stream(mirrored_video(video) if mirrored else video) for one, mirrored in self._views]
        for frames in zip(*streams, strict=True):
            yield self._mean(frames)

    def stream_sets(self, video: Video) -> Iterator[tuple[FrameScores, ...]]:
        """As `stream`, for every query set."""
        streams = [one.stream_sets(mirrored_video(video) if mirrored else video) for one, mirrored in self._views]
        for views in zip(*streams, strict=True):
            yield tuple(self._mean(frames) for frames in zip(*views, strict=True))

    def fuse(self, frames: Iterable[FrameScores], classes: ClassTable) -> Iterator[PanopticFrame]:
        """Panoptic frames, as the plain predictor makes them."""
        return self._plain.fuse(frames, classes)

    def _mean(self, frames: Sequence[FrameScores]) -> FrameScores:
        seen = [View(frame.scores, frame.sizes, flip) for frame, (_, flip) in zip(frames, self._views, strict=True)]
        return frames[0]._replace(scores=MeanScores(tuple(seen)))


class View(NamedTuple):
    """Scores of one look at a frame, the sizes it was seen at, and whether it was mirrored."""

    scores: ScoreMap
    sizes: Geometry
    mirrored: bool

    def on_grid(self, sizes: Geometry, classes: Sequence[int]) -> Array:
        """Scores of `classes` on the grid of another model, the right way round."""
        if not self.mirrored:
            return self.scores.on_grid(sizes, classes)
        own = self.scores.on_grid(self.sizes, classes)
        return to_grid(own, np.arange(len(classes), dtype=np.int32), self.sizes, sizes, mirrored=True)


class MeanScores(NamedTuple):
    """A `types.ScoreMap`: the mean of several views of one frame."""

    views: tuple[View, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.views[0].scores.num_classes

    def labels(self, classes: Sequence[int] | None = None) -> np.ndarray:
        """Best class per pixel of the mean on the plain view's grid, see `upsampling.label_map`."""
        sizes = self.views[0].sizes
        return label_map(self.on_grid(sizes, range(self.num_classes)), sizes, classes=classes)

    def on_grid(self, sizes: Geometry, classes: Sequence[int]) -> Array:
        """Mean scores of `classes` on another grid, see `score_maps.to_grid`."""
        return _mean([view.on_grid(sizes, classes) for view in self.views])


_mean = jax.jit(lambda parts: sum(parts[1:], parts[0]) / len(parts))


def mirrored_video(video: Video) -> Video:
    """The video with left and right exchanged, and the objects that are shown in it."""

    def frames() -> Iterator[Frame]:
        for frame in video.frames():
            yield frame._replace(image=frame.image[:, ::-1])

    objects = video.objects and (lambda: [mirrored_object(one) for one in video.objects()])
    return video._replace(frames=frames, objects=objects)


def mirrored_object(one: GivenObject) -> GivenObject:
    """A given object in the mirrored frame."""
    if one.mask is not None:
        return one._replace(mask=one.mask[:, ::-1])
    return one._replace(point=np.array([one.point[0], 1 - one.point[1]]))
