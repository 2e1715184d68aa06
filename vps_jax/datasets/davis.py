"""DAVIS 2017, also the unsupervised release: objects without classes in palette masks (spec: data_sets 11)."""

import functools
import pathlib

import numpy as np

from vps_jax.datasets import spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.label_files import BadFrame, read_mask
from vps_jax.datasets.labels import panoptic_code, panoptic_value
from vps_jax.files import read_lines
from vps_jax.types import UserError

CLASSES = class_table("davis")
LISTS = "ImageSets/2017"
VOID = 255


def splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits whose list is there."""
    return tuple(split for split in ("train", "val") if (root / LISTS / f"{split}.txt").is_file())


def videos(root: pathlib.Path, split: str, size: str, masks: str) -> list[spec.VideoFiles]:
    """Videos of the split's list.

    Raises:
      UserError: the list holds pairs of paths, as those of DAVIS 2016.
    """
    names = read_lines(root / LISTS / f"{split}.txt")
    for name in names:
        if "/" in name or " " in name:
            raise UserError(
                f"{root / LISTS / split}.txt: {name!r}; expected one video name per line (DAVIS 2017's list)"
            )
    return [spec.paired(n, root / "JPEGImages" / size / n, root / masks / size / n) for n in names]


def shows_object(path: pathlib.Path) -> bool:
    """Whether a mask has an object number."""
    mask = read_mask(path)
    return bool(((mask > 0) & (mask < VOID)).any())


def read_label(video: spec.VideoFiles, index: int) -> spec.LabelMap:
    """256 + object, 0 for background and void."""
    path = video.masks[index]
    mask = read_mask(path).astype(np.int64)
    objects = (mask > 0) & (mask < VOID)
    if not objects.any() and (mask == VOID).any() and not any(map(shows_object, filter(None, video.masks))):
        raise BadFrame(f"{path}: only values 0 and 255, as masks of DAVIS 2016; expected object numbers from 1")
    return spec.LabelMap(np.where(objects, panoptic_value(0, 0) + mask, 0).astype(np.uint16))


def layout(size: str, masks: str) -> spec.Layout:
    """One of the sizes and releases."""
    return spec.Layout(
        f"{masks} at {size}",
        needs=(f"{LISTS}/train.txt|{LISTS}/val.txt", f"JPEGImages/{size}", f"{masks}/{size}"),
        splits=splits,
        videos=functools.partial(videos, size=size, masks=masks),
    )


SPEC = spec.DatasetSpec(
    name="davis",
    title="DAVIS 2017",
    classes=CLASSES,
    labels=panoptic_code(CLASSES),
    layouts=tuple(
        layout(size, masks)
        for size in ("480p", "Full-Resolution")
        for masks in ("Annotations", "Annotations_unsupervised")
    ),
    read_label=read_label,
    inference={"task": "vos", "clip_frames": 12, "overlap_frames": 6, "short_side_px": None},  # native
    fps=24.0,
)
