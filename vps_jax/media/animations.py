"""Animated images: WebP, GIF, PNG and AVIF with more than one picture."""

import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageSequence

from vps_jax.media.image_files import BROKEN, first_line
from vps_jax.media.video import DEFAULT_FPS, Frame, Video, fingerprint_of
from vps_jax.media.video_files import frame_name
from vps_jax.types import UserError

ANIMATED_SUFFIXES = (".webp", ".gif", ".apng", ".png", ".avif")


def is_animated(path: pathlib.Path) -> bool:
    """Whether a file is an image with more than one picture."""
    if path.suffix.lower() not in ANIMATED_SUFFIXES:
        return False
    try:
        with Image.open(path) as picture:
            return getattr(picture, "n_frames", 1) > 1 or picture.format == "GIF"
    except BROKEN:
        return False


def open_animation(path: pathlib.Path) -> Video:
    """An animated image as a video; a picture is shown for as long as the file says."""
    shown = [duration for _, duration in pictures(path)]
    times = tuple(np.cumsum([0.0, *shown[:-1]]).tolist())
    stems = tuple(map(frame_name, range(len(times))))
    with Image.open(path) as picture:
        size = (picture.height, picture.width)

    def frames() -> Iterator[Frame]:
        for stem, time, (image, _) in zip(stems, times, pictures(path), strict=True):
            yield Frame(stem, image, time)

    fps = len(shown) / sum(shown)
    own = lambda: fingerprint_of([path])  # noqa: E731
    return Video(path.stem, len(times), fps, frames, lambda: size, stems, times, source=path, fingerprint=own)


def pictures(path: pathlib.Path) -> Iterator[tuple[np.ndarray, float]]:
    """RGB uint8 `[h, w, 3]` and seconds of every picture.

    Raises:
      UserError: a picture cannot be decoded.
    """
    done = 0
    try:
        with Image.open(path) as file:
            for picture in ImageSequence.Iterator(file):
                image = np.asarray(picture.convert("RGB"))
                yield image, picture.info.get("duration", 0) / 1000 or 1 / DEFAULT_FPS
                done += 1
    except BROKEN as error:
        raise UserError(f"{path}: broken after picture {done} ({first_line(error)}); expected a whole file") from error
