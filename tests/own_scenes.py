"""Five invented classes over the drawn scenes, as a user's own data in every form that a test asks for."""

import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vps_jax import files
from vps_jax.data import scenes
from vps_jax.datasets import class_file, rle
from vps_jax.datasets.class_file import ClassFile
from vps_jax.datasets.own import Own

VOID = 255
# the name of VIPSeg's class is kept by three, the other two say whose row to start from
ROWS = [
    {"value": 3, "name": "Sky", "color": [120, 180, 240]},
    {"value": 7, "name": "road", "color": [90, 90, 90]},
    {"value": 20, "name": "ball", "color": [220, 20, 60], "thing": True},
    {"value": 21, "name": "automobile", "color": [0, 90, 200], "thing": True, "like": "car"},
    {"value": 40, "name": "waves", "color": [10, 60, 250], "like": "water"},
]
CLASSES = class_file.parse({"name": "invented", "void": [VOID], "classes": ROWS}, pathlib.Path("classes.yaml"))
OF_VIPSEG = {28: 3, 18: 7, 74: 20, 48: 21, 39: 40}  # class of VIPSeg -> value; all others are void


class Drawn(NamedTuple):
    """One frame: where it belongs, image uint8 `[h, w, 3]`, class values and object numbers uint8 `[h, w]`."""

    split: str
    video: str
    frame: str
    image: np.ndarray
    values: np.ndarray
    objects: np.ndarray


def drawn(splits: dict[str, int], *, size: tuple[int, int], frames: int, seed: int = 0) -> Iterator[Drawn]:
    """All frames, video by video."""
    for first, (split, count) in enumerate(splits.items()):
        for i in range(count):
            scene = scenes.make_scene(seed, 100_000 * first + i, height=size[0], width=size[1], num_frames=frames)
            for k in range(frames):
                image, mask = scenes.render(scene, scenes.TICKS_PER_FRAME * k)
                yield Drawn(split, f"{split}{i}", str(k), image, *of_mask(mask))


def of_mask(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class values and object numbers, 1 and up and never twice in a video, of a mask in VIPSeg's raw code."""
    thing = mask >= 125
    category = np.where(thing, mask.astype(int) // 100, mask) - 1
    values = np.full(mask.shape, VOID, np.uint8)
    objects = np.zeros(mask.shape, np.uint8)
    for number, value in OF_VIPSEG.items():
        values[category == number] = value
        here = thing & (category == number)
        objects[here] = mask[here] % 100 + 1 + 10 * (value == 21)
    return values, objects


def write_frames(root: pathlib.Path, all_drawn: list[Drawn]) -> None:
    for one in all_drawn:
        write(root / "frames" / one.split / one.video / f"{one.frame}.png", one.image)


def as_index(root: pathlib.Path, all_drawn: list[Drawn], classes: ClassFile = CLASSES) -> Own:
    for one in all_drawn:
        write(root / "labels" / one.split / one.video / f"{one.frame}.png", one.values)
        write(root / "instances" / one.split / one.video / f"{one.frame}.png", one.objects)
    return Own(classes)


def as_palette(root: pathlib.Path, all_drawn: list[Drawn], classes: ClassFile = CLASSES) -> Own:
    for one in all_drawn:
        for folder, picture in (("labels", one.values), ("instances", one.objects)):
            path = root / folder / one.split / one.video / f"{one.frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_palette_png(path, picture)
    return Own(classes, form="palette")


def as_panoptic_video(root: pathlib.Path, all_drawn: list[Drawn], classes: ClassFile = CLASSES) -> Own:
    """Segment id = (1 + class value) * 256 + object number."""
    rows: dict[str, dict[str, list]] = {}
    for one in all_drawn:
        ids = np.where(np.isin(one.values, classes.void), 0, (1 + one.values.astype(int)) * 256 + one.objects)
        picture = np.stack([ids & 255, ids >> 8, np.zeros_like(ids)], -1).astype(np.uint8)
        write(root / "labels" / one.split / one.video / f"{one.frame}.png", picture)
        segments = [{"id": i, "category_id": i // 256 - 1} for i in np.unique(ids).tolist() if i]
        frame = {"file_name": f"{one.frame}.png", "segments_info": segments}
        rows.setdefault(one.split, {}).setdefault(one.video, []).append(frame)
    for split, videos in rows.items():
        content = {"annotations": [{"video_id": v, "annotations": row} for v, row in videos.items()]}
        (root / f"{split}.json").write_text(json.dumps(content))
    return Own(classes, form="panoptic-video")


def as_ytvis(root: pathlib.Path, all_drawn: list[Drawn], classes: ClassFile = CLASSES) -> Own:
    for split, shown in by_split(all_drawn):
        heads, tracks = [], []
        for number, (video, frames) in enumerate(shown.items(), start=1):
            height, width = frames[0].values.shape
            names = [f"{video}/{one.frame}.png" for one in frames]
            heads.append({"id": number, "file_names": names, "height": height, "width": width})
            for thing in sorted({int(n) for one in frames for n in np.unique(one.objects) if n}):
                codes = [code_of(one.objects == thing) for one in frames]
                value = next(int(one.values[one.objects == thing][0]) for one in frames if (one.objects == thing).any())
                row = {"id": len(tracks) + 1, "video_id": number, "category_id": value, "segmentations": codes}
                tracks.append(row)
        content = {"videos": heads, "annotations": tracks, "categories": categories(classes)}
        (root / f"{split}.json").write_text(json.dumps(content))
    return Own(classes, form="ytvis")


def as_coco(root: pathlib.Path, all_drawn: list[Drawn], classes: ClassFile = CLASSES) -> Own:
    for split, shown in by_split(all_drawn):
        images, annotations = [], []
        for one in (one for frames in shown.values() for one in frames):
            height, width = one.values.shape
            name = f"{one.video}/{one.frame}.png"
            images.append({"id": len(images), "file_name": name, "height": height, "width": width})
            for thing in (int(n) for n in np.unique(one.objects) if n):
                here = one.objects == thing
                row = {"id": len(annotations), "image_id": images[-1]["id"], "category_id": int(one.values[here][0])}
                annotations.append(row | {"track_id": thing, "segmentation": code_of(here)})
        content = {"images": images, "annotations": annotations, "categories": categories(classes)}
        (root / f"{split}.json").write_text(json.dumps(content))
    return Own(classes, form="coco")


def by_split(all_drawn: list[Drawn]) -> Iterator[tuple[str, dict[str, list[Drawn]]]]:
    """Split, and its frames by video."""
    for split in dict.fromkeys(one.split for one in all_drawn):
        shown: dict[str, list[Drawn]] = {}
        for one in all_drawn:
            if one.split == split:
                shown.setdefault(one.video, []).append(one)
        yield split, shown


def code_of(mask: np.ndarray) -> dict | None:
    """Run-length code of a mask, None for an empty one."""
    return {"size": list(mask.shape), "counts": rle.to_text(rle.of_mask(mask))} if mask.any() else None


def categories(classes: ClassFile) -> list[dict]:
    table = classes.classes
    return [{"id": i, "name": name} for i, name in zip(table.official_ids, table.names, strict=True)]


def write(path: pathlib.Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_image(path, picture)
