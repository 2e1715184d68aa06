"""Clips from a single image: every frame is another affine view of it (spec: tarvis 7.8)."""

from collections.abc import Mapping

import cv2
import numpy as np

from vps_jax.data import transforms

SCALE = (0.9, 1.1)
ROTATION = 20.0  # degrees to either side
SHEAR = 10.0  # degrees to either side, in x and in y


def output_size(size: tuple[int, int], settings: Mapping, short_side: int) -> tuple[int, int]:
    """The crop, whatever the image; smaller images are padded to it."""
    return tuple(settings["crop_px"])


def augment(
    images: np.ndarray, labels: np.ndarray, instances: np.ndarray, settings: Mapping, short_side: int, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Colour and mirror once; then for every frame a view, a resize and a crop.

    Args:
      images: uint8 `[t, h, w, 3]` RGB, t times the same image.
      labels: uint16 `[t, h, w]`.
      instances: not used.
      settings: `color`, `flip`, `max_side`, `crop_px`, `crop_together` (all frames are cropped at the same place).
      short_side: pixels after the resize.
      rng: source of randomness.

    Returns:
      images and labels of `crop_px` at most; what a view leaves empty is black and void.
    """
    image, label = images[:1], labels[:1]
    if settings["color"] is not None:
        image = transforms.jitter_color(image, transforms.Color(**settings["color"]), rng)
    if rng.random() < settings["flip"]:
        image, label = image[:, :, ::-1], label[:, :, ::-1]
    size = transforms.resize_size(image.shape[1:3], short_side, settings["max_side"])
    corner, frames = None, []
    for _ in range(len(images)):
        seen = transforms.resize(*view(image[0], label[0], rng), size)
        if corner is None or not settings["crop_together"]:
            corner = [int(rng.integers(0, max(s - c, 0) + 1)) for s, c in zip(size, settings["crop_px"], strict=True)]
        rows, columns = (slice(start, start + c) for start, c in zip(corner, settings["crop_px"], strict=True))
        frames.append([array[:, rows, columns] for array in seen])
    return tuple(np.concatenate(arrays) for arrays in zip(*frames, strict=True))


def view(image: np.ndarray, label: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """One view on the same canvas: image `[1, h, w, 3]` bilinear, label `[1, h, w]` nearest."""
    height, width = label.shape
    angles = np.radians([rng.uniform(-ROTATION, ROTATION), rng.uniform(-SHEAR, SHEAR), rng.uniform(-SHEAR, SHEAR)])
    matrix = view_matrix((height, width), rng.uniform(*SCALE), *angles)
    image, label = np.ascontiguousarray(image), np.ascontiguousarray(label)
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    label = cv2.warpAffine(label, matrix, (width, height), flags=cv2.INTER_NEAREST)
    return image[None], label[None]


def view_matrix(size: tuple[int, int], scale: float, rotation: float, shear_x: float, shear_y: float) -> np.ndarray:
    """`[2, 3]`, old (x, y, 1) -> new (x, y): shear, turn and scale about the middle of the canvas; radians."""
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    turn = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    linear = scale * turn @ np.array([[1.0, np.tan(shear_x)], [np.tan(shear_y), 1.0]])
    return np.concatenate([linear, (middle - linear @ middle)[:, None]], axis=1)
