"""Whatever the user points at, opened as videos."""

import glob
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

from vps_jax import datasets
from vps_jax.datasets.spec import visible
from vps_jax.media.animations import is_animated, open_animation
from vps_jax.media.dataset_roots import open_root
from vps_jax.media.frame_folders import kinds, natural_key, open_frame_folder, open_image
from vps_jax.media.image_files import IMAGE_SUFFIXES
from vps_jax.media.selection import Selection, select
from vps_jax.media.streams import is_stream, open_stream
from vps_jax.media.video import Video
from vps_jax.media.video_files import VIDEO_SUFFIXES, open_video_file
from vps_jax.types import UserError

LONGEST_NAME = 200  # bytes of a name: suffixes and temporary names must fit into a file system's 255
EXPECTED = "a video, an image, a folder of them, a glob, the root of a data set, a URL, camera:N, or - for stdin"


def open_sources(
    sources: Sequence[str | pathlib.Path],
    *,
    split: str | None = None,
    selection: Selection = Selection(),  # noqa: B008  (immutable)
    strict: bool = False,
    skip: Callable[[str, UserError], None] | None = None,
) -> list[Video]:
    """Videos of all sources, cut to a part of each.

    Args:
      sources: see `open_videos`; several globs and folders may be mixed.
      split: of data-set roots.
      selection: which frames.
      strict: see `video_files.open_video_file`.
      skip: told the source and the error of one that cannot be opened, which is then left out; None raises it.

    Raises:
      UserError: two of them have one name, or as `open_videos`.
    """
    videos: list[Video] = []
    for source in (path for given in sources for path in expand(str(given), split=split)):
        try:
            opened = open_videos(source, split=split, strict=strict)
            origin = None if is_stream(source) else (os.path.abspath(source), split)
            videos += [select(check_name(video), selection)._replace(origin=origin) for video in opened]
        except UserError as error:
            if skip is None:
                raise
            skip(str(source), error)
    names = [video.video_id for video in videos]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        places = [str(video.origin[0]) for video in videos if video.video_id == twice[0] and video.origin]
        raise UserError(
            f"two inputs are named {twice[0]!r} ({', '.join(places[:3])}); expected one name per result, rename one or "
            "run twice"
        )
    return videos


def open_inputs(
    sources: Sequence[str | pathlib.Path | Video],
    *,
    split: str | None = None,
    selection: Selection = Selection(),  # noqa: B008  (immutable)
    strict: bool = False,
    keep_going: bool = False,
) -> tuple[list[Video], list[tuple[str, str]]]:
    """As `open_sources`; videos that are open already are taken as they are.

    Returns:
      videos, and (source, reason) of those that cannot be opened, if the run keeps going.

    Raises:
      UserError: one cannot be opened, or with `keep_going` none.
    """
    opened = [source for source in sources if isinstance(source, Video)]
    if opened:
        return opened, []
    failed: list[tuple[str, str]] = []

    def note(source: str, error: UserError) -> None:
        failed.append((source, str(error)))

    skip = note if keep_going else None
    videos = open_sources(sources, split=split, selection=selection, strict=strict, skip=skip)
    if not videos:
        raise UserError(failed[0][1])
    return videos, failed


def expand(source: str, *, split: str | None) -> Iterable[str]:
    """The sources that a glob or a folder of videos stands for, in natural order; others stand for themselves.

    Raises:
      UserError: a glob that fits nothing.
    """
    path = pathlib.Path(source)
    if is_stream(source) or path.is_file():
        return [source]
    if path.is_dir():
        return folder_sources(path, source) if split is None and datasets.recognize(path) is None else [source]
    if glob.has_magic(source):
        names = sorted(glob.glob(source, recursive=True), key=natural_key)
        if not names:
            raise UserError(f"{source}: fits no file; expected {EXPECTED}")
        images = [name for name in names if pathlib.Path(name).suffix.lower() in IMAGE_SUFFIXES]
        if images and len({pathlib.Path(name).parent for name in names}) == 1 and len(images) > 1:
            raise UserError(f"{source}: fits {len(images)} images; give their folder, {pathlib.Path(names[0]).parent}")
        return names
    return [source]


def folder_sources(folder: pathlib.Path, source: str) -> list[str]:
    """The videos of a folder of videos; the folder itself where it holds images, whose videos are then left out."""
    files = [path for path in visible(folder) if path.is_file()]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in files):
        return [source]
    return [str(path) for path in sorted(videos, key=lambda path: natural_key(path.name))] or [source]


def open_videos(source: str | pathlib.Path, *, split: str | None = None, strict: bool = False) -> list[Video]:
    """The videos of one source.

    Args:
      source: a video file; an image, animated or not; a folder of images; the root of a data set; `http(s)://`,
        `rtsp://` and other streams; `camera:0`; `-` for standard input.
      split: `train`, `val` or `test`, for a root (default `val`).
      strict: see `video_files.open_video_file`.

    Raises:
      UserError: nothing there, not a video, no frames, a damaged frame, an unknown split.
    """
    if is_stream(str(source)):
        return [open_stream(str(source), strict=strict)]
    path = pathlib.Path(source)
    if not path.exists():
        reason = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
        raise UserError(f"{path}: {reason}; expected {EXPECTED}")
    if path.is_dir():
        return open_folder(path, split=split)
    if is_animated(path):
        return [open_animation(path)]
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return [open_image(path)]
    return [open_video_file(path, strict=strict)]


def open_folder(path: pathlib.Path, *, split: str | None) -> list[Video]:
    """The root of a data set, or a folder of images."""
    spec = datasets.recognize(path)
    if spec is not None:
        return open_root(spec, path, split=split or "val")
    if split is not None:
        raise UserError(
            f"{path}: split {split!r} needs the root of a data set: {known_roots(path)}; leave the split out"
        )
    try:
        return [open_frame_folder(path)]
    except UserError as error:
        folders = [one.name for one in visible(path) if one.is_dir()]
        if not folders or kinds() not in str(error):
            raise
        raise UserError(f"{error}; or the root of a data set: {known_roots(path)}") from None


def check_name(video: Video) -> Video:
    """The video; UserError for a name of it or of a frame that is no text or too long for the files of its result."""
    for name in (video.video_id, *video.stems):
        if (shown := name.encode("utf-8", "backslashreplace").decode()) != name:
            raise UserError(f"{shown}: its name is not UTF-8; expected text, rename it")
        if len(name.encode()) > LONGEST_NAME:
            raise UserError(f"{name[:40]}...: its name has {len(name.encode())} bytes; expected at most {LONGEST_NAME}")
    return video


def known_roots(path: pathlib.Path) -> str:
    """What the roots of data sets hold that share an entry with a folder, and the names of the others, in one line."""
    near, names = [], []
    for spec in datasets.DATASETS.values():
        layouts = [layout.needs for layout in spec.layouts]
        found = [needs for needs in layouts if any((path / one.split("/")[0]).exists() for one in alternatives(needs))]
        near += [f"{spec.title} ({' and '.join(needs).replace('|', ' or ')})" for needs in found]
        names += [] if found else [spec.title]
    return ", ".join(dict.fromkeys([*near, *names]))


def alternatives(needs: Sequence[str]) -> list[str]:
    """The entries that a layout needs, one of which may do for another."""
    return [one for entry in needs for one in entry.split("|")]
