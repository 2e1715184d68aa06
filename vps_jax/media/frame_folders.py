"""Folders of images as videos, and single images; a truncated image is refused."""

import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from vps_jax.media.video import DEFAULT_FPS, Frame, Video
from vps_jax.types import UserError

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


def open_frame_folder(folder: pathlib.Path) -> Video:
    """A folder of frames in the order of their names. All files are checked for truncation at once.

    Raises:
      UserError: no frames, or a damaged one.
    """
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in FRAME_SUFFIXES]
    if not files:
        raise UserError(f"{folder}: no .jpg or .png frames; expected a folder of frames, check the path")
    for file in files:
        check_whole(file)
    return files_video(folder.name, files, DEFAULT_FPS, lambda: (Frame(f.stem, read_image(f)) for f in files))


def files_video(video_id: str, files: Sequence[pathlib.Path], fps: float, frames) -> Video:
    """A video of image files; `frames` starts decoding them."""
    stems = tuple(file.stem for file in files)
    return Video(video_id, len(files), fps, frames, lambda: read_image(files[0]).shape[:2], stems)


def read_image(path: pathlib.Path) -> np.ndarray:
    """RGB uint8 `[h, w, 3]` of an image file, as stored (no rotation by EXIF).

    Raises:
      UserError: the file is damaged.
    """
    data = check_whole(path)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UserError(f"{path}: cannot be decoded; expected a JPEG or PNG image, restore it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def check_whole(path: pathlib.Path) -> bytes:
    """Bytes of an image file whose end is there: decoders fill the rest of a truncated JPEG with grey in silence."""
    data = path.read_bytes()
    if data.startswith(b"\x89PNG"):
        whole = b"IEND" in data[-64:]
    elif data.startswith(b"\xff\xd8"):
        whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0  # end of image behind the last start of scan
    else:
        raise UserError(f"{path}: is not an image ({len(data)} bytes); expected a JPEG or PNG image, restore it")
    if not whole:
        raise UserError(f"{path}: is truncated after {len(data)} bytes; expected a whole image, restore it")
    return data
