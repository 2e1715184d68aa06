"""Single images: JPEG, PNG, WebP, BMP, TIFF and AVIF, decoded to RGB; damage is refused, never filled in silence."""

import pathlib
import re
import struct
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from vps_jax.types import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif")
EXIF_ORIENTATION = 0x0112
# what decoders raise for files that are broken; Pillow's are of many authors
BROKEN = (
    OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, AttributeError, EOFError, MemoryError,
    AssertionError, RuntimeError, struct.error, cv2.error, Image.DecompressionBombError,
)  # fmt: skip
# a marker that ends entropy-coded data: not a stuffed zero, not a restart, not a fill byte (ITU T.81, B.1.1.2)
JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
UPRIGHT = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}  # EXIF orientation -> what a viewer does


def read_image(path: pathlib.Path, *, upright: bool = False) -> np.ndarray:
    """RGB uint8 `[h, w, 3]` of an image file.

    Args:
      path: of a kind in `IMAGE_SUFFIXES`, whatever its name says.
      upright: turn it as its EXIF orientation says; otherwise it is given as stored.

    Raises:
      UserError: the file is damaged or no such image.
    """
    data = read_whole(path)
    try:
        if data.startswith(b"\xff\xd8"):
            image = decode_jpeg(data)
        elif data.startswith(b"\x89PNG"):
            image = decode_png(data, path)
        else:
            image = decode_other(path)
    except BROKEN as error:
        raise UserError(
            f"{path}: cannot be decoded ({first_line(error)}); expected an RGB or grey image, restore or convert it"
        ) from error
    return np.ascontiguousarray(UPRIGHT.get(orientation(path), lambda x: x)(image)) if upright else image


def decode_jpeg(data: bytes) -> np.ndarray:
    """RGB of a JPEG file; ValueError where the decoder would only warn and go on with garbage."""
    space = simplejpeg.decode_jpeg_header(data)[2]
    if space in ("CMYK", "YCCK"):
        raise ValueError(f"its colours are {space}")
    return simplejpeg.decode_jpeg(data, "RGB", strict=True)


def decode_png(data: bytes, path: pathlib.Path) -> np.ndarray:
    """RGB of a PNG file; of 16 bits the upper eight are kept."""
    buffer = np.frombuffer(data, np.uint8)
    if data[24] == 16:
        warn_of_range(cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED), path)
    image = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("its data is broken")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_other(path: pathlib.Path) -> np.ndarray:
    """RGB of the first picture of any other file that Pillow reads."""
    with Image.open(path) as picture:
        if picture.mode.startswith("I"):
            values = np.asarray(picture).astype(np.uint16)
            warn_of_range(values, path)
            return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(picture.convert("RGB"))


def warn_of_range(values: np.ndarray, path: pathlib.Path) -> None:
    """Say that a 16-bit image uses so little of its range that it is nearly black; Python says it once a folder."""
    if values is not None and (bits := int(values.max()).bit_length()) < 14:
        warnings.warn(
            f"{path.parent}: {bits} of the 16 bits of its images are used, so they are nearly black; stretch them to 8 "
            "or 16 bits first",
            stacklevel=2,
        )


def orientation(path: pathlib.Path) -> int:
    """EXIF orientation of an image file, 1 where it has none."""
    try:
        with Image.open(path) as picture:
            return int(picture.getexif().get(EXIF_ORIENTATION, 1))
    except BROKEN:
        return 1


def read_whole(path: pathlib.Path) -> bytes:
    """Bytes of an image file whose end is there: decoders fill the rest of a truncated JPEG with grey in silence.

    Raises:
      UserError: it is truncated, or no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected an image, restore it") from error
    if data.startswith(b"\x89PNG"):
        whole = png_ends(data)
    elif data.startswith(b"\xff\xd8"):
        whole = jpeg_ends(data)
    else:
        whole = True
        check_other(path, data)
    if not whole:
        raise UserError(f"{path}: is truncated after {len(data)} bytes; expected a whole image, restore it")
    return data


def check_other(path: pathlib.Path, data: bytes) -> None:
    """Raises UserError unless Pillow knows the format of the file."""
    try:
        with Image.open(path):
            pass
    except BROKEN as error:
        raise UserError(
            f"{path}: is not an image ({len(data)} bytes); expected JPEG, PNG, WebP, BMP, TIFF or AVIF, restore it"
        ) from error


def jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG file has its end-of-image marker; what stands behind it does not matter."""
    at = 2
    while True:
        marker = JPEG_MARKER.search(data, at)
        if marker is None:
            return False
        if marker[1] == b"\xd9":
            return True
        at = marker.end()
        if marker[1] != b"\x01":  # all but TEM carry a length
            if at + 2 > len(data):
                return False
            at += struct.unpack_from(">H", data, at)[0]


def png_ends(data: bytes) -> bool:
    """Whether a PNG file has its last chunk; what stands behind it does not matter."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND":
            return at <= len(data)
    return False


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
