"""Roots of data sets as videos: those of a split, in the order of its list or truth."""

import pathlib
from collections.abc import Iterator

from vps_jax.datasets import DatasetSpec, VideoFiles
from vps_jax.media.frame_folders import check_whole, files_video, read_image
from vps_jax.media.video import Frame, Video


def open_root(spec: DatasetSpec, root: pathlib.Path, *, split: str) -> list[Video]:
    """Videos of a split.

    Raises:
      UserError: no such split, a missing video, no frames; at decoding, a damaged frame.
    """
    return [listed_video(video, fps=spec.fps) for video in spec.predicted(root, split)]


def listed_video(video: VideoFiles, *, fps: float) -> Video:
    """A video of a data set; its files are checked when its decoding starts, not all data sets' at once."""

    def frames() -> Iterator[Frame]:
        for file in video.images:
            check_whole(file)
        for file in video.images:
            yield Frame(file.stem, read_image(file))

    return files_video(video.name, video.images, fps, frames)
