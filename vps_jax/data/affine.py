"""Clips from a single image: every frame is another affine view of it (spec: tarvis 7.8)."""

from dataclasses import dataclass

import cv2
import numpy as np

from vps_jax.data import transforms
from vps_jax.data.sample import Sample, Size
from vps_jax.parsing import number

SCALE = (0.9, 1.1)
ROTATION = 20.0  # degrees to either side
SHEAR = 10.0  # degrees to either side


@dataclass(frozen=True)
class AffineViews:
    """For every frame a view of the first, a resize and a crop; what a view leaves empty is black and void.

    Attributes:
      crop_px: (height, width) of the crop; smaller images are padded to it.
      short_sides: pixels after the resize; every frame draws one of them.
      max_side: bound of the long side.
      crop_together: the place of the crop, as a share of the room that a frame has, is that of the first frame.
    """

    crop_px: Size = number(low=1)
    short_sides: tuple[int, ...] = number(low=1)
    max_side: int = number(1333, low=1)
    crop_together: bool = False

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        place, frames = None, []
        for _ in range(len(sample.images)):
            size = transforms.resize_size(sample.labels.shape[1:], int(rng.choice(self.short_sides)), self.max_side)
            seen = transforms.resize(*view(sample.images[0], sample.labels[0], rng), size)
            if place is None or not self.crop_together:
                place = rng.random(2)
            rows, columns = (crop_slice(*each) for each in zip(size, self.crop_px, place, strict=True))
            frames.append([array[:, rows, columns] for array in seen])
        images, labels = (np.concatenate(arrays) for arrays in zip(*frames, strict=True))
        return sample._replace(images=images, labels=labels)

    def output_size(self, size: Size) -> Size:
        return self.crop_px


def crop_slice(size: int, crop: int, place: float) -> slice:
    """`crop` of `size` pixels, or all of fewer, that start at a share 0..1 of what is left over."""
    start = int(place * (max(size - crop, 0) + 1))
    return slice(start, start + crop)


def view(image: np.ndarray, label: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """One view on the same canvas: image `[1, h, w, 3]` bilinear, label `[1, h, w]` nearest."""
    height, width = label.shape
    rotation, shear = np.radians([rng.uniform(-ROTATION, ROTATION), rng.uniform(-SHEAR, SHEAR)])
    matrix = view_matrix((height, width), rng.uniform(*SCALE), rotation, shear)
    image, label = np.ascontiguousarray(image), np.ascontiguousarray(label)
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    label = cv2.warpAffine(label, matrix, (width, height), flags=cv2.INTER_NEAREST)
    return image[None], label[None]


def view_matrix(size: tuple[int, int], scale: float, rotation: float, shear: float) -> np.ndarray:
    """`[2, 3]`, old (x, y, 1) -> new (x, y): shear, turn and scale about the middle of the canvas; radians.

    One angle shears both axes, in directions that nearly make it a further rotation, as published.
    """
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    turned = rotation + shear
    turn = np.array([[np.cos(rotation), -np.sin(turned)], [np.sin(rotation), np.cos(turned)]])
    linear = scale * turn @ np.array([[np.cos(shear), 0.0], [np.sin(shear), 1.0]])
    return np.concatenate([linear, (middle - linear @ middle)[:, None]], axis=1)
