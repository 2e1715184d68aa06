"""Roots of data sets as videos: those of a split, in the order of its list or truth, images as they are stored."""

import pathlib

from vps_jax.datasets import DatasetSpec, VideoFiles
from vps_jax.media.frame_folders import files_video
from vps_jax.media.video import Video


def open_root(spec: DatasetSpec, root: pathlib.Path, *, split: str) -> list[Video]:
    """Videos of a split; their files are checked when decoding starts, not all data sets' at once.

    Raises:
      UserError: no such split, a missing video, no frames; at decoding, a damaged frame.
    """
    return [open_files(video, spec.fps) for video in spec.predicted(root, split)]


def open_files(video: VideoFiles, fps: float) -> Video:
    """One video; `fps` is that of the frames that results are asked for, and all frames have their share of it."""
    if video.results is None:
        return files_video(video.name, video.images, fps, upright=False)._replace(number=video.number)
    asked = frozenset(video.images[i].stem for i in video.results)
    opened = files_video(video.name, video.images, fps * len(video.images) / len(video.results), upright=False)
    return opened._replace(number=video.number, results=asked)
