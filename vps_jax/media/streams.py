"""Sources that are read once: cameras, network streams, standard input. Frames wait for a second reader."""

import collections
import contextlib
import pathlib
import re
import shutil
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vps_jax.media.image_files import first_line
from vps_jax.media.pending import PendingBlobs
from vps_jax.media.video import DEFAULT_FPS, Frame, Video
from vps_jax.media.video_files import best_stream, frame_name, open_video_file, upright
from vps_jax.types import UserError

URL = re.compile(r"(https?|rtsps?|rtmp|udp|srt)://", re.I)
CAMERA = re.compile(r"camera:(\d+)$")
KEPT_BYTES = 256 << 20  # of compressed frames in memory; the rest is on the disk
SECONDS_TO_ANSWER = 20


def is_stream(source: str) -> bool:
    """Whether a source is read once."""
    return source == "-" or bool(URL.match(source) or CAMERA.match(source))


def open_stream(source: str, *, strict: bool = False) -> Video:
    """A camera (`camera:0`), a URL, or standard input (`-`).

    Raises:
      UserError: nothing answers, or it is no video.
    """
    if source == "-":
        return open_standard_input(strict=strict)
    camera = CAMERA.match(source)
    if camera:
        return live_video(f"camera{camera[1]}", lambda: open_camera(int(camera[1])), source)
    name = re.sub(r"[?#].*", "", source).rstrip("/").rpartition("/")[2].rpartition(".")[0] or "stream"
    return live_video(name, lambda: open_url(source), source)


def open_url(url: str):
    """A container of a network address, which must answer within `SECONDS_TO_ANSWER`."""
    options = {"rtsp_transport": "tcp"} if url.lower().startswith("rtsp") else {}
    return av.open(url, options=options, timeout=SECONDS_TO_ANSWER)


def open_camera(number: int):
    """A container of a camera of this machine."""
    if sys.platform == "darwin":
        return av.open(str(number), format="avfoundation", options={"framerate": "30"})
    if sys.platform == "win32":
        return av.open(f"video={number}", format="dshow")
    return av.open(f"/dev/video{number}", format="v4l2")


def open_standard_input(*, strict: bool, source=None) -> Video:
    """A video file that is piped in; it is written to a temporary file first, since most containers need seeking."""
    folder = tempfile.TemporaryDirectory(prefix="vps_jax_input_")
    path = pathlib.Path(folder.name) / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(source or sys.stdin.buffer, file)
    if not path.stat().st_size:
        raise UserError("-: standard input is empty; expected the bytes of a video file, pipe one in")
    with told_of_standard_input(path):
        video = open_video_file(path, strict=strict)
    decode = video.frames

    def frames() -> Iterator[Frame]:
        with told_of_standard_input(path):
            yield from decode()
        folder.name  # noqa: B018  keeps the file as long as anybody can read it

    return video._replace(frames=frames, fingerprint=str)


@contextlib.contextmanager
def told_of_standard_input(path: pathlib.Path) -> Iterator[None]:
    """Errors of the temporary file name what the user gave."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(path), "- (standard input)")) from error


def live_video(name: str, connect: Callable, source: str) -> Video:
    """A video of unknown length; connects to its first frame at once.

    Raises:
      UserError: nothing answers, or it is no video.
    """
    try:
        container = connect()
        stream = best_stream(container, pathlib.Path(source))
        decoded = container.decode(stream)
        first = next(decoded)
    except (av.error.FFmpegError, OSError, StopIteration, ValueError) as error:
        raise UserError(f"{source}: cannot be read as a video ({first_line(error)}); check the address") from error
    rate, aspect = stream.average_rate or stream.guessed_rate, stream.sample_aspect_ratio or Fraction(1)
    tee = Tee(_frames(source, container, first, decoded))
    size = upright(first, VideoReformatter()).shape[:2]
    return Video(name, 0, float(rate or DEFAULT_FPS), tee.frames, lambda: size, (), (), aspect, None)


def _frames(source: str, container, first, decoded) -> Iterator[Frame]:
    start, done, to_rgb = first.time or 0.0, 0, VideoReformatter()
    try:
        with container:
            for frame in (one for part in ((first,), decoded) for one in part):
                yield Frame(frame_name(done), upright(frame, to_rgb), (frame.time or 0.0) - start)
                done += 1
    except av.error.FFmpegError as error:
        raise UserError(f"{source}: broke off after frame {done} ({first_line(error)}); start again") from error


class Tee:
    """Frames that come once, for several readers: what one has read is kept, compressed, until the others have it."""

    def __init__(self, frames: Iterator[Frame]):
        self._frames = frames
        self._blobs = PendingBlobs(KEPT_BYTES)
        self._queues: list[collections.deque] = []
        self._started = False
        self._lock = threading.Lock()

    def frames(self) -> Iterator[Frame]:
        """All frames, for a reader that asks before any has begun.

        Raises:
          UserError: another reader has begun.
        """
        if self._started:
            raise UserError("a stream can be read once; save it to a file to run several models or a flip on it")
        queue: collections.deque = collections.deque()
        self._queues.append(queue)
        return self._read(queue)

    def _read(self, queue: collections.deque) -> Iterator[Frame]:
        while (frame := self._next(queue)) is not None:
            yield frame

    def _next(self, queue: collections.deque) -> Frame | None:
        with self._lock:
            if queue:
                stem, time, shape, key = queue.popleft()
                image = np.frombuffer(zlib.decompress(self._blobs.pop(key)), np.uint8).reshape(shape)
                return Frame(stem, image, time)
            self._started = True
            frame = next(self._frames, None)
            for other in self._queues if frame is not None else ():
                if other is not queue:
                    key = self._blobs.put(zlib.compress(frame.image.tobytes(), 1))
                    other.append((frame.stem, frame.time, frame.image.shape, key))
            return frame
