"""Files of a user's own data that nothing accounts for: a line for each kind, with the number and the first of them."""

import pathlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from vps_jax.datasets import coco_tracks, instance_json, json_fields, own_labels
from vps_jax.datasets.spec import FRAME_SUFFIXES, SPLITS, frame_files
from vps_jax.datasets.tree_patterns import Key, above, doubled, fitting, globbed
from vps_jax.files import visible

if TYPE_CHECKING:
    from vps_jax.datasets.own import Own

NAMES = {"labels": "labels", "instances": "object maps"}


def strays(
    root: pathlib.Path, split: str, own: "Own", needs: tuple[str, ...], splits: Callable[..., tuple[str, ...]]
) -> list[str]:
    """Lines of a split; with the first one come those of splits that have no frame where they are expected.

    Args:
      root: folder of the data.
      split: of `splits`.
      own: what the user says of his data.
      needs: patterns that the form of the labels uses.
      splits: (root, own) -> splits with frames.
    """
    have = splits(root, own)
    silent = [one for one in SPLITS if one not in have] if "{split}" in own.frames and split == have[0] else []
    return [line for one in (split, *silent) for line in of_split(root, one, own, needs)]


def of_split(root: pathlib.Path, split: str, own: "Own", needs: tuple[str, ...]) -> list[str]:
    """Lines of one split."""
    place = pathlib.Path(own.unpacked or root)
    images = fitting(place, own.frames, split, FRAME_SUFFIXES)
    lines = [
        f"{len(pairs)} frames of {split} have two images, first {pairs[0][0]} and {pairs[0][1].name}; expected one each"
        for pairs in [doubled(images)]
        if pairs
    ]
    keys = {key for key, _ in images}
    if not own.unpacked:
        lines += misplaced(root, split, own.frames, {path.parent for _, path in images})
    if "labels" in needs:
        for name, words in NAMES.items():
            lines += without_image(root, split, own.frames, getattr(own, name), keys, words)
    if "annotations" in needs and (source := root / own.annotations.format(split=split)).is_file():
        listed = unseen_frames if "labels" in needs else unseen_images
        lines += listed(root, place, split, own, source, keys)
    return lines


def told(paths: Iterable[pathlib.Path], words: str) -> list[str]:
    """A line for some files, or none."""
    paths = list(paths)
    return [f"{len(paths)} {words}, first {paths[0]}"] if paths else []


def misplaced(root: pathlib.Path, split: str, frames: str, used: set[pathlib.Path]) -> list[str]:
    """Lines for folders of videos that have no frame, and for images one folder further down."""
    parent = frames.rpartition("/")[0]
    folders = sorted(root.glob(globbed(parent, split))) if parent else []
    empty = [
        path
        for path in folders
        if path.is_dir() and path not in used and not any(p.startswith(".") for p in path.relative_to(root).parts)
    ]
    below = {path: [image for one in visible(path) if one.is_dir() for image in frame_files(one)] for path in empty}
    deep = [image for images in below.values() for image in images]
    lines = told(deep, f"images of {split} are one folder further down than --frames says")
    return lines + told((path for path in empty if not below[path]), f"folders of {split} have no frame")


def without_image(root: pathlib.Path, split: str, frames: str, pattern: str, keys: set[Key], words: str) -> list[str]:
    """A line for the files of a pattern whose image is not there."""
    if "{split}" in frames and "{split}" not in pattern:  # those of all splits are in one folder
        return []
    found = fitting(root, pattern, split, (".png",))
    return told((path for key, path in found if key not in keys), f"{words} of {split} have no image")


def unseen_frames(
    root: pathlib.Path, place: pathlib.Path, split: str, own: "Own", source: pathlib.Path, keys: set[Key]
) -> list[str]:
    """Lines for the frames of a json of segments that have no image, or no label."""
    labels = {key for key, _ in fitting(root, own.labels, split, (".png",))}
    listed = own_labels.read_panoptic(source)
    lines = []
    for there, words in ((keys, "image"), (labels, "label")):
        lines += told((pathlib.Path(*key) for key in listed if key not in there), f"frames of {source} have no {words}")
    return lines


def unseen_images(
    root: pathlib.Path, place: pathlib.Path, split: str, own: "Own", source: pathlib.Path, keys: set[Key]
) -> list[str]:
    """A line for the images of a json of tracks that are not there."""
    folder = place / above(own.frames).format(split=split)
    content = json_fields.load_json(source)
    if own.form == "coco":
        content = coco_tracks.as_youtube_vis(content, source)
    return instance_json.missing_images(source, lambda name: folder / name, content["videos"])
