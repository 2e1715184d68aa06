"""DAVIS 2017: objects without classes in palette masks (spec: data_sets 11)."""

import pathlib

import numpy as np

from vps_jax.datasets import spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.label_files import read_mask
from vps_jax.datasets.labels import PANOPTIC, panoptic_value
from vps_jax.files import read_lines

LISTS = pathlib.PurePath("ImageSets", "2017")
VOID = 255


def splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits whose list is there."""
    return tuple(split for split in ("train", "val") if (root / LISTS / f"{split}.txt").is_file())


def videos(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """Videos of the split's list, at 480p."""
    names = read_lines(root / LISTS / f"{split}.txt")
    return [spec.paired(n, root / "JPEGImages" / "480p" / n, root / "Annotations" / "480p" / n) for n in names]


def read_label(video: spec.VideoFiles, index: int) -> spec.LabelMap:
    """256 + object uint16 `[h, w]`; 0 for background and void."""
    mask = read_mask(video.masks[index]).astype(np.int64)
    return spec.LabelMap(np.where((mask > 0) & (mask < VOID), panoptic_value(0, 0) + mask, 0).astype(np.uint16))


LAYOUT = spec.Layout("480p", ("ImageSets/2017/train.txt|ImageSets/2017/val.txt", "JPEGImages/480p"), splits, videos)

SPEC = spec.DatasetSpec(
    name="davis",
    title="DAVIS 2017",
    classes=class_table("davis"),
    labels=PANOPTIC,
    layouts=(LAYOUT,),
    read_label=read_label,
    inference={"task": "vos", "clip_frames": 12, "overlap_frames": 6, "short_side_px": 480, "max_side_px": 1333},
    fps=24.0,
)
