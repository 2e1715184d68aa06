"""Augmentation of single frames for semantic training of the ViT-Adapter (spec: vit_adapter 6).

Random scale, random crop that no class fills alone, mirror image, photometric distortion. The crop fixes the shape.
"""

from collections.abc import Mapping

import cv2
import numpy as np

CROP_TRIES = 10
LARGEST_SHARE = 0.75  # of the labelled pixels of a crop that one class may fill
# the published pad is 0 after normalisation; this is the nearest raw value
PAD_VALUE = (124, 116, 104)


def output_size(size: tuple[int, int], settings: Mapping, short_side: int) -> tuple[int, int]:
    """The crop, whatever the frame; smaller images are padded to it."""
    return tuple(settings["crop_px"])


def augment(
    images: np.ndarray, labels: np.ndarray, instances: np.ndarray, settings: Mapping, short_side: int, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Scale, crop, mirror and distort; the same parameters for all frames.

    Args:
      images: uint8 `[t, h, w, 3]` RGB.
      labels: uint16 `[t, h, w]`, 1..124 class + 1, anything else void (`vspw` coding).
      instances: not used.
      settings: `ratio` range of the scale, `max_side` and `crop_px` at scale 1, `flip`.
      short_side: at scale 1.
      rng: source of randomness.

    Returns:
      images and labels of `crop_px` at most.
    """
    size = scaled_size(images.shape[1:3], settings["max_side"], short_side, rng.uniform(*settings["ratio"]))
    images = np.stack([cv2.resize(f, size[::-1], interpolation=cv2.INTER_LINEAR) for f in images])
    labels = np.stack([cv2.resize(f, size[::-1], interpolation=cv2.INTER_NEAREST) for f in labels])
    window = crop_window(labels, settings["crop_px"], rng)
    images, labels = images[window], labels[window]
    if rng.random() < settings["flip"]:
        images, labels = images[:, :, ::-1], labels[:, :, ::-1]
    t, h, w, _ = images.shape
    flat = np.ascontiguousarray(images).reshape(t * h, w, 3)
    return distort(flat, rng).reshape(t, h, w, 3), np.ascontiguousarray(labels)


def scaled_size(size: tuple[int, int], max_side: int, short_side: int, ratio: float) -> tuple[int, int]:
    """Height and width after both limits are multiplied by `ratio` (and cut to whole pixels)."""
    factor = min(int(max_side * ratio) / max(size), int(short_side * ratio) / min(size))
    return int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)


def crop_window(labels: np.ndarray, crop: tuple[int, int], rng) -> tuple[slice, slice, slice]:
    """Slices of a random crop; one that a single class (nearly) fills is drawn again, ten times at most."""
    for _ in range(CROP_TRIES + 1):
        top = int(rng.integers(0, max(labels.shape[1] - crop[0], 0) + 1))
        left = int(rng.integers(0, max(labels.shape[2] - crop[1], 0) + 1))
        window = np.s_[:, top : top + crop[0], left : left + crop[1]]
        counts = np.bincount(labels[window].ravel(), minlength=125)[1:125]
        if np.count_nonzero(counts) > 1 and counts.max() < LARGEST_SHARE * counts.sum():
            break
    return window


def distort(image: np.ndarray, rng) -> np.ndarray:
    """Brightness, contrast, saturation and hue, each with probability one half; uint8 `[h, w, 3]` RGB.

    Contrast comes before or after saturation and hue. Every step clips and cuts to whole levels.
    """
    levels = np.arange(256)
    contrast_first = rng.integers(2)
    image = scale_levels(image, 1.0, rng.uniform(-32, 32)) if rng.integers(2) else image
    if contrast_first and rng.integers(2):
        image = scale_levels(image, rng.uniform(0.5, 1.5), 0.0)
    if rng.integers(2):
        image = through_hsv(image, 1, np.clip(levels * rng.uniform(0.5, 1.5), 0, 255))
    if rng.integers(2):
        image = through_hsv(image, 0, (levels + rng.integers(-18, 18)) % 180)
    if not contrast_first and rng.integers(2):
        image = scale_levels(image, rng.uniform(0.5, 1.5), 0.0)
    return image


def scale_levels(image: np.ndarray, factor: float, shift: float) -> np.ndarray:
    """`image * factor + shift`, clipped and cut to uint8."""
    return cv2.LUT(image, np.clip(np.arange(256) * factor + shift, 0, 255).astype(np.uint8))


def through_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Look one channel of HSV (hue 0..179) up in a table of 256 levels, which is cut to uint8."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., channel] = cv2.LUT(np.ascontiguousarray(hsv[..., channel]), table.astype(np.uint8))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
