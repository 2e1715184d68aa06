"""Folders of images as videos, and single images; names are in natural order: 2 before 10."""

import pathlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from vps_jax.datasets.spec import visible
from vps_jax.media.image_files import IMAGE_SUFFIXES, read_image, read_whole
from vps_jax.media.video import DEFAULT_FPS, Frame, Video, fingerprint_of
from vps_jax.types import UserError

# images and videos that are not read as frames of a folder; leaving one out in silence would drop frames
REFUSED_SUFFIXES = (".heic", ".heif", ".gif", ".jp2", ".jxl", ".psd", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".raw")
SYSTEM_FILES = ("thumbs.db", "desktop.ini")


def open_frame_folder(folder: pathlib.Path) -> Video:
    """A folder of frames. All files are checked for truncation at once; images are turned upright by their EXIF.

    Raises:
      UserError: no frames, two of one name, an image of a kind that is not read, or a damaged one.
    """
    files = frame_files(folder)
    for file in files:
        read_whole(file)
    return files_video(folder.resolve().name, files, DEFAULT_FPS, upright=True)._replace(source=folder)


def open_image(path: pathlib.Path) -> Video:
    """One image as a video of one frame."""
    read_whole(path)
    return files_video(path.stem, [path], DEFAULT_FPS, upright=True)._replace(source=path)


def natural_key(name: str) -> list:
    """Sorts numbers in names by their value: `2.jpg` before `10.jpg`."""
    return [(int(part), part) if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", name) if part]


def frame_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The images of a folder in natural order.

    Raises:
      UserError: none, two of one stem, or an image of a kind that is not read.
    """
    files = [path for path in visible(folder) if path.is_file() and path.name.lower() not in SYSTEM_FILES]
    frames = sorted((p for p in files if p.suffix.lower() in IMAGE_SUFFIXES), key=lambda p: natural_key(p.name))
    refused = [path.name for path in files if path.suffix.lower() in REFUSED_SUFFIXES]
    if refused:
        raise UserError(f"{folder}: {refused[0]} is of a kind that is not read; convert it to one of {kinds()}")
    if not frames:
        raise UserError(f"{folder}: {what_is_there(folder)}; expected images ({kinds()}), check the path")
    stems: dict[str, str] = {}
    for path in frames:
        if path.stem in stems:
            raise UserError(
                f"{folder}: {stems[path.stem]} and {path.name} have one stem; expected one image per frame, move "
                "masks and other versions elsewhere"
            )
        stems[path.stem] = path.name
    others = [path.name for path in files if path not in set(frames)]
    if others:
        warnings.warn(f"{folder}: {len(others)} files are no images and left out, such as {others[0]}", stacklevel=2)
    return frames


def kinds() -> str:
    """The suffixes of images in words."""
    return ", ".join(IMAGE_SUFFIXES)


def what_is_there(folder: pathlib.Path) -> str:
    """What a folder without frames holds."""
    inside = [path.name + "/" * path.is_dir() for path in visible(folder)]
    return f"no images, but {', '.join(inside[:3])}" + ", ..." * (len(inside) > 3) if inside else "is empty"


def files_video(video_id: str, files: Sequence[pathlib.Path], fps: float, *, upright: bool) -> Video:
    """A video of image files. They are checked again when decoding starts: one may have been damaged meanwhile."""
    read: Callable[[pathlib.Path], np.ndarray] = lambda file: read_image(file, upright=upright)  # noqa: E731

    def frames() -> Iterator[Frame]:
        for file in files:
            read_whole(file)
        for i, file in enumerate(files):
            yield Frame(file.stem, read(file), i / fps)

    stems = tuple(file.stem for file in files)
    times = tuple(i / fps for i in range(len(files)))
    size = lambda: read(files[0]).shape[:2]  # noqa: E731
    return Video(video_id, len(files), fps, frames, size, stems, times, fingerprint=lambda: fingerprint_of(files))
