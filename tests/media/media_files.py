"""Files of every kind, drawn: frame i is a ramp that is brighter by 10 i, to be told apart after compression."""

import struct

import av
import numpy as np
import pytest
from PIL import Image

from vps_jax.media.movie_writer import MovieWriter
from vps_jax.media.sources import open_sources
from vps_jax.media.video import frames_of_one_size
from vps_jax.types import UserError

WIDTH, HEIGHT, FPS = 64, 48, 6
IDENTITY = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def picture(i=0, height=HEIGHT, width=WIDTH):
    """Brighter to the right and to the bottom, and by 10 with every frame."""
    right, down = np.linspace(0, 60, width), np.linspace(0, 40, height)
    return np.repeat(np.uint8(right + down[:, None] + 10 * i)[..., None], 3, axis=2)


def write_movie(path, count=6, times=None, **options):
    with MovieWriter(path, fps=FPS, **options) as movie:
        for i in range(count):
            movie.write(picture(i), None if times is None else times[i])
    return path


def write_container(path, count=12, codec="libx264", packets=lambda packets: packets, draw=picture, **options):
    """A file whose packets may be changed before they are written."""
    with av.open(f"file:{path.absolute()}", "w", **options) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        made = []
        for i in range(count):
            made += stream.encode(av.VideoFrame.from_ndarray(draw(i), format="rgb24"))
        for packet in packets(made + stream.encode()):
            container.mux(packet)
    return path


def write_images(folder, names, **save):
    folder.mkdir()
    for i, name in enumerate(names):
        Image.fromarray(picture(i)).save(folder / name, **save)
    return folder


def patched(path, marker, offset, content):
    """The file with some bytes behind a marker replaced."""
    data = bytearray(path.read_bytes())
    at = data.index(marker) + offset
    data[at : at + len(content)] = content
    path.write_bytes(data)
    return path


def with_matrix(path, *matrix):
    return patched(path, b"tkhd", 44, struct.pack(">9i", *matrix))


def read(*sources, **options):
    """The only video of the sources, and its frames; what the container says agrees with them."""
    (video,) = open_sources(sources, **options)
    frames = list(frames_of_one_size(video))
    assert video.num_frames == len(frames)
    assert video.stems == tuple(frame.stem for frame in frames)
    assert video.times == pytest.approx([frame.time for frame in frames])
    assert video.size() == frames[0].image.shape[:2]
    return video, frames


def brightness(frames):
    """Which pictures the frames are."""
    base = picture().mean()
    return [round((frame.image.mean() - base) / 10) for frame in frames]


def refused(*sources, **options):
    with pytest.raises(UserError) as caught:
        read(*sources, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
