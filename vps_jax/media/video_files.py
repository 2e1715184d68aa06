"""Video files, decoded by FFmpeg; a file that breaks off is refused."""

import functools
import pathlib
from collections.abc import Iterator

import av
import numpy as np

from vps_jax.media.video import DEFAULT_FPS, Frame, Video, first_size
from vps_jax.types import UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".webm", ".mkv", ".mov")


def open_video_file(path: pathlib.Path) -> Video:
    """A video file; stems are the eight-digit frame numbers from 0.

    Raises:
      UserError: not a video, or damaged so that it cannot be opened. Decoding raises it where the file breaks off.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: has no video stream; expected a video, choose another file")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
            count = stream.frames
            if any(entry.pos + entry.size > path.stat().st_size for entry in stream.index_entries):
                raise UserError(
                    f"{path}: is cut off, its index points behind its end; expected a whole video, copy it again"
                )
            next(container.decode(stream), None)
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a video ({_reason(error)}); expected mp4, avi or webm") from error
    count = count or _count_frames(path)
    stems = tuple(map(_frame_name, range(count)))
    size = functools.partial(first_size, lambda: _decode_file(path))
    return Video(path.stem, count, fps, lambda: _decode_file(path), size, stems)


def _frame_name(index: int) -> str:
    return f"{index:08d}"


def _count_frames(path: pathlib.Path) -> int:
    """Frames of a container that does not say, by reading packets without decoding them."""
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def _decode_file(path: pathlib.Path) -> Iterator[Frame]:
    done, end = 0, 0.0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                upright = np.rot90(
                    frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)
                )  # phones lie on their side
                yield Frame(_frame_name(done), np.ascontiguousarray(upright))
                done, end = done + 1, frame.time or 0.0
            whole = done and not _ends_early(container.format.name, stream, done, end)
    except av.error.FFmpegError as error:
        raise UserError(f"{path}: broken after frame {done} ({_reason(error)}); expected a whole video") from error
    if not whole:
        raise UserError(f"{path}: ends early, after {done} frames; expected a whole video, copy it again")


def _ends_early(container: str, stream, done: int, end: float) -> bool:
    """Whether a container promised more than was decoded.

    For mp4 and mov the index was checked at the start, and their frame counts prove nothing: a trimmed video keeps
    frames that are never shown.
    """
    if container == "avi":
        return done < stream.frames
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")  # Matroska and WebM: "00:00:05.000000000"
    minutes, _, seconds = rest.partition(":")
    if not seconds or not stream.average_rate:
        return False
    duration = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return end + 2.5 / float(stream.average_rate) < duration


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0]
