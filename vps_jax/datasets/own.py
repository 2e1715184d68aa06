"""A user's own data: a data set made of a class file, a form and a few patterns, without any code."""

import functools
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from vps_jax.datasets import coco_tracks, instance_json, own_labels, panoptic_json, spec
from vps_jax.datasets.class_file import ClassFile
from vps_jax.datasets.labels import panoptic_code
from vps_jax.datasets.tree_patterns import files_of, globbed, number_of
from vps_jax.types import UserError

FRAMES, LABELS = "frames/{split}/{video}/{frame}", "labels/{split}/{video}/{frame}.png"
OBJECTS, JSON = "instances/{split}/{video}/{frame}.png", "{split}.json"


class Form(NamedTuple):
    """How labels are written.

    Attributes:
      videos: (root, split, own) -> videos.
      read_label: of `DatasetSpec`.
      needs: which of a set's patterns a root must fit.
      truth: of `DatasetSpec`.
      metrics: of a set with things; without things those that need no objects.
    """

    videos: Callable
    read_label: Callable
    needs: tuple[str, ...]
    truth: str
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Own:
    """What a user says of his data.

    Attributes:
      classes: the class file.
      form: one of `FORMS`.
      frames, labels, instances: patterns of images, label PNGs and object PNGs below the root.
      annotations: pattern of the json of a split, for the forms that have one.
      max_gap: a larger step between the numbers of two frames cuts a video in two; None: none does.
    """

    classes: ClassFile
    form: str = "index"
    frames: str = FRAMES
    labels: str = LABELS
    instances: str = OBJECTS
    annotations: str = JSON
    max_gap: int | None = None

    def __post_init__(self):
        if self.form not in FORMS:
            raise UserError(f"--format {self.form!r}; expected one of {', '.join(FORMS)}")
        for key in ("frames", "labels", "instances", "annotations"):
            pattern = getattr(self, key)
            if not pattern or pathlib.PurePath(pattern).is_absolute() or ".." in pathlib.PurePath(pattern).parts:
                raise UserError(f"--{key} {pattern!r}; expected a pattern below --source, such as {FRAMES!r}")
        if "{frame}" not in self.frames:
            raise UserError(f"--frames {self.frames!r} has no {{frame}}; expected a pattern such as {FRAMES!r}")


def specification(own: Own) -> spec.DatasetSpec:
    """The data set that a user describes."""
    form, classes = FORMS[own.form], own.classes.classes
    needs = tuple(globbed(getattr(own, key)) for key in form.needs)
    layout = spec.Layout(
        own.form,
        tuple(need if pathlib.PurePath(need).suffix else f"{need}.*" for need in needs),
        functools.partial(splits, own=own),
        functools.partial(form.videos, own=own),
        truth=above(getattr(own, form.needs[-1])),
    )
    things = bool(classes.thing_ids)
    return spec.DatasetSpec(
        name=own.classes.name,
        title=own.classes.name,
        classes=classes,
        labels=panoptic_code(classes),
        layouts=(layout,),
        read_label=form.read_label,
        scan=own_labels.scan_maps,
        truth=form.truth,
        writer="vps_jax.media.result_folders:VipsegWriter",
        metrics=form.metrics if things else ("miou", "vc"),
        sparse=True,
    )


def above(pattern: str) -> str:
    """The folder or file of a pattern that tells a split: its parts up to the first with a video or frame."""
    parts = pathlib.PurePosixPath(pattern).parts
    return "/".join(parts[: next((i for i, p in enumerate(parts) if "{video}" in p or "{frame}" in p), len(parts))])


def splits(root: pathlib.Path, own: Own) -> tuple[str, ...]:
    """Splits with frames."""
    if "{split}" not in own.frames and "{split}" not in getattr(own, FORMS[own.form].needs[-1]):
        return ("train",)
    return tuple(split for split in spec.SPLITS if frames_of(root, split, own))


def frames_of(root: pathlib.Path, split: str, own: Own) -> dict[tuple[str, str], pathlib.Path]:
    """Images of a split by video and frame."""
    return files_of(root, own.frames, split, spec.FRAME_SUFFIXES)


