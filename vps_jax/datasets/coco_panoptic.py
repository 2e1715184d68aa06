"""COCO panoptic 2017: images, one json per split, PNGs of RGB segment ids (spec: data_sets 1)."""

import functools
import pathlib

from vps_jax.datasets import panoptic_json, spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.labels import panoptic_code

CLASSES = class_table("coco_panoptic")
FOLDERS = {"train": "train2017", "val": "val2017"}
# the annotation archive as it unpacks, and Mask2Former's way of putting the PNGs beside the images
JSON = "annotations/panoptic_{}.json"
MASKS = {"as downloaded": "annotations/panoptic_{}", "PNGs beside the images": "panoptic_{}"}


def splits(root: pathlib.Path, masks: str) -> tuple[str, ...]:
    """Splits whose json and PNG folder are there."""
    return tuple(s for s, name in FOLDERS.items() if all((root / p.format(name)).exists() for p in (JSON, masks)))


def videos(root: pathlib.Path, split: str, masks: str) -> list[spec.VideoFiles]:
    """One video of one frame per annotated image, in the json's order."""
    name = FOLDERS[split]
    return panoptic_json.read_images(
        root / JSON.format(name),
        CLASSES,
        lambda image, row: root / name / image["file_name"],
        lambda row: root / masks.format(name) / row["file_name"],
    )


def layout(name: str, masks: str) -> spec.Layout:
    """One of the two places of the PNG folders."""
    return spec.Layout(
        name,
        needs=("|".join(JSON.format(f) for f in FOLDERS.values()), "|".join(masks.format(f) for f in FOLDERS.values())),
        splits=functools.partial(splits, masks=masks),
        videos=functools.partial(videos, masks=masks),
    )


SPEC = spec.DatasetSpec(
    name="coco_panoptic",
    title="COCO panoptic 2017",
    classes=CLASSES,
    labels=panoptic_code(CLASSES),
    layouts=tuple(layout(name, masks) for name, masks in MASKS.items()),
    read_label=panoptic_json.read_label,
    metrics=("pq",),
)
