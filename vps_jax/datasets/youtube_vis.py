"""YouTube-VIS 2021 and 2019: 40 classes, every fifth frame labelled, no semantic truth (spec: data_sets 5)."""

import functools
import pathlib

from vps_jax.datasets import instance_json, spec
from vps_jax.datasets.classes import ClassTable, class_table
from vps_jax.datasets.json_fields import load_json
from vps_jax.datasets.labels import panoptic_code

FOLDERS = {"train": "train", "val": "valid", "test": "test"}
JSONS = {"as released": "{split}/instances.json", "one json per split": "{split}.json"}
IMAGES = ("{split}/JPEGImages", "{split}_all_frames/JPEGImages")


def splits(root: pathlib.Path, json: str) -> tuple[str, ...]:
    """Splits whose json is there."""
    return tuple(split for split, name in FOLDERS.items() if (root / json.format(split=name)).is_file())


def videos(root: pathlib.Path, split: str, json: str, classes: ClassTable) -> list[spec.VideoFiles]:
    """The videos of a split in the json's order."""
    folder = image_folder(root, split)
    return instance_json.read_videos(root / json.format(split=FOLDERS[split]), classes, lambda file: folder / file)


def image_folder(root: pathlib.Path, split: str) -> pathlib.Path:
    """The folder of the videos of a split."""
    places = [root / place.format(split=FOLDERS[split]) for place in IMAGES]
    return next((place for place in places if place.is_dir()), places[0])


def strays(root: pathlib.Path, split: str, json: str) -> list[str]:
    """A line for the images of a split that its json lists and that are not there, or none."""
    source, folder = root / json.format(split=FOLDERS[split]), image_folder(root, split)
    return instance_json.missing_images(source, lambda file: folder / file, load_json(source)["videos"])


def specification(name: str, title: str, classes: ClassTable) -> spec.DatasetSpec:
    """One of the editions."""
    layouts = tuple(
        spec.Layout(
            words,
            ("|".join(json.format(split=split) for split in FOLDERS.values()),)
            + ("|".join(place.format(split=split) for place in IMAGES for split in FOLDERS.values()),),
            functools.partial(splits, json=json),
            functools.partial(videos, json=json, classes=classes),
            truth=json,
            strays=functools.partial(strays, json=json),
        )
        for words, json in JSONS.items()
    )
    return spec.DatasetSpec(
        name=name,
        title=title,
        classes=classes,
        labels=panoptic_code(classes),
        layouts=layouts,
        read_label=instance_json.read_label,
        truth="vps_jax.evaluation.ytvis_folders",
        writer="vps_jax.media.mask_lists:ytvis_writer",
        metrics=("ap",),
        inference={**instance_json.INFERENCE, "short_side_px": 448},
    )


SPEC = specification("youtube_vis_2021", "YouTube-VIS 2021", class_table("youtube_vis"))
SPEC_2019 = specification("youtube_vis_2019", "YouTube-VIS 2019", class_table("youtube_vis_2019"))
