"""Cityscapes-VPS: six labelled frames of each of 500 snippets, 19 classes (spec: data_sets 8)."""

import functools
import itertools
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from vps_jax.datasets import numbering, spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.json_fields import FILE, ID, load_json, rows_of
from vps_jax.datasets.label_files import BadFrame, read_mask, read_rgb
from vps_jax.datasets.labels import panoptic_code
from vps_jax.types import UserError

CLASSES = class_table("cityscapes_vps")
COLORS = {r + 256 * g + 65536 * b: c for c, (r, g, b) in enumerate(CLASSES.colors)}
PER_CLASS = 1000  # instance maps: x * 1000 + number, where x is not always the class; below it no instance
VOID = 255
FOLDERS = ("train", "val", "test")
ALL_FRAMES = "im_all_info_{split}_city_vps.json"  # with the images of <split>/img_all
PER_SNIPPET, EVERY = 10_000, 5  # ids of images: snippet * 10,000 + frame from 1; every fifth frame is labelled
# what the authors' scripts add to an image's name
ENDINGS = re.compile(r"(_newImg8bit|_leftImg8bit|_final_mask|_gtFine_color|_gtFine_instanceIds)?(\.png|\.jpg)?$")


def made_splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits with the maps that the authors' script makes."""
    return tuple(split for split in FOLDERS if (root / split / "panoptic_inst").is_dir())


def raw_splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits with images."""
    return tuple(split for split in FOLDERS if (root / split / "img").is_dir())


def raw_videos(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """Snippets from colour maps and instance maps; test has none."""
    if not (root / split / "cls").is_dir():
        return snippets(root / split, None)
    return snippets(root / split, "cls", "inst")


def made_videos(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """Snippets from the authors' panoptic maps."""
    return snippets(root / split, "panoptic_inst")


def frame_name(stem: str) -> str:
    """The name of a frame in truths and results: that of a file without what the authors' scripts add to it."""
    return ENDINGS.sub("", stem)


def dense_videos(root: pathlib.Path, split: str, labelled: Callable) -> list[spec.VideoFiles]:
    """Snippets of a split with all their frames, where the root has them; every fifth, the labelled ones, is a result.

    Raises:
      UserError: frames of a snippet are missing.
    """
    known, images = root / ALL_FRAMES.format(split=split), root / split / "img_all"
    videos = labelled(root, split)
    if not known.is_file() or not images.is_dir():
        return videos
    frames: dict[int, dict[int, pathlib.Path]] = {}
    for row in rows_of(load_json(known), "images", {"id": ID, "file_name": FILE}, known):
        if type(row["id"]) is not int:
            raise UserError(f"{known}: image id {row['id']!r}; expected snippet * {PER_SNIPPET} + frame, such as 50001")
        video, frame = divmod(row["id"], PER_SNIPPET)
        frames.setdefault(video, {})[frame] = images / row["file_name"]
    return [dense(video, frames.get(int(video.name), {}), known) for video in videos]


def dense(video: spec.VideoFiles, frames: Mapping[int, pathlib.Path], source: pathlib.Path) -> spec.VideoFiles:
    """A snippet with all frames, numbered from 1; the labelled ones, which come every fifth, keep their own files."""
    places = [frame for frame in sorted(frames) if frame % EVERY == 0]
    if len(places) != len(video.images):
        raise UserError(
            f"{source}: snippet {video.name} has {len(places)} frames of number {EVERY}, {2 * EVERY}, ...; expected "
            f"the {len(video.images)} of its labelled images"
        )
    files = dict(frames) | dict(zip(places, video.images, strict=True))
    order = sorted(files)
    return spec.VideoFiles(
        video.name, tuple(files[frame] for frame in order), None, results=tuple(map(order.index, places))
    )


class Notes(NamedTuple):
    """The instance map of every frame (None with the authors' maps), and the label value of every wide value."""

    objects: tuple[pathlib.Path | None, ...]
    values: Mapping[int, int] = {}


def snippets(folder: pathlib.Path, masks: str | None, numbers: str | None = None) -> list[spec.VideoFiles]:
    """Snippets of a split, whose number begins each name.

    Raises:
      UserError: two files of one folder belong to one frame.
    """
    labels, objects = (of_frames(folder / part) if part else {} for part in (masks, numbers))
    videos = []
    for name, frames in itertools.groupby(of_frames(folder / "img").items(), key=lambda row: row[0].split("_")[0]):
        keys, images = zip(*frames, strict=True)
        if masks is None:
            videos.append(spec.VideoFiles(name, images, None))
            continue
        whole = tuple(labels.get(key) if numbers is None or key in objects else None for key in keys)
        videos.append(spec.VideoFiles(name, images, whole, Notes(tuple(objects.get(key) for key in keys))))
    return videos


