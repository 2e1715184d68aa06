"""ADE20K panoptic: 150 classes, 100 of them things (spec: data_sets 2)."""

import pathlib

import numpy as np

from vps_jax.datasets import panoptic_json, spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.label_files import BadFrame, read_mask, read_rgb
from vps_jax.datasets.labels import MOST_INSTANCES, panoptic_code, panoptic_value

CLASSES = class_table("ade20k_panoptic")
FOLDERS = {"train": "training", "val": "validation"}
OBJECT_CLASSES = np.array([-1, *CLASSES.thing_ids])  # instance class 1..100 -> class: the things in their order


def raw_splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits with semantic maps and instance maps."""
    parts = ("annotations", "annotations_instance")
    return tuple(s for s, name in FOLDERS.items() if all((root / part / name).is_dir() for part in parts))


def raw_videos(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """One video of one frame per image, by name; `notes` is the instance map."""
    name, videos = FOLDERS[split], []
    for image in spec.frame_files(root / "images" / name):
        masks = [root / part / name / f"{image.stem}.png" for part in ("annotations", "annotations_instance")]
        whole = all(mask.exists() for mask in masks)
        videos.append(spec.VideoFiles(image.stem, (image,), (masks[0] if whole else None,), masks[1]))
    return videos


def read_label(video: spec.VideoFiles, index: int) -> spec.LabelMap:
    """Labels of either form."""
    if isinstance(video.notes, panoptic_json.Segments):
        return panoptic_json.read_label(video, index)
    return of_maps(read_mask(video.masks[index]), read_rgb(video.notes), video.masks[index])


def of_maps(semantic: np.ndarray, objects: np.ndarray, path: pathlib.Path) -> spec.LabelMap:
    """Stuff of the semantic map, over it every instance; thing pixels without an instance are void.

    Args:
      semantic: `[h, w]`, class + 1, 0 for other.
      objects: `[h, w, 3]`, instance class 1..100 in R, number in the image in G, 0 for no instance.
      path: for messages.
    """
    if semantic.shape != objects.shape[:2]:
        size = f"{objects.shape[1]}x{objects.shape[0]}"
        raise BadFrame(f"{path}: its instance map is {size}, expected {semantic.shape[1]}x{semantic.shape[0]}")
    if semantic.max() > len(CLASSES.names):
        raise BadFrame(f"{path}: value {semantic.max()}; expected 0 (other) or class + 1, 1..{len(CLASSES.names)}")
    stuff = np.array([0, *(0 if thing else panoptic_value(c, 0) for c, thing in enumerate(CLASSES.is_thing))])
    values = stuff[semantic]
    numbers = objects[..., 0].astype(np.int32) * 256 + objects[..., 1]
    seen: dict[int, int] = {}
    for number in np.unique(numbers[objects[..., 1] > 0]).tolist():
        if not 0 < number // 256 < len(OBJECT_CLASSES):
            raise BadFrame(f"{path}: its instance map has class {number // 256}; expected 1..{len(OBJECT_CLASSES) - 1}")
        category = int(OBJECT_CLASSES[number // 256])
        seen[category] = seen.get(category, 0) + 1
        instance = seen[category] if seen[category] <= MOST_INSTANCES else 0
        values[numbers == number] = panoptic_value(category, instance)
    is_thing = np.array([False, *CLASSES.is_thing])
    lost = int((is_thing[semantic] & (values == 0)).sum())
    findings = {"thing pixels without an instance, void": lost} if lost else {}
    return spec.LabelMap(values.astype(np.uint16), findings=findings)


def converted_splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits whose json of Mask2Former's conversion is there."""
    return tuple(s for s in FOLDERS if (root / f"ade20k_panoptic_{s}.json").is_file())


def converted_videos(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """One video of one frame per image, in the json's order."""
    return panoptic_json.read_images(
        root / f"ade20k_panoptic_{split}.json",
        CLASSES,
        lambda image, row: root / "images" / FOLDERS[split] / image["file_name"],
        lambda row: root / f"ade20k_panoptic_{split}" / row["file_name"],
    )


RAW = spec.Layout(
    "as downloaded", ("images", "annotations", "annotations_instance"), raw_splits, raw_videos
)  # fmt: skip
CONVERTED = spec.Layout(
    "converted by Mask2Former", ("images", "ade20k_panoptic_train.json|ade20k_panoptic_val.json"),
    converted_splits, converted_videos,
)  # fmt: skip

SPEC = spec.DatasetSpec(
    name="ade20k_panoptic",
    title="ADE20K panoptic",
    classes=CLASSES,
    labels=panoptic_code(CLASSES),
    layouts=(RAW, CONVERTED),
    read_label=read_label,
    metrics=("pq",),
)
