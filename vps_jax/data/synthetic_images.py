"""Synthetic scenes in the layouts of the image data sets: one frame of each scene (spec: data_sets 2, 3, 4)."""

import pathlib

import numpy as np

from vps_jax import files
from vps_jax.data import scenes
from vps_jax.datasets import ade20k_panoptic, cityscapes_panoptic, mapillary_vistas, vipseg
from vps_jax.datasets.classes import ClassTable

CITIES = ("aachen", "bochum", "ulm")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
EVALUATED = sorted(cityscapes_panoptic.EVALUATED)


def class_of(category: int, table: ClassTable, among: list[int] | None = None) -> int:
    """The class of a table that stands for a class of the scenes: stuff for stuff, things for things.

    Args:
      category: class of the scenes.
      table: the data set's.
      among: classes to choose from; None: all.
    """
    allowed = range(len(table.names)) if among is None else among
    ours, is_thing = (scenes.THINGS, True) if category in scenes.THINGS else (scenes.STUFF, False)
    chosen = [c for c in allowed if table.is_thing[c] == is_thing]
    return chosen[list(ours).index(category) % len(chosen)]


def segments_of(values: np.ndarray, table: ClassTable, among: list[int] | None = None) -> list[tuple[np.ndarray, int]]:
    """Mask bool `[h, w]` and class of every segment of a rendered frame, ordered by its value."""
    present = [value for value in np.unique(values).tolist() if value]
    return [(values == value, class_of(int(vipseg.class_of(value)), table, among)) for value in present]


def middle(scene: scenes.Scene) -> tuple[np.ndarray, np.ndarray]:
    """Image and VIPSeg values of the frame in the middle."""
    return scenes.render(scene, scene.num_frames * scenes.TICKS_PER_FRAME // 2)


def write(path: pathlib.Path, image: np.ndarray) -> None:
    """Write an image, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_image(path, image)


def write_ade20k(folder: pathlib.Path, scene: scenes.Scene, split: str) -> None:
    """An image, its semantic map (class + 1) and its instance map (R instance class, G number)."""
    name, table = ade20k_panoptic.FOLDERS[split], ade20k_panoptic.CLASSES
    image, values = middle(scene)
    semantic, objects, number = np.zeros(values.shape, np.uint8), np.zeros((*values.shape, 3), np.uint8), 0
    for mask, category in segments_of(values, table):
        semantic[mask] = category + 1
        if table.is_thing[category]:
            number += 1
            objects[mask] = (1 + table.thing_ids.index(category), number, 0)
    stem = f"ADE_{split}_{scene.key[1] % 100_000 + 1:08d}"
    write(folder / "images" / name / f"{stem}.jpg", image)
    write(folder / "annotations" / name / f"{stem}.png", semantic)
    write(folder / "annotations_instance" / name / f"{stem}.png", objects)


def write_cityscapes(folder: pathlib.Path, scene: scenes.Scene, split: str) -> None:
    """An image as PNG, and its map of instance ids; in every fourth image the last thing is a group."""
    image, values = middle(scene)
    ids, seen, table = np.zeros(values.shape, np.uint16), {}, cityscapes_panoptic.CLASSES
    segments = segments_of(values, table, EVALUATED)
    for i, (mask, category) in enumerate(segments):
        is_group = scene.key[1] % 4 == 3 and i == len(segments) - 1
        if table.is_thing[category] and not is_group:
            ids[mask] = category * cityscapes_panoptic.PER_CLASS + seen.get(category, 0)
            seen[category] = seen.get(category, 0) + 1
        else:
            ids[mask] = category
    city = CITIES[scene.key[1] % len(CITIES)]
    base = f"{city}_{scene.key[1] % 100_000:06d}_000019"
    write(folder / "leftImg8bit" / split / city / f"{base}_leftImg8bit.png", image)
    write(folder / "gtFine" / split / city / f"{base}_gtFine_instanceIds.png", ids)


def write_mapillary(folder: pathlib.Path, scene: scenes.Scene, split: str) -> tuple[dict, dict]:
    """An image and its RGB segment ids; returns its rows of the json's images and annotations."""
    name, table = mapillary_vistas.FOLDERS[split][0], mapillary_vistas.CLASSES
    image, values = middle(scene)
    draws = scenes.Draws(*scene.key, 3)
    key = "".join(LETTERS[draws.integer(0, len(LETTERS) - 1)] for _ in range(22))
    ids, rows = np.zeros(values.shape, np.int32), []
    for i, (mask, category) in enumerate(segments_of(values, table)):
        ids[mask] = 2_000_003 + 4099 * i
        row = {"id": 2_000_003 + 4099 * i, "category_id": table.official_ids[category], "area": int(mask.sum())}
        rows.append({**row, "bbox": [], "iscrowd": 0})
    rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
    write(folder / name / "images" / f"{key}.jpg", image)
    write(folder / name / "v1.2" / "panoptic" / f"{key}.png", rgb)
    size = {"width": scene.width, "height": scene.height}
    return {"id": key, "file_name": f"{key}.jpg", **size}, {
        "image_id": key, "file_name": f"{key}.png", "segments_info": rows,
    }  # fmt: skip


def write_mapillary_jsons(folder: pathlib.Path, rows: dict[str, list[tuple[dict, dict]]]) -> None:
    """One json per split."""
    for split, pairs in rows.items():
        content = {
            "images": [pair[0] for pair in pairs],
            "annotations": [pair[1] for pair in pairs],
            "categories": mapillary_vistas.CLASSES.rows(),
        }
        place = folder / mapillary_vistas.FOLDERS[split][0] / "v1.2" / "panoptic"
        place.mkdir(parents=True, exist_ok=True)
        files.write_json(place / mapillary_vistas.JSON, content)
