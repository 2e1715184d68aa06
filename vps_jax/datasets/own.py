"""A user's own data: a data set made of a class file, a form and a few patterns, without any code."""

import functools
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vps_jax.datasets import coco_tracks, instance_json, json_fields, own_labels, own_strays, spec
from vps_jax.datasets.class_file import ClassFile
from vps_jax.datasets.classes import ClassTable
from vps_jax.datasets.labels import class_of, panoptic_code
from vps_jax.datasets.tree_patterns import above, files_of, globbed, number_of
from vps_jax.types import UserError

FRAMES, LABELS = "frames/{split}/{video}/{frame}", "labels/{split}/{video}/{frame}.png"
OBJECTS, JSON = "instances/{split}/{video}/{frame}.png", "{split}.json"
WITHOUT_OBJECTS = "labelled frames without an object PNG, in videos that have some"


class Form(NamedTuple):
    """How labels are written.

    Attributes:
      videos: (root, split, own) -> videos.
      read_label: of `DatasetSpec`.
      needs: which of a set's patterns a root must fit.
      truth: of `DatasetSpec`.
      metrics: of a set with things; without things those that need no objects.
      writer: of `DatasetSpec`.
    """

    videos: Callable
    read_label: Callable
    needs: tuple[str, ...]
    truth: str
    metrics: tuple[str, ...]
    writer: str = "vps_jax.media.result_folders:VipsegWriter"


@dataclass(frozen=True)
class Own:
    """What a user says of his data.

    Attributes:
      classes: the class file.
      form: one of `FORMS`.
      frames, labels, instances: patterns of images, label PNGs and object PNGs below the root. Where the images are in
        video files, that of the frames may end with the video.
      annotations: pattern of the json of a split, for the forms that have one.
      max_gap: a larger step between the numbers of two frames cuts a video in two; None: none does.
      unpacked: folder below which the images are, if it is not the root: those of video files.
    """

    classes: ClassFile
    form: str = "index"
    frames: str = FRAMES
    labels: str = LABELS
    instances: str = OBJECTS
    annotations: str = JSON
    max_gap: int | None = None
    unpacked: str = ""

    def __post_init__(self):
        if self.form not in FORMS:
            raise UserError(f"--format {self.form!r}; expected one of {', '.join(FORMS)}")
        for key in ("frames", "labels", "instances", "annotations"):
            pattern = getattr(self, key)
            if not pattern or pathlib.PurePath(pattern).is_absolute() or ".." in pathlib.PurePath(pattern).parts:
                raise UserError(f"--{key} {pattern!r}; expected a pattern below --source, such as {FRAMES!r}")
        if not {"{frame}", "{video}"} & set(re.findall(r"{\w+}", self.frames)):
            raise UserError(f"--frames {self.frames!r} has no {{frame}}; expected a pattern such as {FRAMES!r}")
        if self.form in TRACKS and not self.classes.classes.thing_ids:  # as in jsons, which do not say it
            object.__setattr__(self, "classes", self.classes.of_things())


def require_objects(own: Own, root: pathlib.Path) -> None:
    """Raises UserError when the pattern of the object PNGs fits no file."""
    if not any(files_of(root, own.instances, split, (".png",)) for split in spec.SPLITS):
        raise UserError(
            f"--instances {own.instances!r} fits no PNG below {root}; expected a pattern such as {OBJECTS!r}: mend it, "
            "or leave it out"
        )


def specification(own: Own) -> spec.DatasetSpec:
    """The data set that a user describes."""
    form, classes = FORMS[own.form], own.classes.classes
    needs = tuple(globbed(getattr(own, key)) for key in form.needs if key != "frames" or not own.unpacked)
    layout = spec.Layout(
        own.form,
        tuple(need if pathlib.PurePath(need).suffix else f"{need}.*" for need in needs),
        functools.partial(splits, own=own),
        functools.partial(form.videos, own=own),
        truth=above(getattr(own, form.needs[-1])),
        strays=functools.partial(own_strays.strays, own=own, needs=form.needs, splits=splits),
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
        writer=form.writer,
        metrics=form.metrics if things else ("miou", "vc"),
        sparse=True,
    )


