"""Synthetic scenes in the layouts of the video data sets (spec: data_sets 5, 6, 7, 8, 10)."""

import pathlib
from collections.abc import Iterator

import numpy as np

from vps_jax import files
from vps_jax.data import scenes
from vps_jax.data.synthetic_images import class_of, write
from vps_jax.datasets import burst, cityscapes_vps, kitti_step, ovis, rle, vipseg, youtube_vis
from vps_jax.datasets.classes import ClassTable

SNIPPET = 6  # labelled frames of a snippet of Cityscapes-VPS
HEX = "0123456789abcdef"


def frames_of(scene: scenes.Scene, most: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image and VIPSeg values of the frames at 5 fps."""
    for frame in range(min(scene.num_frames, most or scene.num_frames)):
        yield scenes.render(scene, frame * scenes.TICKS_PER_FRAME)


def numbers_of(scene: scenes.Scene, table: ClassTable) -> dict[int, int]:
    """Official number of every thing's value, from 0 per class of the table."""
    numbers, seen = {}, {}
    for value in sorted(thing.value for thing in scene.things):
        category = class_of(int(vipseg.class_of(value)), table)
        numbers[value] = seen[category] = seen.get(category, -1) + 1
    return numbers


def write_kitti(folder: pathlib.Path, scene: scenes.Scene, split: str) -> None:
    """PNG frames and maps (R class, G and B number, which starts at 1; a first thing without number)."""
    # train and val share KITTI's numbers: even and odd ones here
    name = f"{scene.key[1] % 100_000 * 2 + (split == 'val'):04d}"
    table, numbers = kitti_step.CLASSES, numbers_of(scene, kitti_step.CLASSES)
    crowd = min(numbers, default=None) if scene.key[1] % 4 == 1 else None
    for i, (image, values) in enumerate(frames_of(scene)):
        write(folder / "images" / split / name / f"{i:06d}.png", image)
        if split == "test":
            continue
        rgb = np.full((*values.shape, 3), (kitti_step.VOID, 0, 0), np.uint8)
        for value in (v for v in np.unique(values).tolist() if v):
            category = class_of(int(vipseg.class_of(value)), table)
            number = 250 * numbers[value] + 1 if value in numbers and value != crowd else 0  # some need two bytes
            rgb[values == value] = (category, number // 256, number % 256)
        write(folder / "panoptic_maps" / split / name / f"{i:06d}.png", rgb)


def write_cityscapes_vps(folder: pathlib.Path, scene: scenes.Scene, split: str) -> None:
    """PNG frames of a snippet, colour maps and instance maps; test has images alone."""
    video, table, numbers = scene.key[1] + 1, cityscapes_vps.CLASSES, numbers_of(scene, cityscapes_vps.CLASSES)
    for k, (image, values) in enumerate(frames_of(scene, SNIPPET), start=1):
        base = f"{video:04d}_{(video - 1) * SNIPPET + k:04d}_frankfurt_000000_{275 + 5 * k:06d}"
        own = k == 4  # Cityscapes' own frame has its own suffixes
        write(folder / split / "img" / f"{base}_{'leftImg8bit' if own else 'newImg8bit'}.png", image)
        if split == "test":
            continue
        colors, ids = np.zeros((*values.shape, 3), np.uint8), np.zeros(values.shape, np.uint16)
        for value in (v for v in np.unique(values).tolist() if v):
            category = class_of(int(vipseg.class_of(value)), table)
            colors[values == value] = table.colors[category]
            if value in numbers:
                # the thousands are Cityscapes' label ids, not the classes
                ids[values == value] = (24 + category - 11) * cityscapes_vps.PER_CLASS + numbers[value]
        ends = ("gtFine_color", "gtFine_instanceIds") if own else ("final_mask", "original_image_instance_greyscale")
        write(folder / split / "cls" / f"{base}_{ends[0]}.png", colors)
        write(folder / split / "inst" / f"{base}_{ends[1]}.png", ids)


def tracks_of(scene: scenes.Scene, whole: bool) -> tuple[list[np.ndarray], dict[int, list[np.ndarray]]]:
    """Images, and of every thing its mask in each frame: what is seen of it, or its whole outline."""
    images, masks = [], {thing.value: [] for thing in scene.things}
    y, x = np.mgrid[: scene.height, : scene.width].astype(np.int32)
    for frame, (image, values) in enumerate(frames_of(scene)):
        images.append(image)
        for thing in scene.things:
            alone = values
            if whole:
                alone, age = np.zeros_like(values), frame * scenes.TICKS_PER_FRAME - 3 * scene.num_frames // 2
                scenes.paint_thing(np.zeros(image.shape, np.int32), alone, thing, age, y, x)
            masks[thing.value].append(alone == thing.value)
    return images, masks


def hex_name(scene: scenes.Scene, length: int) -> str:
    """A name of hexadecimal digits, different for every scene."""
    draws = scenes.Draws(*scene.key, 2)
    return "".join(HEX[draws.integer(0, 15)] for _ in range(length))


def annotation(masks: list[np.ndarray], category: int, as_text: bool) -> dict:
    """A track of the json: codes, boxes and areas per frame, null where it is not seen."""
    codes, boxes, areas = [], [], []
    for mask in masks:
        if not mask.any():
            codes, boxes, areas = [*codes, None], [*boxes, None], [*areas, None]
            continue
        runs = rle.of_mask(mask)
        counts = rle.to_text(runs) if as_text else runs.tolist()
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        size = int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1
        codes.append({"size": list(mask.shape), "counts": counts})
        boxes.append([int(columns[0]), int(rows[0]), *size])
        areas.append(int(mask.sum()))
    # the published files say 1 for the length of every track
    return {
        "category_id": category, "iscrowd": 0, "length": 1, "segmentations": codes, "bboxes": boxes, "areas": areas,
    }  # fmt: skip


def video_row(scene: scenes.Scene, names: list[str]) -> dict:
    """A video of the json."""
    return {"width": scene.width, "height": scene.height, "length": len(names), "file_names": names}


def write_youtube_vis(
    folder: pathlib.Path, scene: scenes.Scene, split: str, table: ClassTable = youtube_vis.SPEC.classes
) -> tuple[dict, list[dict]]:
    """Every fifth frame of a video; returns its rows of the json."""
    name = hex_name(scene, 10)
    images, masks = tracks_of(scene, whole=False)
    names = [f"{name}/{5 * i:05d}.jpg" for i in range(len(images))]
    for file, image in zip(names, images, strict=True):
        write(folder / youtube_vis.FOLDERS[split] / "JPEGImages" / file, image)
    ids = {value: table.official_ids[class_of(int(vipseg.class_of(value)), table)] for value in masks}
    return video_row(scene, names), [annotation(masks[value], ids[value], as_text=False) for value in masks]


def write_ovis(folder: pathlib.Path, scene: scenes.Scene, split: str) -> tuple[dict, list[dict]]:
    """A video whose masks are whole outlines and overlap; run lengths are text in every other track."""
    name = hex_name(scene, 8)
    images, masks = tracks_of(scene, whole=True)
    names = [f"{name}/img_{i + 1:07d}.jpg" for i in range(len(images))]
    for file, image in zip(names, images, strict=True):
        write(folder / ovis.FOLDERS[split] / file, image)
    ids = {value: ovis.CLASSES.official_ids[class_of(int(vipseg.class_of(value)), ovis.CLASSES)] for value in masks}
    return video_row(scene, names), [annotation(masks[v], ids[v], as_text=i % 2 == 1) for i, v in enumerate(masks)]


def write_track_json(
    path: pathlib.Path, rows: list[tuple[dict, list[dict]]], table: ClassTable, labelled: bool
) -> None:
    """A json in the form of YouTube-VIS; ids count from 1."""
    videos, tracks = [], []
    for i, (video, annotations) in enumerate(rows, start=1):
        videos.append({"id": i, **video})
        tracks += [{"id": len(tracks) + j, "video_id": i, **row} for j, row in enumerate(annotations, start=1)]
    content = {"videos": videos, "categories": table.rows()} | ({"annotations": tracks} if labelled else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, content)


def write_youtube_vis_jsons(folder: pathlib.Path, rows: dict[str, list]) -> None:
    """One json per split; validation has no annotations."""
    for split, own in rows.items():
        path = folder / youtube_vis.FOLDERS[split] / "instances.json"
        write_track_json(path, own, youtube_vis.SPEC.classes, split == "train")


def write_youtube_vis_2019(folder: pathlib.Path, scene: scenes.Scene, split: str) -> tuple[dict, list[dict]]:
    """As `write_youtube_vis`, with the classes of 2019."""
    return write_youtube_vis(folder, scene, split, youtube_vis.SPEC_2019.classes)


def write_youtube_vis_2019_jsons(folder: pathlib.Path, rows: dict[str, list]) -> None:
    """One json per split beside the folders of images; validation has no annotations."""
    for split, own in rows.items():
        path = folder / f"{youtube_vis.FOLDERS[split]}.json"
        write_track_json(path, own, youtube_vis.SPEC_2019.classes, split == "train")


def write_ovis_jsons(folder: pathlib.Path, rows: dict[str, list]) -> None:
    """One json per split; validation has no annotations."""
    for split, own in rows.items():
        path = folder / f"annotations_{ovis.FOLDERS[split]}.json"
        write_track_json(path, own, ovis.CLASSES, split == "train")


def write_burst(folder: pathlib.Path, scene: scenes.Scene, split: str) -> dict:
    """A sequence with unlabelled frames between the labelled ones; returns its row of the json."""
    name, dataset = f"v_{hex_name(scene, 6)}", ("YFCC100M", "LaSOT")[scene.key[1] % 2]
    for tick in range(scene.num_frames * scenes.TICKS_PER_FRAME):
        image, _ = scenes.render(scene, tick)
        write(folder / "frames" / split / dataset / name / f"frame{tick + 1:04d}.jpg", image)
    _, masks = tracks_of(scene, whole=False)
    annotated = [f"frame{i * scenes.TICKS_PER_FRAME + 1:04d}.jpg" for i in range(scene.num_frames)]
    tracks = {str(i): value for i, value in enumerate(masks, start=1)}
    frames = [
        {
            track: {"rle": rle.to_text(rle.of_mask(masks[value][i])), "is_gt": True, "score": 1.0}
            for track, value in tracks.items()
            if masks[value][i].any()
        }
        for i in range(scene.num_frames)
    ]
    return {
        "id": scene.key[1], "width": scene.width, "height": scene.height, "fps": 15, "dataset": dataset,
        "seq_name": name, "annotated_image_paths": annotated,
        "all_image_paths": [f"frame{t + 1:04d}.jpg" for t in range(scene.num_frames * scenes.TICKS_PER_FRAME)],
        "neg_category_ids": [], "not_exhaustive_category_ids": [],
        "track_category_ids": {track: 1 + int(vipseg.class_of(value)) for track, value in tracks.items()},
        "segmentations": frames,
    }  # fmt: skip


def write_burst_jsons(folder: pathlib.Path, rows: dict[str, list[dict]]) -> None:
    """One json per split."""
    for split, own in rows.items():
        path = folder / burst.JSONS[split]
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"sequences": own, "categories": [], "split": split})
