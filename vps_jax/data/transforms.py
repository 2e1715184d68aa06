"""Operations on the frames of a video: mirror image, crop, colour, resize, padding (spec: tarvis 7.6)."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from vps_jax.config import Color
from vps_jax.data.sample import PAD_LEVEL, Sample, Size, looked_up
from vps_jax.parsing import choice, number

CROP_TRIES = 10
CROP_COVERAGE = 0.25  # share of the pixels that show an instance at any time which an accepted crop holds

# (to, back, channel) of the spaces whose lightness the brightness term shifts
LIGHTNESS = (
    (cv2.COLOR_RGB2YCrCb, cv2.COLOR_YCrCb2RGB, 0),
    (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB, 2),
    (cv2.COLOR_RGB2HLS, cv2.COLOR_HLS2RGB, 1),
    (cv2.COLOR_RGB2LAB, cv2.COLOR_LAB2RGB, 0),
    (cv2.COLOR_RGB2LUV, cv2.COLOR_LUV2RGB, 0),
    (cv2.COLOR_RGB2YUV, cv2.COLOR_YUV2RGB, 0),
)


@dataclass(frozen=True)
class Flip:
    """The mirror image, with probability `flip`."""

    flip: float = number(0.5, low=0, high=1)

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.flip:
            return sample
        return sample._replace(images=sample.images[:, :, ::-1], labels=sample.labels[:, :, ::-1])

    def output_size(self, size: Size) -> Size:
        return size


@dataclass(frozen=True)
class Crop:
    """A crop that touches the instances, see `crop_corner`; the same for all frames.

    Attributes:
      crop: (height, width) factors; None leaves the clip whole.
      crop_rule: `containing` asks for a quarter of the pixels that show an instance, `preserving` for all.
      reference_only: look at the instances of the first frame alone.
    """

    crop: tuple[float, float] | None = number(None, low=0, high=1)
    crop_rule: str = choice("containing", "preserving")
    reference_only: bool = False

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self.crop is None:
            return sample
        height, width = self.output_size(sample.labels.shape[1:])
        labels = contiguous(sample.labels)
        seen = looked_up(sample.wanted, labels[: 1 if self.reference_only else None])
        top, left = crop_corner(seen, (height, width), rng, whole=self.crop_rule == "preserving")
        window = np.s_[:, top : top + height, left : left + width]
        return sample._replace(images=sample.images[window], labels=labels[window])

    def output_size(self, size: Size) -> Size:
        return crop_size(size, self.crop)


@dataclass(frozen=True)
class JitterColor:
    """Hue, saturation, contrast and lightness, see `jitter_color`; None for none."""

    color: Color | None = Color()

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self.color is None:
            return sample
        images = sample.images
        if images.strides[0] == 0:  # one image seen several times
            return sample._replace(images=np.broadcast_to(jitter_color(images[:1], self.color, rng), images.shape))
        return sample._replace(images=jitter_color(images, self.color, rng))

    def output_size(self, size: Size) -> Size:
        return size


@dataclass(frozen=True)
class Resize:
    """The short side becomes `short_side`, less if the long side would exceed `max_side`."""

    short_side: int = number(low=1)
    max_side: int = number(1333, low=1)

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        images, labels = contiguous(sample.images), contiguous(sample.labels)
        images, labels = resize(images, labels, self.output_size(labels.shape[1:]))
        return sample._replace(images=images, labels=labels)

    def output_size(self, size: Size) -> Size:
        return resize_size(size, self.short_side, self.max_side)


@dataclass(frozen=True)
class PadColor:
    """RGB levels of the pixels by which smaller clips are padded."""

    color: tuple[int, int, int] = number((PAD_LEVEL,) * 3, low=0, high=255)

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return sample._replace(pad=self.color)

    def output_size(self, size: Size) -> Size:
        return size


def crop_size(size: tuple[int, int], factors: tuple[float, float] | None) -> tuple[int, int]:
    """Height and width after the crop, round(factor * side)."""
    if factors is None:
        return size
    return max(1, round(factors[0] * size[0])), max(1, round(factors[1] * size[1]))


def resize_size(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """Height and width after the short side becomes `short_side`, less if the long side would exceed `max_side`."""
    scale = min(short_side / min(size), max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Both sides rounded up to the multiple."""
    return math.ceil(size[0] / multiple) * multiple, math.ceil(size[1] / multiple) * multiple