def of_frames(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Files of a folder by `<video>_<running number>`, in their order."""
    by_frame: dict[str, pathlib.Path] = {}
    for path in spec.visible(folder, ".png"):
        key = "_".join(path.name.split("_")[:2])
        if key in by_frame:
            raise UserError(
                f"{path}: frame {key} has {by_frame[key].name} too; expected one file per frame in {folder}"
            )
        by_frame[key] = path
    return by_frame


def wide_values(mask: pathlib.Path, objects: pathlib.Path | None) -> np.ndarray:
    """class * 65536 + 1 + official number int64 `[h, w]`, -1 for void; things without an instance are void."""
    if objects is None:
        values = read_mask(mask).astype(np.int64)
        classes = np.where(values >= PER_CLASS, values // PER_CLASS, values)
        numbers = np.where(values >= PER_CLASS, 1 + values % PER_CLASS, 0)
        wrong = (classes >= len(CLASSES.names)) & (values != VOID)
        if wrong.any():
            raise BadFrame(f"{mask}: value {values[wrong][0]}; expected 0..10, class * 1000 + number, or 255 for void")
        return np.where(values == VOID, -1, classes * numbering.WIDE + numbers)
    return of_maps(read_rgb(mask).astype(np.int32), read_mask(objects).astype(np.int64), mask)


def of_maps(colors: np.ndarray, objects: np.ndarray, path: pathlib.Path) -> np.ndarray:
    """Wide values from colours `[h, w, 3]` and instance ids `[h, w]`.

    The class of an instance is the colour that most of its pixels have.
    """
    if colors.shape[:2] != objects.shape:
        size = f"{objects.shape[1]}x{objects.shape[0]}"
        raise BadFrame(f"{path}: its instance map is {size}, expected {colors.shape[1]}x{colors.shape[0]}")
    shown, place = np.unique(colors @ np.array([1, 256, 65536]), return_inverse=True)
    classes = np.array([COLORS.get(int(color), -1) for color in shown])[place].reshape(objects.shape)
    is_thing = np.isin(classes, CLASSES.thing_ids)
    wide = np.where((classes >= 0) & ~is_thing, classes * numbering.WIDE, -1)
    for number in np.unique(objects[objects >= PER_CLASS]).tolist():
        here = objects == number
        counts = np.bincount(1 + classes[here])
        category = int(counts.argmax()) - 1
        if category in CLASSES.thing_ids:
            wide[here] = category * numbering.WIDE + 1 + number % PER_CLASS
    return wide


def scan(video: spec.VideoFiles) -> spec.VideoFiles:
    """Numbers of all objects of the snippet; a map that cannot be read is named when its frame is."""
    seen: set[int] = set()
    for mask, objects in zip(video.masks, video.notes.objects, strict=True):
        try:
            seen |= set(np.unique(wide_values(mask, objects)).tolist()) if mask is not None else set()
        except BadFrame:
            continue
    return video._replace(notes=video.notes._replace(values=numbering.renumber(seen, CLASSES.thing_ids)))


def read_label(video: spec.VideoFiles, index: int) -> spec.LabelMap:
    """Labels of one frame."""
    wide = wide_values(video.masks[index], video.notes.objects[index])
    return spec.LabelMap(numbering.look_up(wide, video.notes.values))


TRUTH = "panoptic_gt_{split}_city_vps.json"  # made by the authors' scripts, with PNGs in <split>/panoptic_video
RAW = spec.Layout(
    "as downloaded", ("train/img|val/img", "train/cls|val/cls", "train/inst|val/inst"), raw_splits, raw_videos,
    truth=TRUTH, predicted=functools.partial(dense_videos, labelled=raw_videos),
)  # fmt: skip
MADE = spec.Layout(
    "the authors' maps", ("train/img|val/img", "train/panoptic_inst|val/panoptic_inst"), made_splits, made_videos,
    truth=TRUTH, predicted=functools.partial(dense_videos, labelled=made_videos),
)  # fmt: skip

SPEC = spec.DatasetSpec(
    name="cityscapes_vps",
    title="Cityscapes-VPS",
    classes=CLASSES,
    labels=panoptic_code(CLASSES),
    layouts=(RAW, MADE),
    read_label=read_label,
    scan=scan,
    truth="vps_jax.evaluation.cityscapes_vps_files",
    writer="vps_jax.media.flat_panoptic:FlatPanopticWriter",
    metrics=("vpq", "stq"),
    inference={"clip_frames": 10, "overlap_frames": 5, "short_side_px": None},  # native, all frames
    fps=17.0 / 5,
)
