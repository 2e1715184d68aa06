"""Frames to an H.264 file with the clock, the pixel aspect and the sound of their source."""

import contextlib
import pathlib
import warnings
from collections.abc import Iterator
from fractions import Fraction

import av
import cv2
import numpy as np

from vps_jax.media.containers import BROKEN, open_container
from vps_jax.media.image_files import first_line

TICKS = 90_000  # per second; divides by all common frame rates
CPU_AVX_512F = 13  # of cv::CpuFeatures, which Python's cv2 does not name
QUALITY = {"crf": "20", "preset": "superfast"}  # a quarter of the time of the default preset, files 7 % larger
if cv2.checkHardwareSupport(CPU_AVX_512F):  # x264's code for it gives other bytes now and then for the same frames
    QUALITY["x264-params"] = "asm=AVX2"


class MovieWriter:
    """Writes RGB frames to a `.mp4`; odd sides are extended by one pixel. A context manager.

    The file appears under its name only when the block ends without an error.
    """

    def __init__(
        self, path: pathlib.Path, *, fps: float, pixel_aspect: Fraction = Fraction(1), sound: pathlib.Path | None = None
    ):
        """Nothing is opened yet.

        Args:
          path: of the file.
          fps: stated in the file, and the clock of frames without a time.
          pixel_aspect: width of a pixel over its height.
          sound: video file whose sound is copied; one that MP4 cannot hold is left out with a warning.
        """
        self.path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._fps, self._pixel_aspect, self._sound = fps, pixel_aspect, sound
        self._container = None
        self._stream = None
        self._audio: Iterator[tuple[float, av.Packet]] = iter(())
        self._next_audio: tuple[float, av.Packet] | None = None
        self._start = self._last = None
        self._done = 0

    def __enter__(self) -> "MovieWriter":
        self._container = av.open(f"file:{self._partial.absolute()}", "w", format="mp4")
        return self

    def write(self, image: np.ndarray, time: float | None = None) -> None:
        """Append `[h, w, 3]` uint8, shown at `time` seconds of the source; all frames have one size."""
        time = self._done / self._fps if time is None else time
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._open_streams(image.shape[:2], time)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.time_base, frame.pts = Fraction(1, TICKS), round((time - self._start) * TICKS)
        self._container.mux(self._stream.encode(frame))
        self._copy_sound(until=time)
        self._done, self._last = self._done + 1, time

    def _open_streams(self, size: tuple[int, int], start: float) -> None:
        self._start = start
        rate = Fraction(self._fps).limit_denominator(65535)
        self._stream = self._container.add_stream("libx264", rate=rate, options=QUALITY)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._stream.codec_context.sample_aspect_ratio = self._pixel_aspect
        self._audio = self._read_sound() if self._sound else iter(())
        self._next_audio = next(self._audio, None)  # opens its stream before the first packet is written

    def _read_sound(self) -> Iterator[tuple[float, av.Packet]]:
        """Times in the source and packets of its best sound."""
        try:
            with open_container(self._sound) as source:
                stream = source.streams.best("audio")
                if stream is None:
                    return
                copy = self._container.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue
                    time, shift = float(packet.pts * packet.time_base), round(self._start / packet.time_base)
                    if time < self._start:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                    yield time, packet
        except BROKEN as error:
            warnings.warn(f"{self.path}: without the sound of {self._sound.name} ({first_line(error)})", stacklevel=2)

    def _copy_sound(self, *, until: float) -> None:
        while self._next_audio is not None and self._next_audio[0] <= until:
            self._container.mux(self._next_audio[1])
            self._next_audio = next(self._audio, None)

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode())
                self._copy_sound(until=self._last + 1 / self._fps)
                self._container.close()  # writes what players need; a full disk is an error here
                self._partial.replace(self.path)
        finally:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._container.close()
            self._partial.unlink(missing_ok=True)
