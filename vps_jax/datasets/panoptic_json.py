"""The COCO panoptic form: one json per split, and a PNG of RGB segment ids per image (spec: data_sets 1).

Everything is looked at before it is used: a message names the file, the entry and the value.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.datasets.json_fields import (
    FILE,
    ID,
    LIST,
    PIXELS,
    by_id,
    categories_of,
    checked,
    load_json,
    rows_of,
    shown,
)
from vps_jax.datasets.label_files import BadFrame, read_rgb
from vps_jax.datasets.labels import MOST_INSTANCES, panoptic_value
from vps_jax.datasets.spec import LabelMap, VideoFiles
from vps_jax.types import UserError

IMAGE = {"id": ID, "file_name": FILE}
SIZE = {"height": PIXELS, "width": PIXELS}
ANNOTATION = {"image_id": ID, "file_name": FILE, "segments_info": LIST}


class Segments(NamedTuple):
    """Segments of one image.

    Attributes:
      ids: segment ids in ascending order, starting with 0 for void.
      values: label value of each.
      size: (height, width) that the json says; None: it does not.
      findings: counts for the report.
    """

    ids: tuple[int, ...]
    values: tuple[int, ...]
    size: tuple[int, int] | None
    findings: tuple[tuple[str, int], ...]


def read_images(
    path: pathlib.Path,
    classes: ClassTable,
    image_of: Callable[[dict, dict], pathlib.Path],
    mask_of: Callable[[dict], pathlib.Path],
) -> list[VideoFiles]:
    """One video of one frame per annotated image, in the json's order; an image that is missing has no frame.

    Args:
      path: the json.
      classes: its categories are matched by the official ids.
      image_of: (image row, annotation) -> image file.
      mask_of: annotation -> PNG file.

    Raises:
      UserError: the json breaks a rule of the form.
    """
    content = load_json(path)
    images = by_id(rows_of(content, "images", IMAGE, path, may=SIZE), "images", path)
    check_categories(content, classes, path)
    videos, seen = [], set()
    for i, row in enumerate(rows_of(content, "annotations", ANNOTATION, path)):
        if row["image_id"] not in images:
            raise UserError(f"{path}: annotations[{i}] has image_id {row['image_id']!r}, which no image has")
        if row["image_id"] in seen:
            raise UserError(f"{path}: image {row['image_id']!r} is annotated twice; expected one entry per image")
        seen.add(row["image_id"])
        entry = images[row["image_id"]]
        image, mask = image_of(entry, row), mask_of(row)
        size = (entry["height"], entry["width"]) if {"height", "width"} <= entry.keys() else None
        segments = read_segments(row["segments_info"], classes, size, f"{path}: image {row['image_id']!r}")
        if image.exists():
            videos.append(VideoFiles(image.stem, (image,), (mask if mask.exists() else None,), segments))
        else:
            videos.append(VideoFiles(image.stem, (), ()))
    return videos


def check_categories(content: Mapping, classes: ClassTable, path: pathlib.Path) -> None:
    """Raises UserError when most categories of the json are not in the class table; unused ones do no harm."""
    known = set(classes.official_ids)
    ids = [row.get("id") for row in categories_of(content, path)]
    foreign = [number for number in ids if number not in known]
    if 2 * len(foreign) > len(ids):
        raise UserError(
            f"{path}: category {foreign[0]!r} is none of the {len(known)} official ids; is it another list?"
        )


def read_segments(rows: Any, classes: ClassTable, size: tuple[int, int] | None, where: str) -> Segments:
    """Label values of the segments of one image.

    Instances of a thing class count from 1 per image in the json's order; one beyond the 255th of its class has
    instance 0. Crowd segments are instances like others, as in the published loader.

    Raises:
      UserError: a segment lacks a key, has an id twice, or a category that is none.
    """
    index = {number: c for c, number in enumerate(classes.official_ids)}
    values, seen, beyond, crowd = {0: 0}, {}, 0, 0
    for row in checked(rows, LIST, f"{where}: segments_info"):
        if not isinstance(row, dict) or not {"id", "category_id"} <= row.keys():
            raise UserError(f"{where}: segment {row!r} lacks id or category_id")
        number = row["id"]
        category = index.get(checked(row["category_id"], ID, f"{where}: category_id of segment {shown(number)}"))
        if type(number) is not int or not 0 < number < 1 << 24:
            raise UserError(f"{where}: segment id {shown(number)}; expected R + 256 G + 65536 B, 1..16777215")
        if number in values:
            raise UserError(f"{where}: segment id {number} stands in segments_info twice; expected one each")
        if category is None:
            raise UserError(f"{where}: segment {number} has category {row['category_id']!r}, which is no official id")
        instance = 0
        if classes.is_thing[category]:
            seen[category] = seen.get(category, 0) + 1
            instance = seen[category] if seen[category] <= MOST_INSTANCES else 0
            beyond += not instance
        crowd += bool(row.get("iscrowd"))
        values[number] = panoptic_value(category, instance)
    ids = tuple(sorted(values))
    findings = (("crowd segments", crowd), ("objects beyond 255 of their class", beyond))
    return Segments(ids, tuple(values[i] for i in ids), size, tuple(f for f in findings if f[1]))


def read_label(video: VideoFiles, index: int) -> LabelMap:
    """Labels from RGB segment ids; ids that the json does not list are void."""
    segments: Segments = video.notes
    ids = read_rgb(video.masks[index]).astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    if segments.size is not None and ids.shape != tuple(segments.size):
        size = f"{ids.shape[1]}x{ids.shape[0]}"
        said = f"{segments.size[1]}x{segments.size[0]}"
        raise BadFrame(f"{video.masks[index]}: mask is {size}, expected {said} as the json says")
    order, values = np.array(segments.ids), np.array(segments.values)
    present = np.unique(ids)
    place = np.minimum(np.searchsorted(order, ids), len(order) - 1)
    listed = order[place] == ids
    findings = dict(segments.findings)
    for words, count in (
        ("ids in a PNG that its json does not list", np.setdiff1d(present, order).size),
        ("ids in a json that its PNG does not show", np.setdiff1d(order[1:], present).size),
    ):
        if count:
            findings[words] = int(count)
    return LabelMap(np.where(listed, values[place], 0).astype(np.uint16), findings=findings)
