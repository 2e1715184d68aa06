"""Label PNGs, decoded with every way in which a file can be wrong told apart."""

import pathlib

import cv2
import numpy as np

from vps_jax.types import UserError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KINDS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


def read_png(path: pathlib.Path, *, kind: str) -> np.ndarray:
    """Decode an 8-bit PNG of one kind.

    Args:
      path: the file.
      kind: `RGB` or `grey`.

    Returns:
      uint8 `[h, w, 3]` in OpenCV's order B, G, R, or `[h, w]`.

    Raises:
      UserError: no such file, not a PNG, another kind of PNG, or cut off.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}; expected an 8-bit {kind} PNG") from None
    head = data[:33].tobytes()
    if len(head) < 33 or not head.startswith(_SIGNATURE):
        raise UserError(f"{path}: not a PNG file; expected an 8-bit {kind} PNG")
    depth, found = head[24], _KINDS.get(head[25], "unknown")
    if (depth, found) != (8, kind):
        raise UserError(f"{path}: a {depth}-bit {found} PNG; expected an 8-bit {kind} PNG")
    whole = b"IEND" in data[-64:].tobytes()
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if whole else None  # unchanged: no rotation, no conversion
    if image is None:
        raise UserError(f"{path}: the PNG is cut off or broken; write it again")
    return image
