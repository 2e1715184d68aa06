"""A checkpoint as a function from a video to panoptic frames: what `vps_jax.load` gives."""

import functools
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vps_jax.config import Experiment
from vps_jax.datasets import ClassTable
from vps_jax.media import given_objects
from vps_jax.media.video import DEFAULT_FPS, Frame, Video
from vps_jax.runs.inference_request import Request, classes_asked, infer_asked
from vps_jax.types import FrameScores, PanopticFrame, UserError


def load(
    checkpoint: str | pathlib.Path, *, weights: str = "ema", short_side: int | None = None, task: str | None = None,
    settings: str | None = None, tta: Sequence[str | float] = (),
) -> "Segmenter":  # fmt: skip
    """The segmenter of a checkpoint; its weights are read when the first video is segmented.

    Example:
      segmenter = vps_jax.load("runs/stage4")
      for frame in segmenter("clip.mp4"):
          print(frame.stem, segmenter.classes.names[frame.categories[0, 0]])

    Args:
      checkpoint: workdir of a run, one step in its `checkpoints`, or the output folder of `vps-jax convert`.
      weights: `ema` or `raw`.
      short_side: pixels to which frames are resized, in place of the checkpoint's own; the bound of the long side
        grows with it.
      task: `panoptic`, `semantic`, `instance` or `vos`, in place of the checkpoint's own.
      settings: name of a data set, such as `ovis`, whose published task, sizes and clips are used.
      tta: test-time augmentation: `"flip"` and factors on the size of the frames, such as `("flip", 0.75, 1.25)`.

    Raises:
      UserError: no checkpoint is there, a value is none of these, or the model does not have that task.
    """
    from vps_jax.train.checkpoint import find_step

    if weights not in ("ema", "raw"):
        raise UserError(f"weights={weights!r}: expected ema or raw")
    if short_side is not None and short_side < 1:
        raise UserError(f"short_side={short_side}: expected a number of pixels above 0")
    return Segmenter(find_step(checkpoint), weights, Request(task, settings, short_side, tuple(tta)))


class Segmenter:
    """Segments one video after another; programs that were compiled once are kept, on the disk too."""

    def __init__(self, folder: pathlib.Path, weights: str, request: Request):
        self._folder, self._weights, self._request = folder, weights, request

    def __repr__(self) -> str:
        return f"Segmenter({str(self._folder)!r}, weights={self._weights!r})"

    def __call__(self, video: Any, *, first_masks: Any = None, points: Any = None) -> Iterator[PanopticFrame]:
        """Panoptic frames in order, each as soon as it is final, in bounded memory.

        Args:
          video: a video file, a folder of frames, or RGB uint8 frames `[t, h, w, 3]`.
          first_masks: of task `vos`: object ids `[h, w]` of the first frame, 0 for none, or a PNG or folder of them.
          points: of task `vos`: object id -> (x, y) in pixels of the first frame, or a json of clicks.

        Raises:
          UserError: it cannot be read, is more than one video, or objects are given to another task.
        """
        return self.predictor.fuse(self.scores(video, first_masks=first_masks, points=points), self.classes)

    def scores(self, video: Any, *, first_masks: Any = None, points: Any = None) -> Iterator[FrameScores]:
        """What the model says of every frame, before it is fused to a panoptic frame; arguments as for a call."""
        opened = open_video(video)
        for one, attach in ((first_masks, given_objects.with_masks), (points, given_objects.with_points)):
            if one is not None and self.infer.task != "vos":
                raise UserError(f"task={self.infer.task!r}: does not follow given objects; load with task='vos'")
            if one is not None:
                (opened,) = attach([opened], one)
        return self.predictor.stream(opened)

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The experiment that the checkpoint carries."""
        from vps_jax.train.checkpoint import read_experiment

        quiet()
        return read_experiment(self._folder)

    @functools.cached_property
    def classes(self) -> ClassTable:
        """The classes of the frames: `frame.categories` are positions in it."""
        from vps_jax.train.checkpoint import classes_of_step

        quiet()
        return classes_asked(self.experiment, classes_of_step(self._folder), self._request)

    @functools.cached_property
    def infer(self) -> Any:
        """How the model runs on videos: what the checkpoint says, and what was asked for in its place."""
        return infer_asked(self.experiment, self._request)

    @property
    def identity(self) -> str:
        """A text of its own for every pair of weights and settings; training again in the same folder changes it."""
        from vps_jax.train.checkpoint import weights_item

        item = weights_item(self._folder, self._weights)
        return f"{item} of {item.stat().st_mtime_ns}, {self.infer}"

    @functools.cached_property
    def predictor(self):
        """The model with its weights; see `vps_jax.infer.predictor.Predictor`."""
        (one,) = self.predictors()
        return one

    def predictors(self, devices: int | str = 1) -> list:
        """The model with its weights on each of several devices, for `vps_jax.infer.predict.predict`.

        Args:
          devices: how many, or `all`.

        Raises:
          UserError: there are fewer, or the model does not have this task.
        """
        from vps_jax import convert
        from vps_jax.infer import side_by_side
        from vps_jax.infer.predictor import checked_module, make_predictor
        from vps_jax.runs.experiment import set_up_jax
        from vps_jax.train.checkpoint import check_same_tree, read_tree, weights_item

        quiet()
        set_up_jax()
        model = self.experiment.model
        side_by_side.devices(devices)
        checked_module(model, self.infer, self.classes)
        variables = read_tree(weights_item(self._folder, self._weights))
        check_same_tree(variables, convert.expected(model), self._folder)
        make = functools.partial(make_predictor, model, infer=self.infer, classes=self.classes)
        return side_by_side.on_devices(make, variables, devices)


def open_video(video: Any) -> Video:
    """One video from a path or from frames.

    Raises:
      UserError: it cannot be read, is more than one video, or no RGB uint8 `[t, h, w, 3]`.
    """
    if isinstance(video, Video):
        return video
    if isinstance(video, (str, pathlib.Path)):
        from vps_jax.media.sources import open_videos

        videos = open_videos(video)
        if len(videos) != 1:
            raise UserError(f"{video}: holds {len(videos)} videos; expected one, use `vps-jax predict` for many")
        return videos[0]
    frames = np.asarray(video)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise UserError(f"frames of {frames.dtype} {list(frames.shape)}: expected RGB uint8 [t, h, w, 3]")
    return array_video(frames)


def array_video(frames: np.ndarray) -> Video:
    """A video of RGB uint8 frames `[t, h, w, 3]`; stems are eight-digit frame numbers from 0."""
    stems = tuple(f"{i:08d}" for i in range(len(frames)))
    times = tuple(i / DEFAULT_FPS for i in range(len(frames)))

    def decode() -> Iterator[Frame]:
        return map(Frame, stems, frames, times)

    return Video("frames", len(frames), DEFAULT_FPS, decode, lambda: frames.shape[1:3], stems, times)


def quiet() -> None:
    """Keep the libraries' remarks away; our own errors are exceptions."""
    logging.getLogger("absl").setLevel(logging.ERROR)
