"""Frames to an H.264 file."""

import fractions
import pathlib

import av
import numpy as np


class MovieWriter:
    """Writes RGB frames to an H.264 file (`.mp4`); odd sides are extended by one pixel. A context manager.

    The file appears under its name only when the block ends without an error.
    """

    def __init__(self, path: pathlib.Path, *, fps: float):
        self.path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._rate = fractions.Fraction(fps).limit_denominator(65535)
        self._container = None
        self._stream = None

    def __enter__(self) -> "MovieWriter":
        self._container = av.open(str(self._partial), "w", format="mp4")
        return self

    def write(self, image: np.ndarray) -> None:
        """Append `[h, w, 3]` uint8; all frames have one size."""
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": "20"})
            self._stream.height, self._stream.width = image.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind, error, trace) -> None:
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if kind is None and self._stream is not None:
            self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)
