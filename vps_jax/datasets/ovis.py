"""OVIS: occluded instances of 25 classes in long videos, no semantic truth (spec: data_sets 6)."""

import functools
import pathlib

from vps_jax.datasets import instance_json, spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.json_fields import load_json
from vps_jax.datasets.labels import panoptic_code

CLASSES = class_table("ovis")
FOLDERS = {"train": "train", "val": "valid", "test": "test"}
JSONS = {"jsons at the root": "annotations_{split}.json", "jsons in a folder": "annotations/annotations_{split}.json"}
IMAGES = ("{split}/JPEGImages", "{split}_images", "{split}")


def splits(root: pathlib.Path, json: str) -> tuple[str, ...]:
    """Splits whose json is there."""
    return tuple(split for split, name in FOLDERS.items() if (root / json.format(split=name)).is_file())


def videos(root: pathlib.Path, split: str, json: str) -> list[spec.VideoFiles]:
    """The videos of a split in the json's order."""
    folder = image_folder(root, split)
    return instance_json.read_videos(root / json.format(split=FOLDERS[split]), CLASSES, lambda file: folder / file)


def image_folder(root: pathlib.Path, split: str) -> pathlib.Path:
    """The folder of the videos of a split."""
    places = [root / place.format(split=FOLDERS[split]) for place in IMAGES]
    return next((place for place in places if place.is_dir()), places[-1])


def strays(root: pathlib.Path, split: str, json: str) -> list[str]:
    """A line for the images of a split that its json lists and that are not there, or none."""
    source, folder = root / json.format(split=FOLDERS[split]), image_folder(root, split)
    return instance_json.missing_images(source, lambda file: folder / file, load_json(source)["videos"])


def layout(name: str, json: str) -> spec.Layout:
    """One of the places of the jsons."""
    return spec.Layout(
        name,
        ("|".join(json.format(split=split) for split in FOLDERS.values()),),
        functools.partial(splits, json=json),
        functools.partial(videos, json=json),
        truth=json,
        strays=functools.partial(strays, json=json),
    )


SPEC = spec.DatasetSpec(
    name="ovis",
    title="OVIS",
    classes=CLASSES,
    labels=panoptic_code(CLASSES),
    layouts=tuple(layout(name, json) for name, json in JSONS.items()),
    read_label=instance_json.read_label,
    truth="vps_jax.evaluation.ytvis_folders",
    writer="vps_jax.media.mask_lists:ytvis_writer",
    metrics=("ap",),
    inference={**instance_json.INFERENCE, "short_side_px": 576, "max_instances": 20},
    fps=5.0,
)