def splits(root: pathlib.Path, own: Own) -> tuple[str, ...]:
    """Splits with frames."""
    if "{split}" not in own.frames and "{split}" not in getattr(own, FORMS[own.form].needs[-1]):
        return ("train",)
    return tuple(split for split in spec.SPLITS if frames_of(root, split, own))


def frames_of(root: pathlib.Path, split: str, own: Own) -> dict[tuple[str, str], pathlib.Path]:
    """Images of a split by video and frame."""
    return files_of(pathlib.Path(own.unpacked or root), own.frames, split, spec.FRAME_SUFFIXES)


Frames = list[tuple[tuple[str, str], pathlib.Path]]  # ((video, frame), image)


def videos_of(frames: dict[tuple[str, str], pathlib.Path], max_gap: int | None = None) -> dict[str, Frames]:
    """Frames of every video; a video that is cut goes on under the name `<video>-<frame>`."""
    videos: dict[str, Frames] = {}
    for key, path in frames.items():
        videos.setdefault(key[0], []).append((key, path))
    found = {}
    for video, rows in videos.items():
        for part in parts([frame for (_, frame), _ in rows], max_gap):
            found[part_name(video, rows[part.start][0][1], part)] = rows[part]
    return found


def parts(frames: Sequence[str], max_gap: int | None) -> list[slice]:
    """Parts of a video, cut where the numbers of two frames that follow each other are further apart."""
    numbers = [number_of(frame) for frame in frames]
    pairs = enumerate(zip(numbers, numbers[1:], strict=False), start=1)
    cuts = [i for i, (a, b) in pairs if max_gap is not None and None not in (a, b) and b - a > max_gap]
    return [slice(start, stop) for start, stop in zip([0, *cuts], [*cuts, len(frames)], strict=True)]


def part_name(video: str, frame: str, part: slice) -> str:
    """The name of a part of a video, that begins with a frame."""
    return f"{video}-{frame}" if part.start else video


def map_videos(root: pathlib.Path, split: str, own: Own) -> list[spec.VideoFiles]:
    """Videos with class maps, and with object maps where there are some."""
    labels = files_of(root, own.labels, split, (".png",))
    objects = files_of(root, own.instances, split, (".png",))
    table = root / "labelmap.txt"
    colors = own_labels.label_map(table, own.classes) if own.form == "palette" and table.is_file() else ()
    found = []
    for name, rows in videos_of(frames_of(root, split, own), own.max_gap).items():
        keys, images = zip(*rows, strict=True)
        notes = own_labels.MapNotes(tuple(objects.get(key) for key in keys), own.classes.of_labels(), colors)
        found.append(spec.VideoFiles(name, images, tuple(labels.get(key) for key in keys), notes))
    found = with_told(found, unlabelled_files(split, own))
    return found if labels else [video._replace(masks=None, notes=None) for video in found]


def read_maps(video: spec.VideoFiles, index: int) -> spec.LabelMap:
    """Labels of one frame of class maps; an object map that only other frames of the video have is told."""
    labels, objects = own_labels.read_maps(video, index), video.notes.objects
    if objects[index] is not None or not any(objects):
        return labels
    return labels._replace(findings={**labels.findings, WITHOUT_OBJECTS: 1})


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
    return with_told(found, unlabelled_files(split, own)) if segments is not None else found


def unlabelled_files(split: str, own: Own) -> tuple[tuple[str, int], ...]:
    """A line of the report for video files of which no frame is unpacked, since none has a label."""
    folder = pathlib.Path(own.unpacked) / split
    folders = [path for path in spec.visible(folder) if path.is_dir()] if own.unpacked and folder.is_dir() else []
    empty = [path.name for path in folders if not spec.frame_files(path)]
    return ((f"video files without a label, such as {empty[0]}", len(empty)),) if empty else ()


def with_told(videos: list[spec.VideoFiles], told: tuple[tuple[str, int], ...]) -> list[spec.VideoFiles]:
    """The videos, of which the first one with a label tells a line of the report too."""
    first = next((i for i, video in enumerate(videos) if any(video.masks or ())), None)
    if told and first is not None:
        videos[first] = videos[first]._replace(notes=videos[first].notes._replace(told=told))
    return videos


