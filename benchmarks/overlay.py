"""Time of drawing a 4K overlay frame and of encoding it, against the plain form, in one process.

Use: python benchmarks/overlay.py [--height 2160] [--width 3840] [--frames 24]

The plain form is written out below: a mask per segment at full size, and x264's own settings. Times are of the
processor, all threads together, the median over frames; a player's second is not measured.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import av
import cv2
import numpy as np

from vps_jax.datasets.classes import class_table
from vps_jax.media.movie_writer import MovieWriter
from vps_jax.types import PanopticFrame
from vps_jax.viz import overlay as drawing

TABLE = class_table("vipseg")
STUFF, THINGS, THING = 8, 24, 60  # segments, and the class of all things


def scenes(height: int, width: int, frames: int):
    """Images of smooth noise and their panoptic frames: columns of stuff, and discs that move."""
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 256, (9, 16, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    stuff = np.repeat(np.array(TABLE.stuff_ids[:STUFF], np.uint8), -(-width // STUFF))[:width]
    for t in range(frames):
        tracks = np.zeros((height, width), np.int32)
        for i in range(THINGS):
            center = int((i % 6 + 0.5) * width / 6 + 8 * t), int((i // 6 + 0.5) * height / 4)
            cv2.circle(tracks, center, height // 10, i + 1, -1)
        categories = np.where(tracks > 0, THING, stuff).astype(np.uint8)
        yield np.roll(ground, 8 * t, axis=1), PanopticFrame(f"{t:08d}", categories, tracks)


def plain_overlay(image: np.ndarray, frame: PanopticFrame) -> np.ndarray:
    """Colours, contours and names; things and what is named by masks at full size."""
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(TABLE.colors)] = TABLE.colors
    colors = colors[frame.categories]
    tracks = [track for track in np.unique(frame.track_ids).tolist() if track]
    for track in tracks:
        colors[frame.track_ids == track] = drawing.track_color(track)
    out = cv2.addWeighted(image, 0.5, colors, 0.5, 0)
    keys = frame.track_ids.astype(np.int64) * 256 + frame.categories
    edge = np.zeros(keys.shape, bool)
    edge[:, :-1] |= keys[:, :-1] != keys[:, 1:]
    edge[:-1] |= keys[:-1] != keys[1:]
    out[edge] = 255
    for category in np.unique(frame.categories[frame.track_ids == 0]).tolist():
        mask = (frame.categories == category) & (frame.track_ids == 0)
        if mask.sum() >= 0.02 * mask.size:
            write(out, TABLE.names[category], mask)
    for track in tracks:
        mask = frame.track_ids == track
        if mask.sum() >= 0.0005 * mask.size:
            write(out, f"{TABLE.names[frame.categories[mask][0]]} {track}", mask)
    return out


def write(image: np.ndarray, text: str, mask: np.ndarray) -> None:
    """A name where its segment is thickest."""
    drawing.write_text(image, text, drawing.inner_point(mask), min(mask.shape) / 900, [])


class PlainMovie:
    """Frames to H.264 as x264 does it by itself."""

    def __init__(self, path: pathlib.Path, size: tuple[int, int]):
        self._container = av.open(str(path), "w")
        self._stream = self._container.add_stream("libx264", rate=24, options={"crf": "20"})
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"

    def write(self, image: np.ndarray) -> None:
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


def timed(function, *arguments):
    """What a function gives, and seconds of the processor."""
    start = time.process_time()
    return function(*arguments), time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--height", type=int, default=2160)
    parser.add_argument("--width", type=int, default=3840)
    parser.add_argument("--frames", type=int, default=24)
    given = parser.parse_args()
    drawn, encoded = {"plain": [], "ours": []}, {"plain": 0.0, "ours": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: pathlib.Path(folder) / f"{name}.mp4" for name in drawn}
        plain = PlainMovie(paths["plain"], (given.height, given.width))
        ours = MovieWriter(paths["ours"], fps=24)
        ours.__enter__()
        for image, frame in scenes(given.height, given.width, given.frames):
            picture, seconds = timed(plain_overlay, image, frame)
            drawn["plain"].append(seconds)
            encoded["plain"] += timed(plain.write, picture)[1]
            picture, seconds = timed(drawing.overlay, image, frame, TABLE)
            drawn["ours"].append(seconds)
            encoded["ours"] += timed(ours.write, picture)[1]
        encoded["plain"] += timed(plain.close)[1]
        encoded["ours"] += timed(ours.__exit__, None, None, None)[1]
        sizes = {name: path.stat().st_size for name, path in paths.items()}
    total = {}
    for name in drawn:
        draw, encode = statistics.median(drawn[name]), encoded[name] / given.frames
        total[name] = draw + encode
        print(f"{name}: drawing {draw:.3f} s, encoding {encode:.3f} s a frame, {sizes[name] / 1e6:.2f} MB")
    print(f"ratio {total['ours'] / total['plain']:.2f}, drawing alone "
          f"{statistics.median(drawn['ours']) / statistics.median(drawn['plain']):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
