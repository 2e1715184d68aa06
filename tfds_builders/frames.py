"""One frame as a record: the image file verbatim, the label as a zlib-compressed uint16 map."""

import pathlib
import zlib
from typing import NamedTuple

import numpy as np

from vps_jax.datasets import VideoFiles
from vps_jax.datasets.label_files import BadFrame
from vps_jax.datasets.spec import LabelMap

__all__ = ["BadFrame", "Frame", "image_size", "jpeg_size", "packed", "read_frame", "usable", "whole"]

QUALITY = 95  # of shrunk images
VALUES = 65536
PNG, RIFF = b"\x89PNG", b"RIFF"  # how these files begin; a WebP is a RIFF
Size = tuple[int, int]  # height, width


class Frame(NamedTuple):
    """A frame that was read: record fields and what the table and report need."""

    image: bytes
    label: bytes
    height: int
    width: int
    counts: np.ndarray  # pixels per label value, `[65536]` int64; all zero without a label
    labels: LabelMap | None  # at the stored size, where masks overlap
    findings: dict[str, int]


def usable(video: VideoFiles) -> list[int]:
    """Numbers of the frames that go into the records: all, or those with a mask where the split has masks."""
    return [i for i in range(len(video.images)) if video.masks is None or video.masks[i] is not None]


def read_frame(image: pathlib.Path, labels: LabelMap | None = None, *, shrink: Size | None = None) -> Frame:
    """Read one image and join it with its labels `[h, w]`, if it has any.

    Args:
      image: JPEG, PNG or WebP file.
      labels: its labels.
      shrink: (short side, longest long side) to which a larger frame is shrunk: the image bilinear and as JPEG, the
        labels nearest.

    Raises:
      BadFrame: the image is truncated or of another kind, or the labels have another size.
    """
    try:
        data = image.read_bytes()
    except OSError as error:
        raise BadFrame(f"{image}: cannot be read ({error.strerror}); restore the file") from None
    height, width = image_size(data, image)
    values = None if labels is None else labels.values
    if values is not None and values.shape != (height, width):
        size = f"{values.shape[1]}x{values.shape[0]}"
        raise BadFrame(f"{image}: its mask is {size}, expected the image's size {width}x{height}")
    if shrink is not None and (scale := min(shrink[0] / min(height, width), shrink[1] / max(height, width))) < 1:
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        data, values = shrunk(data, image, values, (height, width))
    if values is None:
        return Frame(data, b"", height, width, np.zeros(VALUES, np.int64), None, {})
    values = values.astype("<u2")
    counts = np.bincount(values.ravel(), minlength=VALUES)
    kept = labels._replace(values=values) if labels.combinations else None
    return Frame(data, packed(values), height, width, counts, kept, dict(labels.findings))


def packed(values: np.ndarray) -> bytes:
    """Label values uint16 `[h, w]` as they are stored."""
    return zlib.compress(values.astype("<u2").tobytes(), 1)


def shrunk(data: bytes, path: pathlib.Path, values: np.ndarray | None, size: Size):
    """Image bytes and label values `[h, w]` at a smaller size."""
    import cv2

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if picture is None:
        raise BadFrame(f"{path}: cannot be decoded; fetch the file again")
    picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    if values is not None:
        values = cv2.resize(values.astype(np.uint16), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes(), values


def image_size(data: bytes, path: pathlib.Path) -> tuple[int, int]:
    """`(height, width)` of a whole JPEG, PNG or WebP.

    Raises:
      BadFrame: another kind of file, or cut off.
    """
    if data.startswith(PNG):
        if not whole(data):
            raise BadFrame(f"{path}: truncated PNG ({len(data)} bytes, no end marker); fetch the file again")
        return int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    if data.startswith(RIFF):
        return webp_size(data, path)
    return jpeg_size(data, path)


def whole(data: bytes) -> bool:
    """Whether an image file has its end."""
    if data.startswith(RIFF):
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return (b"IEND" if data.startswith(PNG) else b"\xff\xd9") in data[-64:]


def webp_size(data: bytes, path: pathlib.Path) -> tuple[int, int]:
    """`(height, width)` from the first chunk: lossy, lossless, or the canvas of the extended form (RFC 9649).

    Raises:
      BadFrame: not a WebP, or cut off.
    """
    if not whole(data):
        raise BadFrame(f"{path}: truncated WebP ({len(data)} bytes); fetch the file again")
    kind = data[8:16]
    if kind == b"WEBPVP8 ":
        return int.from_bytes(data[28:30], "little") & 0x3FFF, int.from_bytes(data[26:28], "little") & 0x3FFF
    if kind == b"WEBPVP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"WEBPVP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    raise BadFrame(f"{path}: expected a JPEG, PNG or WebP image ({len(data)} bytes found)")


def jpeg_size(data: bytes, path: pathlib.Path) -> tuple[int, int]:
    """`(height, width)` from the header; the end marker must be there too.

    Raises:
      BadFrame: not a JPEG, or cut off.
    """
    if data[:2] != b"\xff\xd8":
        raise BadFrame(f"{path}: expected a JPEG, PNG or WebP image ({len(data)} bytes found)")
    if not whole(data):
        raise BadFrame(f"{path}: truncated JPEG ({len(data)} bytes, no end marker); fetch the file again")
    at = 2
    while at + 9 < len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        # start-of-frame markers, without the three numbers in their range that mean something else
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + length
    raise BadFrame(f"{path}: JPEG without a frame header; fetch the file again")
