"""A video as the rest of the package sees it: a name, and frames that are decoded one at a time."""

import contextlib
import fractions
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.types import GivenObject, UserError

DEFAULT_FPS = 6.0  # VIPSeg's frames are five or six a second


class Frame(NamedTuple):
    """Decoded frame: name without suffix, RGB uint8 `[h, w, 3]`, and when it is shown, in seconds of the source."""

    stem: str
    image: np.ndarray
    time: float


class Video(NamedTuple):
    """A video whose frames can be decoded again and again.

    Attributes:
      video_id: name of the video in results.
      num_frames: as the container or folder says; 0 of a stream, where nobody knows.
      fps: frames per second.
      frames: starts decoding from the first frame; raises `UserError` at a frame that cannot be decoded.
      size: height and width in pixels, from the first frame alone.
      stems: names of the frames, as the container or folder says.
      times: when they are shown, in seconds of the source.
      pixel_aspect: width of a pixel over its height.
      source: the file or folder, for messages and for its sound; None of a stream.
      fingerprint: gives a text that tells the files from others of the same names; an empty one of a stream.
      number: id of the video in its data set's json, where results must have it.
      origin: absolute path and split that open it again, see `sources.open_videos`; None of a stream.
      results: names of the frames that results are asked for, of a data set that shows more; None for all.
      objects: gives the objects to be followed in it; None where none are given.
    """

    video_id: str
    num_frames: int
    fps: float
    frames: Callable[[], Iterator[Frame]]
    size: Callable[[], tuple[int, int]]
    stems: tuple[str, ...]
    times: tuple[float, ...] = ()
    pixel_aspect: fractions.Fraction = fractions.Fraction(1)
    source: pathlib.Path | None = None
    fingerprint: Callable[[], str] = str
    number: int | str | None = None
    origin: tuple[str, str | None] | None = None
    results: frozenset[str] | None = None
    objects: Callable[[], Sequence[GivenObject]] | None = None


def fingerprint_of(files: Sequence[pathlib.Path]) -> str:
    """A text for the names, sizes and times of files: copied or changed ones have another."""
    rows = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def first_size(frames: Callable[[], Iterator[Frame]]) -> tuple[int, int]:
    """Height and width of the first frame, without decoding a second one."""
    with contextlib.closing(frames()) as first:
        return next(first).image.shape[:2]


def frames_of_one_size(video: Video) -> Iterator[Frame]:
    """The frames of a video.

    Raises:
      UserError: one has another size than those before.
    """
    expected = None
    for frame in video.frames():
        height, width = frame.image.shape[:2]
        expected = expected or (height, width)
        if (height, width) != expected:
            raise UserError(
                f"video {video.video_id}: frame {frame.stem} has {width}x{height} pixels; expected "
                f"{expected[1]}x{expected[0]} as the frames before, resize it"
            )
        yield frame
