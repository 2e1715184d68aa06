"""Label PNGs, decoded with every way in which a file can be wrong told apart."""

import pathlib
import struct
import zlib

import cv2
import numpy as np

from vps_jax.types import UserError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KINDS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_PIXELS = (b"IHDR", b"IDAT", b"IEND")  # all that an RGB or grey image is made of; the rest is advice to viewers


def read_png(path: pathlib.Path, *, kind: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an 8-bit PNG of one kind.

    Only the pixels count: a transparent colour (tRNS), other advice to viewers and what stands behind the end are left
    unread.

    Args:
      path: the file.
      kind: `RGB` or `grey`.
      size: (height, width) that it must have; it is looked at before memory is taken for the pixels.

    Returns:
      uint8 `[h, w, 3]` in OpenCV's order B, G, R, or `[h, w]`.

    Raises:
      UserError: no such file, not a PNG, another kind or size, or cut off.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}; expected an 8-bit {kind} PNG") from None
    if len(data) < 33 or not data.startswith(_SIGNATURE):
        raise UserError(f"{path}: not a PNG file; expected an 8-bit {kind} PNG")
    depth, color_type = data[24], _KINDS.get(data[25], "unknown")
    if (depth, color_type) != (8, kind):
        raise UserError(f"{path}: a {depth}-bit {color_type} PNG; expected an 8-bit {kind} PNG")
    width, height = struct.unpack_from(">II", data, 16)
    if size not in (None, (height, width)):
        raise UserError(f"{path}: size is {width}x{height}; expected {size[1]}x{size[0]} as the truth has")
    pixels = _pixel_chunks(data)
    # unchanged: no rotation, no conversion
    image = None if pixels is None else cv2.imdecode(np.frombuffer(pixels, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise UserError(f"{path}: the PNG is cut off or broken; write it again")
    return image


def png_size(path: pathlib.Path) -> tuple[int, int]:
    """(height, width) of a PNG by its head alone.

    Raises:
      UserError: no such file, or not a PNG.
    """
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}; expected a PNG") from None
    if len(head) < 24 or not head.startswith(_SIGNATURE):
        raise UserError(f"{path}: not a PNG file; expected one")
    width, height = struct.unpack_from(">II", head, 16)
    return height, width


def _pixel_chunks(data: bytes) -> bytes | None:
    """The file with its pixel chunks alone, or None when it breaks off or a chunk's checksum is wrong."""
    parts, at = [_SIGNATURE], len(_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        name = data[at + 4 : at + 8]
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return None
        if name in _PIXELS:
            parts.append(data[at:end])
        elif name != b"PLTE" and not name[0] & 32:  # a chunk that a viewer must know and an RGB or grey image lacks
            return None
        if name == b"IEND":
            return b"".join(parts)
        at = end
    return None
