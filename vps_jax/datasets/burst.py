"""BURST: tracks of TAO's videos with masks, here objects without classes (spec: data_sets 10)."""

import functools
import pathlib
from collections.abc import Mapping

from vps_jax.datasets import instance_json, spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.json_fields import (
    ANY,
    FILE,
    ID,
    LIST,
    NUMBER,
    OBJECT,
    PIXELS,
    checked,
    file_list,
    load_json,
    rows_of,
)
from vps_jax.datasets.labels import MOST_INSTANCES, panoptic_code, panoptic_value
from vps_jax.types import UserError

CLASSES = class_table("davis")  # the 1,230 classes do not fit, and video object segmentation asks for none
JSONS = {"train": "train/train.json", "val": "val/all_classes.json", "test": "test/all_classes.json"}
PLACES = {"annotations beside the images": "", "annotations in a folder": "annotations/"}
IMAGES = ("frames/{split}", "images/{split}", "{split}")
LEAST_AREA = 100  # pixels; smaller masks are left out of their frame, as in the published loader
FRAMES = {"dataset": FILE, "seq_name": FILE, "annotated_image_paths": LIST, "segmentations": LIST}
NEEDS = {"id": ID, "width": PIXELS, "height": PIXELS, "track_category_ids": ANY, **FRAMES}


def splits(root: pathlib.Path, place: str) -> tuple[str, ...]:
    """Splits whose json is there."""
    return tuple(split for split, name in JSONS.items() if (root / (place + name)).is_file())


def videos(root: pathlib.Path, split: str, place: str) -> list[spec.VideoFiles]:
    """The sequences of a split in the json's order, as `<dataset>/<name>`; the annotated frames alone.

    Raises:
      UserError: the json breaks a rule of the form.
    """
    path = root / (place + JSONS[split])
    folder = image_folder(root, split)
    listed = []
    for row in rows_of(load_json(path), "sequences", NEEDS, path):
        own = f"{row['dataset']}/{row['seq_name']}"
        names = row["annotated_image_paths"]
        if names:
            file_list(names, f"{path}: sequence {own}: annotated_image_paths")
        images = tuple(folder / own / name for name in names)
        tracks = tracks_of(row, path, f"sequence {own}")
        there = [i for i, image in enumerate(images) if image.exists()]
        listed.append(
            spec.VideoFiles(own, *instance_json.kept(images, tracks, there), number=row["id"])
            if there
            else spec.VideoFiles(own, (), None)
        )
    return listed


def image_folder(root: pathlib.Path, split: str) -> pathlib.Path:
    """The folder of the sequences of a split."""
    places = [root / folder.format(split=split) for folder in IMAGES]
    return next((p for p in places if any(q.is_dir() for q in spec.visible(p))), places[0])


def strays(root: pathlib.Path, split: str, place: str) -> list[str]:
    """A line for the images of a split that its json lists and that are not there, or none."""
    source, folder = root / (place + JSONS[split]), image_folder(root, split)
    rows = load_json(source)["sequences"]
    names = [[f"{row['dataset']}/{row['seq_name']}/{name}" for name in row["annotated_image_paths"]] for row in rows]
    return instance_json.missing_images(source, lambda file: folder / file, [{"file_names": row} for row in names])


def tracks_of(row: Mapping, source: pathlib.Path, own: str) -> instance_json.Tracks:
    """Tracks of one sequence, numbered from 1 in the order of their numbers.

    Raises:
      UserError: another number of segmentations than annotated frames, or a track without code.
    """
    where = f"{source}: {own}"
    frames, segmentations = len(row["annotated_image_paths"]), row["segmentations"]
    if len(segmentations) != frames:
        count = len(segmentations)
        raise UserError(f"{where} has {count} segmentations for {frames} annotated images; expected one each")
    for i, frame in enumerate(segmentations):
        for name, mask in checked(frame, OBJECT, f"{where}: segmentations[{i}]").items():
            checked(mask, OBJECT, f"{where}: segmentations[{i}]: track {name}")
    names = sorted({name for frame in segmentations for name in frame}, key=lambda name: (len(name), name))
    values, codes = [], []
    for i, name in enumerate(names):
        for frame in segmentations:
            if name in frame and "rle" not in frame[name]:
                raise UserError(f"{where}: track {name} has no rle in a frame; expected masks, not points or boxes")
        values.append(panoptic_value(0, i + 1 if i < MOST_INSTANCES else 0))
        codes.append(tuple(frame[name]["rle"] if name in frame else None for frame in segmentations))
    beyond = max(0, len(names) - MOST_INSTANCES)
    guessed = sum(not mask.get("is_gt", True) for frame in segmentations for mask in frame.values())
    findings = (("objects beyond 255 of their class", beyond), ("masks made automatically", guessed))
    return instance_json.Tracks(
        (int(row["height"]), int(row["width"])), tuple(values), tuple(codes), tuple(f for f in findings if f[1]),
        source, own, panoptic_value(len(CLASSES.names), 0), LEAST_AREA,
    )  # fmt: skip


def first_points(content: Mapping, source: pathlib.Path) -> dict[str, list[dict]]:
    """Clicks of `first_frame_annotations.json` by sequence: rows of `object`, `frame`, `x` and `y` in pixels.

    Raises:
      UserError: the json breaks a rule of the form, or an object has no point.
    """
    clicks: dict[str, list[dict]] = {}
    for row in rows_of(content, "sequences", FRAMES, source):
        own = f"{row['dataset']}/{row['seq_name']}"
        by_track: dict[str, dict] = {}
        for image, frame in zip(row["annotated_image_paths"], row["segmentations"], strict=False):
            for track, shown in checked(frame, OBJECT, f"{source}: {own}: a frame").items():
                point = shown.get("point") if isinstance(shown, Mapping) else None
                if not isinstance(point, Mapping) or not {"x", "y"} <= set(point):
                    raise UserError(f"{source}: {own}: track {track} has no point; expected first-frame annotations")
                for key in "xy":
                    checked(point[key], NUMBER, f"{source}: {own}: {key} of the point of track {track}")
                place = {"object": int(track), "frame": pathlib.Path(image).stem, "x": point["x"], "y": point["y"]}
                by_track.setdefault(track, place)
        clicks[own] = list(by_track.values())
    return clicks


def layout(name: str, place: str) -> spec.Layout:
    """One of the places of the annotations."""
    return spec.Layout(
        name,
        ("|".join(place + json for json in JSONS.values()),),
        functools.partial(splits, place=place),
        functools.partial(videos, place=place),
        strays=functools.partial(strays, place=place),
    )


SPEC = spec.DatasetSpec(
    name="burst",
    title="BURST",
    classes=CLASSES,
    labels=panoptic_code(CLASSES),
    layouts=tuple(layout(name, place) for name, place in PLACES.items()),
    read_label=instance_json.read_label,
    inference={"task": "vos", "clip_frames": 8, "overlap_frames": 4, "short_side_px": 512},
)