def videos_of(
    frames: dict[tuple[str, str], pathlib.Path], max_gap: int | None = None
) -> dict[str, list[tuple[tuple[str, str], pathlib.Path]]]:
    """Frames of every video; a video that is cut goes on under the name `<video>-<frame>`."""
    found: dict[str, list] = {}
    name, video, last = "", None, None
    for key, path in frames.items():
        number = number_of(key[1])
        cut = max_gap is not None and None not in (number, last) and number - last > max_gap
        if key[0] != video:
            name = key[0]
        elif cut:
            name = f"{key[0]}-{key[1]}"
        video, last = key[0], number
        found.setdefault(name, []).append((key, path))
    return found


def map_videos(root: pathlib.Path, split: str, own: Own) -> list[spec.VideoFiles]:
    """Videos with class maps, and with object maps where there are some."""
    labels = files_of(root, own.labels, split, (".png",))
    objects = files_of(root, own.instances, split, (".png",))
    table = root / "labelmap.txt"
    colors = own_labels.label_map(table, own.classes) if own.form == "palette" and table.is_file() else ()
    found = []
    for name, rows in videos_of(frames_of(root, split, own), own.max_gap).items():
        keys, images = zip(*rows, strict=True)
        notes = own_labels.MapNotes(tuple(objects.get(key) for key in keys), own.classes, colors)
        found.append(spec.VideoFiles(name, images, tuple(labels.get(key) for key in keys), notes))
    return found if labels else [video._replace(masks=None, notes=None) for video in found]


def panoptic_videos(root: pathlib.Path, split: str, own: Own) -> list[spec.VideoFiles]:
    """Videos with RGB segment ids and a json; a split without a json has no labels."""
    source = root / own.annotations.format(split=split)
    segments = own_labels.read_panoptic(source) if source.is_file() else None
    labels = files_of(root, own.labels, split, (".png",))
    found = []
    for name, rows in videos_of(frames_of(root, split, own), own.max_gap).items():
        keys, images = zip(*rows, strict=True)
        if segments is None:
            found.append(spec.VideoFiles(name, images, None))
            continue
        notes = own_labels.numbered([segments.get(key) for key in keys], own.classes, f"{source}: video {name}")
        masks = tuple(labels.get(key) if key in segments else None for key in keys)
        found.append(spec.VideoFiles(name, images, masks, notes))
    return found


def track_videos(root: pathlib.Path, split: str, own: Own) -> list[spec.VideoFiles]:
    """Videos of a json of YouTube-VIS' form or of COCO's; its file names are below the folder of the split's frames."""
    source = root / own.annotations.format(split=split)
    folder = root / above(own.frames).format(split=split)
    if not source.is_file():
        rows = videos_of(frames_of(root, split, own))
        return [spec.VideoFiles(name, tuple(path for _, path in row), None) for name, row in rows.items()]
    if own.form == "ytvis":
        return instance_json.read_videos(source, own.classes.classes, lambda file: folder / file)
    content = coco_tracks.as_youtube_vis(panoptic_json.load_json(source), source)
    found = instance_json.read_videos(source, own.classes.classes, lambda file: folder / file, content)
    names = [str(pathlib.PurePosixPath(head["id"]).with_suffix("")) for head in content["videos"]]
    return [video._replace(name=name) for video, name in zip(found, names, strict=True)]


PANOPTIC = ("vpq", "stq", "pq", "miou", "vc")
FORMS = {
    "index": Form(
        map_videos, own_labels.read_maps, ("frames", "labels"), "vps_jax.evaluation.mask_folders", PANOPTIC
    ),
    "palette": Form(
        map_videos, own_labels.read_maps, ("frames", "labels"), "vps_jax.evaluation.mask_folders", PANOPTIC
    ),
    "panoptic-video": Form(
        panoptic_videos, own_labels.read_rgb_ids, ("frames", "labels", "annotations"),
        "vps_jax.evaluation.mask_folders", PANOPTIC,
    ),
    "ytvis": Form(
        track_videos, instance_json.read_label, ("frames", "annotations"), "vps_jax.evaluation.ytvis_folders", ("ap",)
    ),
    # a COCO json is not what the reader of YouTube-VIS' truth takes
    "coco": Form(track_videos, instance_json.read_label, ("frames", "annotations"), "", ("ap",)),
}  # fmt: skip
