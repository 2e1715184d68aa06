"""Baseline of the demo: the class with the nearest mean colour at each pixel, connected regions as objects."""

import pathlib
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from scipy import ndimage

from vps_jax.datasets import class_table, vipseg
from vps_jax.media.result_folders import VipsegWriter
from vps_jax.media.sources import open_videos
from vps_jax.types import PanopticFrame


def class_colors(raw, split: str = "train") -> dict[int, np.ndarray]:
    """Mean RGB colour of every class, from the first frame of each video of a raw folder: class -> float64 `[3]`."""
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}
    for video in open_videos(raw, split=split):
        frame = next(video.frames())
        mask = cv2.imread(str(pathlib.Path(raw) / "panomasks" / video.video_id / f"{frame.stem}.png"), -1)
        classes = vipseg.class_of(mask)
        for c in np.unique(classes[classes >= 0]).tolist():
            here = frame.image[classes == c]
            sums[c] = sums.get(c, 0.0) + here.sum(axis=0, dtype=np.float64)
            counts[c] = counts.get(c, 0) + len(here)
    return {c: sums[c] / counts[c] for c in sums}


def label_by_color(images: np.ndarray, colors: dict[int, np.ndarray], thing_ids: Iterable[int]) -> Iterator[tuple]:
    """Classes by nearest colour, tracks by regions that are connected in space and time.

    Args:
      images: uint8 `[t, h, w, 3]`.
      colors: class -> RGB.
      thing_ids: classes whose regions become objects.

    Yields:
      categories uint8 `[h, w]` and track ids int32 `[h, w]` (0 for stuff) of every frame.
    """
    classes = np.array(sorted(colors))
    table = np.stack([colors[c] for c in classes.tolist()]).astype(np.float32)  # [k, 3]
    # half the squared distance, but for that of the pixel itself, which is the same for all classes
    nearness = images.astype(np.float32) @ table.T - (table**2).sum(-1) / 2  # [t, h, w, k]
    categories = classes[nearness.argmax(-1)].astype(np.uint8)
    tracks = np.zeros(categories.shape, np.int32)
    for c in sorted(set(thing_ids) & set(np.unique(categories).tolist())):
        regions, _ = ndimage.label(categories == c)
        tracks = np.where(regions > 0, regions + tracks.max(), tracks)
    yield from zip(categories, tracks, strict=True)


def predict(raw, source, out, *, split: str, category_table: str = "vipseg") -> None:
    """Write a VIPSeg result folder: mean colours from the train split of `raw`, videos from `split` of `source`."""
    colors = class_colors(raw)
    things = class_table(category_table).thing_ids
    writer = VipsegWriter(pathlib.Path(out), class_table(category_table))
    for video in open_videos(source, split=split):
        frames = list(video.frames())
        images = np.stack([frame.image for frame in frames])
        with writer.video(video.video_id) as result:
            for frame, (categories, tracks) in zip(frames, label_by_color(images, colors, things), strict=True):
                result.write(PanopticFrame(frame.stem, categories, tracks))
