"""Roots of data sets as videos: those of a split, in the order of its list or truth, images as they are stored."""

import pathlib

from vps_jax.datasets import DatasetSpec
from vps_jax.media.frame_folders import files_video
from vps_jax.media.video import Video


def open_root(spec: DatasetSpec, root: pathlib.Path, *, split: str) -> list[Video]:
    """Videos of a split; their files are checked when decoding starts, not all data sets' at once.

    Raises:
      UserError: no such split, a missing video, no frames; at decoding, a damaged frame.
    """
    return [
        files_video(video.name, video.images, spec.fps, upright=False)._replace(number=video.number)
        for video in spec.predicted(root, split)
    ]
