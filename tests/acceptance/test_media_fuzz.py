"""Mutated media files: each ends with frames or with one line, never with a traceback and never after 20 seconds."""

import pathlib
import random
import signal
import warnings

import av
import numpy as np
import pytest
from PIL import Image

from vps_jax.media.movie_writer import MovieWriter
from vps_jax.media.sources import open_sources
from vps_jax.media.video import frames_of_one_size
from vps_jax.types import UserError

pytestmark = pytest.mark.acceptance
COUNT, SECONDS, MOST_FRAMES = 2000, 20, 400
CONTAINERS = {"v.mp4": "libx264", "v.mkv": "libx264", "v.avi": "mpeg4", "v.webm": "libvpx", "v.ts": "mpeg2video"}


def pictures(count=12):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(count)]


def originals(folder: pathlib.Path) -> list[pathlib.Path]:
    """A file of every kind."""
    for name, codec in CONTAINERS.items():
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=24)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for image in pictures():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
    with MovieWriter(folder / "clock.mp4", fps=6) as movie:
        for i, image in enumerate(pictures()):
            movie.write(image, i * i / 10)
    drawn = [Image.fromarray(image) for image in pictures(4)]
    for suffix in ("jpg", "png", "webp", "bmp", "tif", "avif"):
        drawn[0].save(folder / f"image.{suffix}")
    for suffix in ("webp", "gif", "png"):
        drawn[0].save(folder / f"animation.{suffix}", save_all=True, append_images=drawn[1:], duration=100)
    return sorted(folder.iterdir())


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Flipped bits, zeros, another head, a piece twice, or a cut."""
    data, at = bytearray(data), rng.randrange(len(data))
    kind = rng.choice(("bits", "zeros", "head", "twice", "cut"))
    if kind == "bits":
        for _ in range(rng.randint(1, 30)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        data[at : at + 500] = bytes(len(data[at : at + 500]))
    elif kind == "head":
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(min(200, len(data)))] = rng.randrange(256)
    elif kind == "twice":
        data[at:at] = data[at : at + 2000]
    return bytes(data[:at] if kind == "cut" else data)


def outcome(path: pathlib.Path) -> str:
    """What reading a file ends with."""
    try:
        for video in open_sources([path]):
            for _, _ in zip(frames_of_one_size(video), range(MOST_FRAMES), strict=False):
                pass
    except UserError as error:
        assert "\n" not in str(error)
        return "line"
    return "frames"


def test_mutated_files_end_with_frames_or_one_line(tmp_path):
    rng, counts = random.Random(0), {"frames": 0, "line": 0}
    files = [(path.suffix, path.read_bytes()) for path in originals(tmp_path)]
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"longer than {SECONDS} s"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i in range(COUNT):
                suffix, data = rng.choice(files)
                path = tmp_path / f"mutated{i}{suffix}"
                path.write_bytes(mutated(data, rng))
                signal.alarm(SECONDS)
                counts[outcome(path)] += 1
                signal.alarm(0)
                path.unlink()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    print(counts)
    assert min(counts.values()) > COUNT // 20
