"""Whatever the user points at, opened as videos."""

import pathlib
from collections.abc import Sequence

from vps_jax import datasets
from vps_jax.media.dataset_roots import open_root
from vps_jax.media.frame_folders import open_frame_folder
from vps_jax.media.video import Video
from vps_jax.media.video_files import open_video_file
from vps_jax.types import UserError


def open_sources(sources: Sequence[str | pathlib.Path], *, split: str | None = None) -> list[Video]:
    """Videos of all sources.

    Raises:
      UserError: two of them have one name, or as `open_videos`.
    """
    videos = [video for source in sources for video in open_videos(source, split=split)]
    names = [video.video_id for video in videos]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two inputs are named {twice[0]!r}; expected one name per result, rename one or run twice")
    return videos


def open_videos(path: str | pathlib.Path, *, split: str | None = None) -> list[Video]:
    """Whatever the user points at: a video file, a folder of frames, or the root of a data set.

    Args:
      path: `.mp4`, `.avi`, `.webm`, `.mkv` or `.mov`; a folder of `.jpg` or `.png`; a VIPSeg root, raw (`imgs/`) or
        converted (`images/`); a VSPW root (`data/<video>/origin/`).
      split: `train`, `val` or `test`, for a root (default `val`).

    Raises:
      UserError: nothing there, not a video, no frames, a damaged frame, an unknown split.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"{path}: does not exist; expected a video, a folder of frames or a VIPSeg root")
    if path.is_file():
        return [open_video_file(path)]
    spec = datasets.recognize(path)
    if spec is not None:
        return open_root(spec, path, split=split or "val")
    if split is not None:
        raise UserError(f"{path}: split {split!r} needs the root of a data set: {known_roots()}; leave the split out")
    return [open_frame_folder(path)]


def known_roots() -> str:
    """What the roots of all data sets hold, in one line."""
    rows = [(spec.title, layout.needs) for spec in datasets.DATASETS.values() for layout in spec.layouts]
    return ", ".join(f"{title} ({' and '.join(needs).replace('|', ' or ')})" for title, needs in rows)