def crop_corner(
    instances: np.ndarray, size: tuple[int, int], rng: np.random.Generator, *, whole: bool = False
) -> tuple[int, int]:
    """Top left corner of a crop that touches the instances.

    Up to ten uniform positions whose window touches the bounding box of all instances (over instances and frames) are
    tried; the first that holds a quarter of the pixels that show an instance in any frame wins. When none does, the
    best of them is taken, where the reference leaves the clip uncropped: the shape of a batch must not depend on
    pixels. A crop that is to hold all instances is drawn from the positions that do, if there are any.

    Args:
      instances: bool `[t, h, w]`.
      size: crop height and width.
      rng: source of randomness.
      whole: ask for all pixels instead of a quarter ("preserving").

    Returns:
      `(top, left)`.
    """
    height, width = instances.shape[1:]
    seen = instances.any(axis=0)  # [t, h, w] -> [h, w]
    total = np.count_nonzero(seen)
    if not total:
        return int(rng.integers(0, height - size[0] + 1)), int(rng.integers(0, width - size[1] + 1))
    boxes = [np.flatnonzero(seen.any(axis=axis))[[0, -1]] for axis in (1, 0)]  # first and last row, and column
    sides = list(zip(boxes, size, (height, width), strict=True))
    if whole and all(high - low < cut for (low, high), cut, _ in sides):
        return tuple(holding(low, high, cut, limit, rng) for (low, high), cut, limit in sides)
    wanted = total if whole else max(1, int(CROP_COVERAGE * total))
    best, corner = -1, (0, 0)
    for _ in range(CROP_TRIES):
        top, left = (touching(low, high, cut, limit, rng) for (low, high), cut, limit in sides)
        inside = np.count_nonzero(seen[top : top + size[0], left : left + size[1]])
        if inside > best:
            best, corner = inside, (top, left)
        if inside >= wanted:
            break
    return corner


def holding(low: int, high: int, size: int, limit: int, rng: np.random.Generator) -> int:
    """A uniform start in 0..limit-size of a stretch that holds all of low..high."""
    return int(rng.integers(max(0, int(high) - size + 1), min(limit - size, int(low)) + 1))


def touching(low: int, high: int, size: int, limit: int, rng: np.random.Generator) -> int:
    """A uniform start in 0..limit-size of a stretch that shares a cell with low..high."""
    return int(rng.integers(max(0, int(low) - size + 1), min(limit - size, int(high)) + 1))


def contiguous(frames: np.ndarray) -> np.ndarray:
    """Frames `[t, h, w, ...]` without gaps in memory; cv2 makes a mirror image many times faster than numpy does."""
    if frames.shape[2] > 1 and frames.strides[2] < 0:
        return np.stack([cv2.flip(frame[:, ::-1], 1) for frame in frames])
    return np.ascontiguousarray(frames)


def resize(images: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Images `[t, h, w, 3]` bilinear on uint8, labels `[t, h, w]` nearest at pixel centres, both to `size`."""
    if images.shape[1:3] == size:
        return images, labels
    to = size[::-1]
    images = np.stack([cv2.resize(f, to, interpolation=cv2.INTER_LINEAR) for f in images])
    labels = np.stack([cv2.resize(f, to, interpolation=cv2.INTER_NEAREST_EXACT) for f in labels])
    return images, labels


def pad(
    images: np.ndarray, labels: np.ndarray, size: tuple[int, int], *, value=PAD_LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Extend right and bottom to `size`, images with `value` (a level or an RGB triple), labels with void."""
    t, h, w, _ = images.shape
    padded = np.empty((t, *size, 3), np.uint8)
    padded[:] = value
    padded[:, :h, :w] = images
    return padded, np.pad(labels, ((0, 0), (0, size[0] - h), (0, size[1] - w)))


def jitter_color(images: np.ndarray, color: Color, rng: np.random.Generator) -> np.ndarray:
    """Shift hue and saturation, scale contrast, shift lightness in a random colour space; uint8 `[t, h, w, 3]` RGB.

    A shift of nothing is left out, because the way through an 8-bit colour space and back costs a little.
    """
    t, h, w, _ = images.shape
    flat = contiguous(images).reshape(t * h, w, 3)  # cv2 works on one tall image
    levels = np.arange(256)
    hue = int(rng.integers(-color.hue, color.hue + 1) / 255 * 180)
    saturation = int(rng.integers(-color.saturation, color.saturation + 1))
    if hue or saturation:
        tables = (levels + hue) % 180, np.clip(levels + saturation, 0, 255), levels
        table = np.stack(tables, axis=-1).astype(np.uint8)[None]
        flat = cv2.cvtColor(cv2.LUT(cv2.cvtColor(flat, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)
    factor = rng.uniform(*color.contrast)
    flat = cv2.LUT(flat, np.clip(np.rint(127 + factor * (levels - 127)), 0, 255).astype(np.uint8))
    there, back, channel = LIGHTNESS[rng.integers(len(LIGHTNESS))]
    shift = int(rng.integers(-color.brightness, color.brightness + 1))
    if shift:
        by = np.eye(4)[channel] * abs(shift)
        move = cv2.add if shift > 0 else cv2.subtract  # both end at 0 and 255
        flat = cv2.cvtColor(move(cv2.cvtColor(flat, there), by), back)
    return flat.reshape(t, h, w, 3)
