"""Video files and streams of known length, decoded by FFmpeg as players show them; one that breaks off is refused."""

import functools
import pathlib
import warnings
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter

from vps_jax.media import containers
from vps_jax.media.image_files import first_line
from vps_jax.media.video import DEFAULT_FPS, Frame, Video, fingerprint_of, first_size
from vps_jax.types import UserError

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv",
    ".3gp", ".y4m", ".mxf",
)  # fmt: skip


class Facts(NamedTuple):
    """What a container says of a stream.

    Attributes:
      stream: its index.
      fps: frames per second.
      start: time of the first frame; None if the container has no clock that can be used.
      times: of the frames that are shown, in seconds from the first.
      pixel_aspect: width of a pixel over its height, as shown.
    """

    stream: int
    fps: float
    start: float | None
    times: tuple[float, ...]
    pixel_aspect: Fraction


def open_video_file(path: pathlib.Path, *, strict: bool = False) -> Video:
    """A video file; stems are the eight-digit frame numbers from 0.

    Args:
      path: any container and codec that FFmpeg reads.
      strict: refuse frames that the decoder says are damaged; otherwise they are given, with a warning.

    Raises:
      UserError: not a video, or one that breaks off or cannot be opened. Decoding raises it at a broken frame.
    """
    try:
        containers.check_whole(path)
        facts = read_facts(path)
    except UserError:
        raise
    except containers.BROKEN as error:
        raise UserError(
            f"{path}: cannot be read as a video ({first_line(error)}); expected mp4, avi or webm"
        ) from error
    frames = functools.partial(decode_file, path, facts, strict=strict)
    stems, size = tuple(map(frame_name, range(len(facts.times)))), functools.partial(first_size, frames)
    return Video(
        path.stem, len(stems), facts.fps, frames, size, stems, facts.times, facts.pixel_aspect, path,
        lambda: fingerprint_of([path]),
    )  # fmt: skip


def frame_name(index: int) -> str:
    """The stem of a frame that has no file of its own."""
    return f"{index:08d}"


def read_facts(path: pathlib.Path) -> Facts:
    """What the container says, from its packets; the first frame is decoded to prove that there is one.

    Raises:
      UserError: no video stream; cover art is none.
    """
    with containers.open_container(path) as container:
        stream = best_stream(container, path)
        index, rate, base = stream.index, stream.average_rate or stream.guessed_rate, stream.time_base
        aspect = stream.sample_aspect_ratio or Fraction(1)
        first = next(container.decode(stream), None)
    with containers.open_container(path) as container:  # from its start again: decoding has taken packets
        shown = [p.pts for p in container.demux(container.streams[index]) if p.size and not p.is_discard]
    if first is None or not shown:
        raise UserError(f"{path}: no frame can be decoded; expected a whole video, copy it again")
    fps = float(rate) if rate else DEFAULT_FPS
    (a, b), _ = abs(display_matrix(first))
    aspect = 1 / aspect if b > a else aspect  # width and height change places
    return Facts(index, fps, *clock(shown, base, fps), aspect)


def clock(shown: list[int | None], base: Fraction, fps: float) -> tuple[float | None, tuple[float, ...]]:
    """`start` and `times` of `Facts`; evenly at `fps` where the container does not say when, or says it twice."""
    known = sorted(pts for pts in shown if pts is not None)
    if len(known) < len(shown) or len(set(known)) < len(known):
        return None, tuple(i / fps for i in range(len(shown)))
    return float(known[0] * base), tuple(float((pts - known[0]) * base) for pts in known)


def best_stream(container, path: pathlib.Path):
    """The video stream that FFmpeg chooses.

    Raises:
      UserError: there is none; cover art is none.
    """
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise UserError(f"{path}: has no video stream; expected a video, choose another file")
    chosen = container.streams.best("video")
    chosen = chosen if chosen in streams else streams[0]
    if len(streams) > 1:
        others = ", ".join(f"{s.width}x{s.height}" for s in streams if s is not chosen)
        warnings.warn(
            f"{path}: has {len(streams)} video streams; {chosen.width}x{chosen.height} is taken, not {others}",
            stacklevel=2,
        )
    return chosen


def decode_file(path: pathlib.Path, facts: Facts, *, strict: bool) -> Iterator[Frame]:
    """The frames of a file, upright; see `open_video_file`."""
    done, damaged, count = 0, [], len(facts.times)
    to_rgb = VideoReformatter()
    try:
        with containers.open_container(path) as container:
            stream = container.streams[facts.stream]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if frame.is_corrupt and strict:
                    raise UserError(f"{path}: frame {frame_name(done)} is damaged; leave --strict out to take it")
                if frame.is_corrupt:
                    damaged.append(frame_name(done))
                if facts.start is None or frame.pts is None:
                    time = done / facts.fps
                else:
                    time = float(frame.pts * frame.time_base) - facts.start
                yield Frame(frame_name(done), upright(frame, to_rgb), time)
                done += 1
    except UserError:
        raise
    except containers.BROKEN as error:
        raise UserError(
            f"{path}: broken after frame {done} ({first_line(error)}); expected a whole video, copy it again"
        ) from error
    if done < count and strict:
        raise UserError(f"{path}: {count - done} of {count} frames are not decoded; --strict refuses that")
    if done < count:
        warnings.warn(f"{path}: {count - done} of {count} frames are damaged and left out", stacklevel=2)
    if damaged:
        warnings.warn(f"{path}: {len(damaged)} of {done} frames are damaged, the first is {damaged[0]}", stacklevel=2)


def display_matrix(frame) -> np.ndarray:
    """What a player does with a frame: integer `[2, 2]`, of (x, y) as rows; the identity where nothing is said.

    A matrix that is singular says nothing, as players take it.
    """
    for data in SideDataContainer(frame):  # frame.side_data would refer back to the frame, a cycle
        if data.type == SideData.DISPLAYMATRIX:
            matrix = np.frombuffer(bytes(data), np.int32)[:9].reshape(3, 3)[:2, :2].astype(np.int64)
            if matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]:
                return matrix
    return np.eye(2, dtype=np.int64)


def upright(frame, to_rgb: VideoReformatter) -> np.ndarray:
    """RGB uint8 `[h, w, 3]` of a decoded frame, turned and mirrored as its display matrix says.

    A pixel (x, y) is shown at (a x + c y, b x + d y) for the rows (a, b), (c, d): right angles only.

    Args:
      frame: of PyAV.
      to_rgb: serves all frames of a video; a frame's own one starts threads, and keeps them as long as the frame lives.
    """
    image, matrix = to_rgb.reformat(frame, format="rgb24").to_ndarray(), display_matrix(frame)
    if abs(matrix[0, 1]) > abs(matrix[0, 0]):  # x becomes y
        image, matrix = image.swapaxes(0, 1), matrix[::-1]
    if matrix[0, 0] < 0:
        image = image[:, ::-1]
    if matrix[1, 1] < 0:
        image = image[::-1]
    return np.ascontiguousarray(image)
