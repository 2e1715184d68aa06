"""Clips from a single image: every frame is another affine view of it (spec: tarvis 7.8)."""

from dataclasses import dataclass

import cv2
import numpy as np

from vps_jax.data import transforms
from vps_jax.data.sample import Sample, Size
from vps_jax.parsing import number

SCALE = (0.9, 1.1)
ROTATION = 20.0  # degrees to either side
SHEAR = 10.0  # degrees to either side, in x and in y


@dataclass(frozen=True)
class AffineViews:
    """For every frame a view of the first, a resize and a crop; what a view leaves empty is black and void.

    Attributes:
      crop_px: (height, width) of the crop; smaller images are padded to it.
      short_side, max_side: pixels after the resize.
      crop_together: all frames are cropped at the same place.
    """

    crop_px: Size = number(low=1)
    short_side: int = number(low=1)
    max_side: int = number(1333, low=1)
    crop_together: bool = False

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        size = transforms.resize_size(sample.labels.shape[1:], self.short_side, self.max_side)
        corner, frames = None, []
        for _ in range(len(sample.images)):
            seen = transforms.resize(*view(sample.images[0], sample.labels[0], rng), size)
            if corner is None or not self.crop_together:
                corner = [int(rng.integers(0, max(s - c, 0) + 1)) for s, c in zip(size, self.crop_px, strict=True)]
            rows, columns = (slice(start, start + c) for start, c in zip(corner, self.crop_px, strict=True))
            frames.append([array[:, rows, columns] for array in seen])
        images, labels = (np.concatenate(arrays) for arrays in zip(*frames, strict=True))
        return sample._replace(images=images, labels=labels)

    def output_size(self, size: Size) -> Size:
        return self.crop_px


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
