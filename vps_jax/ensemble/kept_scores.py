"""Per-frame stuff scores of an ensemble member, kept on disk as float16 for a later pass or for tuning.

One file per video: a json line, then per frame the length of its name, the name, the length of its data and the data,
zlib over the high bytes followed by the low bytes of the float16 numbers (the high ones compress well). A file appears
under its name only when its video is whole.
"""

import contextlib
import json
import pathlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from vps_jax.files import atomic_path
from vps_jax.infer.fusion import Geometry
from vps_jax.types import UserError

SUFFIX = ".scores"
LARGEST = np.finfo(np.float16).max


class ScoreHeader(NamedTuple):
    """What the scores of a video are.

    Attributes:
      member: identity of weights and settings that made them.
      classes: names of the classes, in the order of the first axis.
      geometry: sizes of the video; scores lie on the stride-4 grid of `geometry.padded`.
      source: `Video.fingerprint` of the video; empty in files of earlier versions.
    """

    member: str
    classes: tuple[str, ...]
    geometry: Geometry
    source: str = ""


def as_kept(scores) -> np.ndarray:
    """Scores as a file gives them back: float16 `[s, h4, w4]`, cut to its range."""
    return np.clip(np.asarray(scores, np.float32), -LARGEST, LARGEST).astype(np.float16)


def score_path(folder: pathlib.Path, video_id: str) -> pathlib.Path:
    """File of a video in the folder of a member."""
    return folder / f"{video_id}{SUFFIX}"


@contextlib.contextmanager
def write_blobs(path: pathlib.Path, header: ScoreHeader) -> Iterator[Callable[[str, bytes], None]]:
    """A function (name of the frame, its data) that appends a frame; the file is there when the block has ended."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(json.dumps(header._asdict()).encode() + b"\n")

        def append(stem: str, blob: bytes) -> None:
            for part in (stem.encode(), blob):
                file.write(struct.pack("<Q", len(part)) + part)

        yield append


def read_blobs(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """Names and data of the frames of a file, one at a time."""
    with path.open("rb") as file:
        file.readline()
        while length := file.read(8):
            stem = file.read(struct.unpack("<Q", length)[0]).decode()
            yield stem, file.read(struct.unpack("<Q", file.read(8))[0])


@contextlib.contextmanager
def write_scores(path: pathlib.Path, header: ScoreHeader) -> Iterator[Callable[[str, np.ndarray], None]]:
    """A function (name of the frame, float16 scores `[s, h4, w4]`) that appends a frame."""
    with write_blobs(path, header) as append:
        yield lambda stem, scores: append(stem, zlib.compress(halves(scores).tobytes(), 1))


def halves(numbers: np.ndarray) -> np.ndarray:
    """The two bytes of float16 numbers apart, uint8 `[2, n]`."""
    return np.ascontiguousarray(np.ascontiguousarray(numbers).view(np.uint8).reshape(-1, 2).T)


def joined(parts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Float16 numbers of a shape from their `halves`."""
    return np.ascontiguousarray(parts.reshape(2, -1).T).view(np.float16).reshape(shape)


def read_header(path: pathlib.Path) -> ScoreHeader:
    """The header of a file.

    Raises:
      UserError: it is no file of scores.
    """
    try:
        with path.open("rb") as file:
            return _header(file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: holds no kept scores; remove it and run its member again") from error


def _header(file) -> ScoreHeader:
    content = json.loads(file.readline())
    sizes = (tuple(size) for size in content["geometry"])
    return ScoreHeader(content["member"], tuple(content["classes"]), Geometry(*sizes), content.get("source", ""))


def read_scores(path: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and float16 scores `[s, h4, w4]` of the frames of a file, one at a time."""
    header = read_header(path)
    shape = (len(header.classes), *(side // 4 for side in header.geometry.padded))
    for stem, blob in read_blobs(path):
        yield stem, joined(np.frombuffer(zlib.decompress(blob), np.uint8), shape)


def read_stems(path: pathlib.Path) -> list[str]:
    """Names of the frames of a file, without reading the scores."""
    stems = []
    with path.open("rb") as file:
        file.readline()
        while length := file.read(8):
            stems.append(file.read(struct.unpack("<Q", length)[0]).decode())
            file.seek(struct.unpack("<Q", file.read(8))[0], 1)
    return stems
