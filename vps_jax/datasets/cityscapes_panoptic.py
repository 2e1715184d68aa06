"""Cityscapes panoptic: the 19 evaluated of 34 classes occur, a class is its label id (spec: data_sets 3)."""

import pathlib

import numpy as np

from vps_jax.datasets import json_fields, panoptic_json, spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.label_files import BadFrame, read_mask
from vps_jax.datasets.labels import MOST_INSTANCES, panoptic_code, panoptic_value
from vps_jax.types import UserError

CLASSES = class_table("cityscapes_panoptic")
EVALUATED = frozenset(CLASSES.names.index(name) for name in class_table("cityscapes_vps").names)
PER_CLASS = 1000  # instanceIds: label id * 1000 + instance; below it the label id alone
SPLITS = ("train", "val")


def raw_splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits with a folder of labels."""
    return tuple(split for split in SPLITS if any((root / "gtFine" / split).glob("*/*_gtFine_instanceIds.png")))


def raw_videos(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """One video of one frame per image, by city and name."""
    videos = []
    for city in spec.visible(root / "leftImg8bit" / split):
        for image in spec.visible(city, "_leftimg8bit.png"):
            base = image.name.removesuffix("_leftImg8bit.png")
            mask = root / "gtFine" / split / city.name / f"{base}_gtFine_instanceIds.png"
            videos.append(spec.VideoFiles(base, (image,), (mask if mask.exists() else None,)))
    return videos


def read_label(video: spec.VideoFiles, index: int) -> spec.LabelMap:
    """Labels of either form."""
    if isinstance(video.notes, panoptic_json.Segments):
        return panoptic_json.read_label(video, index)
    return of_instance_ids(read_mask(video.masks[index]), video.masks[index])


def of_instance_ids(ids: np.ndarray, path: pathlib.Path) -> spec.LabelMap:
    """Labels `[h, w]` of instance ids; classes that are not evaluated are void, a group is one more instance."""
    numbers, place = np.unique(ids, return_inverse=True)
    values, seen, groups = [], {}, 0
    for number in numbers.tolist():
        category = number // PER_CLASS if number >= PER_CLASS else number
        if category >= len(CLASSES.names):
            raise BadFrame(f"{path}: value {number}; expected a label id of 0..33, or label id * 1000 + instance")
        if category not in EVALUATED:
            values.append(0)
            continue
        instance = 0
        if CLASSES.is_thing[category]:
            seen[category] = seen.get(category, 0) + 1
            instance = seen[category] if seen[category] <= MOST_INSTANCES else 0
            groups += number < PER_CLASS
        values.append(panoptic_value(category, instance))
    labels = np.array(values, np.uint16)[place].reshape(ids.shape)
    return spec.LabelMap(labels, findings={"crowd segments": groups} if groups else {})


def converted_splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits whose official panoptic json is there."""
    return tuple(split for split in SPLITS if (root / "gtFine" / f"cityscapes_panoptic_{split}.json").is_file())


def converted_videos(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """One video of one frame per image, in the json's order.

    Raises:
      UserError: the json is of the form with train ids, or breaks a rule.
    """
    source = root / "gtFine" / f"cityscapes_panoptic_{split}.json"
    categories = json_fields.categories_of(json_fields.load_json(source), source)
    if any(json_fields.NUMBER.fits(row.get("id")) and row["id"] < min(EVALUATED) for row in categories):
        raise UserError(
            f"{source}: category ids from 0, as --use-train-id gives; expected label ids 7..33: convert again"
        )
    return [
        video._replace(name=video.name.removesuffix("_leftImg8bit"))
        for video in panoptic_json.read_images(
            source,
            CLASSES,
            lambda image, row: image_file(root, split, image["file_name"]),
            lambda row: root / "gtFine" / f"cityscapes_panoptic_{split}" / row["file_name"],
        )
    ]


def image_file(root: pathlib.Path, split: str, name: str) -> pathlib.Path:
    """The image of a name of the official json, which says `gtFine_` too much and leaves the city out."""
    return root / "leftImg8bit" / split / name.split("_")[0] / name.replace("_gtFine_", "_")


INSTANCE_IDS = spec.Layout(
    "as downloaded",
    ("leftImg8bit", "gtFine/train/*/*_gtFine_instanceIds.png|gtFine/val/*/*_gtFine_instanceIds.png"),
    raw_splits, raw_videos,
)  # fmt: skip
CONVERTED = spec.Layout(
    "official panoptic form",
    ("leftImg8bit", "gtFine/cityscapes_panoptic_train.json|gtFine/cityscapes_panoptic_val.json"),
    converted_splits, converted_videos,
)  # fmt: skip

SPEC = spec.DatasetSpec(
    name="cityscapes_panoptic",
    title="Cityscapes",
    classes=CLASSES,
    labels=panoptic_code(CLASSES),
    layouts=(INSTANCE_IDS, CONVERTED),
    read_label=read_label,
    metrics=("pq",),
)
