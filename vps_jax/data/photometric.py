"""Operations on single frames for semantic training of the ViT-Adapter (spec: vit_adapter 6).

Random scale, random crop that no class fills alone, photometric distortion. The crop fixes the shape.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from vps_jax.data.sample import Sample, Size
from vps_jax.parsing import number

CROP_TRIES = 10
LARGEST_SHARE = 0.75  # of the labelled pixels of a crop that one class may fill
# the published pad is 0 after normalisation; this is the nearest raw value
PAD_COLOR = (124, 116, 104)


@dataclass(frozen=True)
class RandomScale:
    """A resize within `max_side` and `short_side`, both multiplied by a factor from `ratio`; labels as published."""

    short_side: int = number(low=1)
    max_side: int = number(2048, low=1)
    ratio: tuple[float, float] = number((0.5, 2.0), low=0)

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        size = scaled_size(sample.labels.shape[1:], self.max_side, self.short_side, rng.uniform(*self.ratio))
        images = np.stack([cv2.resize(f, size[::-1], interpolation=cv2.INTER_LINEAR) for f in sample.images])
        labels = np.stack([cv2.resize(f, size[::-1], interpolation=cv2.INTER_NEAREST) for f in sample.labels])
        return sample._replace(images=images, labels=labels)

    def output_size(self, size: Size) -> Size:
        """The largest that the ratio gives: what follows has to fix the size."""
        return scaled_size(size, self.max_side, self.short_side, self.ratio[1])


@dataclass(frozen=True)
class MixedCrop:
    """A random crop of (height, width) `crop_px` that no class fills alone; smaller images are padded to it."""

    crop_px: Size = number(low=1)

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        window = crop_window(sample.classes[sample.labels], self.crop_px, rng)
        return sample._replace(images=sample.images[window], labels=sample.labels[window])

    def output_size(self, size: Size) -> Size:
        return self.crop_px


@dataclass(frozen=True)
class Distort:
    """Brightness, contrast, saturation and hue, see `distort`."""

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        t, h, w, _ = sample.images.shape
        flat = np.ascontiguousarray(sample.images).reshape(t * h, w, 3)
        return sample._replace(images=distort(flat, rng).reshape(t, h, w, 3))

    def output_size(self, size: Size) -> Size:
        return size


def scaled_size(size: tuple[int, int], max_side: int, short_side: int, ratio: float) -> tuple[int, int]:
    """Height and width after both limits are multiplied by `ratio` (and cut to whole pixels)."""
    factor = min(int(max_side * ratio) / max(size), int(short_side * ratio) / min(size))
    return int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)


def crop_window(classes: np.ndarray, crop: Size, rng) -> tuple[slice, slice, slice]:
    """Slices of a random crop; one that a single class (nearly) fills is drawn again, ten times at most.

    Args:
      classes: int `[t, h, w]`, class of every pixel, -1 for void, which does not count.
      crop: (height, width).
      rng: source of randomness.
    """
    for _ in range(CROP_TRIES + 1):
        top = int(rng.integers(0, max(classes.shape[1] - crop[0], 0) + 1))
        left = int(rng.integers(0, max(classes.shape[2] - crop[1], 0) + 1))
        window = np.s_[:, top : top + crop[0], left : left + crop[1]]
        counts = np.bincount(1 + classes[window].ravel())[1:]
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
