"""COCO panoptic 2017: images, one json per split, PNGs of RGB segment ids (spec: data_sets 1)."""

import json
import pathlib

import numpy as np

from vps_jax.datasets import spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.label_files import read_rgb
from vps_jax.datasets.labels import PANOPTIC, panoptic_value
from vps_jax.types import UserError

CLASSES = class_table("coco_panoptic")
FOLDERS = {"train": "train2017", "val": "val2017"}
MOST = 255  # instances of a class that the code has room for


def splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits whose json is there."""
    return tuple(split for split, folder in FOLDERS.items() if json_of(root, folder).is_file())


def json_of(root: pathlib.Path, folder: str) -> pathlib.Path:
    """The json of a split."""
    return root / "annotations" / f"panoptic_{folder}.json"


def videos(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """One video of one frame per annotated image that is there, in the json's order."""
    source = json_of(root, FOLDERS[split])
    content = json.loads(source.read_text())
    names = {row["id"]: row["file_name"] for row in content["images"]}
    found = []
    for annotation in content["annotations"]:
        image = root / FOLDERS[split] / names[annotation["image_id"]]
        mask = root / "annotations" / f"panoptic_{FOLDERS[split]}" / annotation["file_name"]
        if image.exists():
            segments = codes_of(annotation["segments_info"], source)
            found.append(spec.VideoFiles(image.stem, (image,), (mask if mask.exists() else None,), segments))
    return found


def codes_of(segments: list[dict], source: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Segment ids in ascending order, starting with 0 for void, and the label value of each.

    Instances of a thing class count from 1 per image; one beyond the 255th of its class has instance 0. Crowd segments
    are instances like others, as in the published loader.
    """
    index = {number: c for c, number in enumerate(CLASSES.official_ids)}
    codes, seen = {0: 0}, {}
    for segment in segments:
        category = index.get(segment["category_id"])
        if category is None:
            raise UserError(f"{source}: segment {segment['id']} has category {segment['category_id']}; expected COCO's")
        instance = 0
        if CLASSES.is_thing[category]:
            seen[category] = seen.get(category, 0) + 1
            instance = seen[category] if seen[category] <= MOST else 0
        codes[segment["id"]] = panoptic_value(category, instance)
    order = sorted(codes)
    return np.array(order, np.int64), np.array([codes[i] for i in order], np.int64)


def read_label(video: spec.VideoFiles, index: int) -> spec.LabelMap:
    """Label values uint16 `[h, w]` from RGB segment ids; ids that the json does not list are void."""
    ids = read_rgb(video.masks[index]).astype(np.int64) @ (1, 256, 65536)
    order, codes = video.notes
    place = np.minimum(np.searchsorted(order, ids), len(order) - 1)
    return spec.LabelMap(np.where(order[place] == ids, codes[place], 0).astype(np.uint16))


LAYOUT = spec.Layout(
    "as downloaded", ("annotations/panoptic_train2017.json|annotations/panoptic_val2017.json",), splits, videos
)

SPEC = spec.DatasetSpec(
    name="coco_panoptic",
    title="COCO panoptic 2017",
    classes=CLASSES,
    labels=PANOPTIC,
    layouts=(LAYOUT,),
    read_label=read_label,
    metrics=("pq",),
    inference={"clip_frames": 1, "overlap_frames": 0, "short_side_px": 800, "max_side_px": 1333},
)