def track_videos(root: pathlib.Path, split: str, own: Own) -> list[spec.VideoFiles]:
    """Videos of a json of YouTube-VIS' form or of COCO's; its file names are below the folder of the split's frames.

    They are numbered from 1; the json that `vps-jax data prepare` writes for scoring has the same numbers.
    """
    source = root / own.annotations.format(split=split)
    folder = pathlib.Path(own.unpacked or root) / above(own.frames).format(split=split)
    if not source.is_file():
        rows = videos_of(frames_of(root, split, own), own.max_gap)
        return [spec.VideoFiles(name, tuple(path for _, path in row), None) for name, row in rows.items()]
    content = json_fields.load_json(source)
    if own.form == "coco":
        content = coco_tracks.as_youtube_vis(content, source)
    found = instance_json.read_videos(
        source, own.classes.classes, lambda file: folder / file, content, f"which is {own_labels.UNLISTED}"
    )
    warn_of_names(content, own.classes.classes, source)
    if own.form == "coco":  # where an image without a folder is a video of its own
        names = [str(pathlib.PurePosixPath(head["id"]).with_suffix("")) for head in content["videos"]]
        found = [video._replace(name=name) for video, name in zip(found, names, strict=True)]
    for video in found:
        refuse_stuff(video, own.classes.classes)
    cut = [part for video in found for part in parts_of(video, own.max_gap)]
    return [video._replace(number=i) for i, video in enumerate(cut, start=1)]


def warn_of_names(content: Mapping, classes: ClassTable, source: pathlib.Path) -> None:
    """Warns of categories whose name in a json is another than in the class file; the numbers decide."""
    names = dict(zip(classes.official_ids, classes.names, strict=True))
    rows = [(row.get("id"), row.get("name")) for row in json_fields.categories_of(content, source)]
    other = [
        f"{number} is {name!r}, there {names[number]!r}"
        for number, name in rows
        if number in names and name is not None and str(name).casefold() != names[number].casefold()
    ]
    if other:
        told = "; ".join(other)
        warnings.warn(f"{source}: categories have other names than in the class file: {told}", stacklevel=2)


def refuse_stuff(video: spec.VideoFiles, classes: ClassTable) -> None:
    """Raises UserError for a track whose class is no thing."""
    shown = {class_of(value) for value in (video.notes.values if video.notes is not None else ())}
    for c in sorted(shown - set(classes.thing_ids)):
        raise UserError(
            f"{video.notes.source}: {video.notes.video} has tracks of {classes.names[c]!r}, which is no thing; "
            "expected thing: true in the class file"
        )


def parts_of(video: spec.VideoFiles, max_gap: int | None) -> Iterator[spec.VideoFiles]:
    """A video with tracks, cut where its frames are too far apart."""
    for part in parts([image.stem for image in video.images], max_gap) if video.images else [slice(0, 0)]:
        images, notes = video.images[part], video.notes
        if notes is not None:
            notes = notes._replace(codes=tuple(track[part] for track in notes.codes))
        name = part_name(video.name, images[0].stem, part) if images else video.name
        yield video._replace(name=name, images=images, notes=notes)


PANOPTIC = ("vpq", "stq", "pq", "miou", "vc")
TRACKS = ("ytvis", "coco")  # forms that say nothing of stuff
FORMS = {
    "index": Form(
        map_videos, read_maps, ("frames", "labels"), "vps_jax.evaluation.mask_folders", PANOPTIC
    ),
    "palette": Form(
        map_videos, read_maps, ("frames", "labels"), "vps_jax.evaluation.mask_folders", PANOPTIC
    ),
    "panoptic-video": Form(
        panoptic_videos, own_labels.read_rgb_ids, ("frames", "labels", "annotations"),
        "vps_jax.evaluation.mask_folders", PANOPTIC,
    ),
    **{
        name: Form(
            track_videos, instance_json.read_label, ("frames", "annotations"), "vps_jax.evaluation.ytvis_folders",
            ("ap",), "vps_jax.media.mask_lists:ytvis_writer",
        )
        for name in TRACKS
    },
}  # fmt: skip
