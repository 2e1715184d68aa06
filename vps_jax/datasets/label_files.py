"""Mask files as their values, whatever kind of PNG they are."""

import pathlib

import numpy as np

from vps_jax.types import UserError

PNG = b"\x89PNG\r\n\x1a\n"
SHOWN = 8  # values in a message
GREY, PALETTE = 0, 3  # colour types of the PNG header


class BadFrame(UserError):
    """A frame that cannot be used, with the file and the reason."""


class StrayValues(BadFrame):
    """A label whose values mean nothing.

    Attributes:
      path: the label.
      pixels: of every value, in words such as `value 99`.
      reason: what is wrong with them and what to do.
    """

    def __init__(self, path: pathlib.Path, pixels: dict[str, int], reason: str):
        self.path, self.pixels, self.reason = path, pixels, reason
        rows = [f"{value} on {count} pixels" for value, count in pixels.items()]
        told = ", ".join(rows[:SHOWN] + ([f"{len(rows) - SHOWN} more"] if len(rows) > SHOWN else []))
        super().__init__(f"{path}: {told} {'are' if len(pixels) > 1 else 'is'} {reason}")

    def __reduce__(self):
        return type(self), (self.path, self.pixels, self.reason)  # processes send it to each other


def read_mask(path: pathlib.Path) -> np.ndarray:
    """Values of a single-channel PNG, grey of 1 to 16 bits or palette indices: `[h, w]` uint8 or uint16.

    Raises:
      BadFrame: the file is damaged or has several channels.
    """
    depth, kind = png_kind(path)
    if kind == PALETTE or depth < 8:
        return read_small(path, depth, kind)
    mask = read_png(path)
    if mask.ndim != 2:
        raise BadFrame(f"{path}: {mask.shape[-1]} channels; expected a single-channel 8 or 16 bit PNG mask")
    return mask


def read_rgb(path: pathlib.Path) -> np.ndarray:
    """A colour PNG as RGB uint8 `[h, w, 3]`; alpha is dropped.

    Raises:
      BadFrame: the file is damaged, or no 8-bit colour PNG.
    """
    depth, kind = png_kind(path)
    if depth != 8 or kind not in (2, 6):
        raise BadFrame(f"{path}: single-channel PNG; expected RGB" if kind in (GREY, PALETTE) else f"{path}: not 8 bit")
    return read_png(path)[..., 2::-1]  # OpenCV gives BGR and BGRA


def png_kind(path: pathlib.Path) -> tuple[int, int]:
    """Bit depth and colour type of a PNG.

    Raises:
      BadFrame: it is no PNG.
    """
    try:
        with path.open("rb") as file:
            head = file.read(26)
    except OSError as error:
        raise BadFrame(f"{path}: unreadable PNG ({error.strerror}); restore the file") from None
    if head[:8] != PNG or len(head) < 26:
        raise BadFrame(f"{path}: unreadable PNG ({path.stat().st_size} bytes); fetch the file again")
    return head[24], head[25]


def read_png(path: pathlib.Path) -> np.ndarray:
    """A PNG of 8 or 16 bits as OpenCV gives it: `[h, w]`, or `[h, w, c]` with channels in the order B, G, R, A."""
    import cv2

    raw = np.frombuffer(path.read_bytes(), np.uint8)
    mask = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED) if raw.size else None
    if mask is None:
        raise BadFrame(f"{path}: unreadable PNG ({raw.size} bytes); fetch the file again")
    return mask


def read_small(path: pathlib.Path, depth: int, kind: int) -> np.ndarray:
    """Palette indices, which OpenCV would look up, or grey values of less than 8 bits, which it would scale."""
    from PIL import Image

    try:
        values = np.asarray(Image.open(path))
    except (OSError, SyntaxError) as error:
        raise BadFrame(f"{path}: unreadable PNG ({error}); fetch the file again") from None
    if kind == PALETTE or depth == 1:
        return values.astype(np.uint8)
    return values // (255 // (2**depth - 1))  # Pillow scales grey values to 0..255
