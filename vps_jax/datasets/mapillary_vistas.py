"""Mapillary Vistas with the 65 classes of version 1.2 (spec: data_sets 4)."""

import functools
import pathlib

from vps_jax.datasets import panoptic_json, spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.labels import panoptic_code

CLASSES = class_table("mapillary_vistas")
FOLDERS = {"train": ("training", "train"), "val": ("validation", "val")}
# folder of the labels below that of the split: the archive with both versions, and the older one
LABELS = {"archive of versions 1.2 and 2.0": "v1.2/panoptic", "archive of version 1.1 or 1.2": "panoptic"}
JSON = "panoptic_2018.json"  # 2020's is version 2.0, another list of classes


def folder_of(root: pathlib.Path, split: str, labels: str) -> pathlib.Path | None:
    """The folder of a split, or None."""
    return next((root / name for name in FOLDERS[split] if (root / name / labels / JSON).is_file()), None)


def splits(root: pathlib.Path, labels: str) -> tuple[str, ...]:
    """Splits whose json is there."""
    return tuple(split for split in FOLDERS if folder_of(root, split, labels))


def videos(root: pathlib.Path, split: str, labels: str) -> list[spec.VideoFiles]:
    """One video of one frame per image, in the json's order."""
    folder = folder_of(root, split, labels)
    return panoptic_json.read_images(
        folder / labels / JSON,
        CLASSES,
        lambda image, row: (folder / "images" / image["file_name"]).with_suffix(".jpg"),
        lambda row: folder / labels / row["file_name"],
    )


def layout(name: str, labels: str) -> spec.Layout:
    """One of the two archives."""
    return spec.Layout(
        name,
        needs=("|".join(f"{folder}/{labels}/{JSON}" for names in FOLDERS.values() for folder in names),),
        splits=functools.partial(splits, labels=labels),
        videos=functools.partial(videos, labels=labels),
    )


SPEC = spec.DatasetSpec(
    name="mapillary_vistas",
    title="Mapillary Vistas",
    classes=CLASSES,
    labels=panoptic_code(CLASSES),
    layouts=tuple(layout(name, labels) for name, labels in LABELS.items()),
    read_label=panoptic_json.read_label,
    shrink=(800, 1333),
    metrics=("pq",),
)
