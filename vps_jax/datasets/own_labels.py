"""Labels of a user's own data: class maps with or without object maps, and RGB segment ids with a json."""

import functools
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vps_jax.datasets import numbering
from vps_jax.datasets.class_file import ClassFile
from vps_jax.datasets.json_fields import FILE, ID, LIST, by_id, checked, load_json, rows_of, shown
from vps_jax.datasets.label_files import BadFrame, StrayValues, png_kind, read_mask, read_rgb
from vps_jax.datasets.labels import VALUES
from vps_jax.datasets.panoptic_json import ANNOTATION, IMAGE
from vps_jax.datasets.spec import LabelMap, VideoFiles
from vps_jax.files import read_lines
from vps_jax.types import UserError

PER_CLASS = 1000  # Cityscapes' form: class * 1000 + object
VOID, UNKNOWN = -1, -2
BACKGROUND = "background"  # the name that CVAT gives to pixels without a label
RGB = (2, 6)  # colour types of the PNG header
TO_ID = np.array([1, 256, 65536])
UNLISTED = "not in the class file; add it to its classes or to void"
BEYOND = "objects beyond 255 of their class"


class MapNotes(NamedTuple):
    """What class maps need beside their files.

    Attributes:
      objects: the object map of every frame, or None.
      classes: the class file.
      colors: RGB id -> label value, for maps that are colour pictures; empty for others.
      values: label value of every wide value of the video, see `numbering`.
      told: counts for the report, told with the first labelled frame.
    """

    objects: tuple[pathlib.Path | None, ...]
    classes: ClassFile
    colors: tuple[tuple[int, int], ...] = ()
    values: Mapping[int, int] = {}
    told: tuple[tuple[str, int], ...] = ()


@functools.cache
def meaning(classes: ClassFile) -> tuple[np.ndarray, np.ndarray]:
    """Class and object number of all label values, both int64 `[65536]`; the class may be VOID or UNKNOWN."""
    category, number = np.full(VALUES, UNKNOWN), np.zeros(VALUES, np.int64)
    official = classes.classes.official_ids
    for c in classes.classes.thing_ids:
        own = slice(official[c] * PER_CLASS, official[c] * PER_CLASS + PER_CLASS)
        if own.start:
            category[own], number[own] = c, 1 + np.arange(PER_CLASS)[: len(category[own])]
    for c, value in enumerate(official):
        if value < VALUES:
            category[value], number[value] = c, 0
    category[[value for value in classes.void if value < VALUES]] = VOID
    return category, number


def wide_values(video: VideoFiles, index: int) -> np.ndarray:
    """class * 65536 + object int64 `[h, w]` of one frame, -1 for void.

    Raises:
      BadFrame: a map cannot be read, has a value that the class file does not know, or the two differ in size.
    """
    path, notes = video.masks[index], video.notes
    mask = of_colors(path, dict(notes.colors)) if notes.colors and png_kind(path)[1] in RGB else read_mask(path)
    category, number = (table[mask] for table in meaning(notes.classes))
    if (category == UNKNOWN).any():
        values, counts = (row.tolist() for row in np.unique(mask[category == UNKNOWN], return_counts=True))
        names = [f"value {value}" for value in values]
        raise StrayValues(path, dict(zip(names, counts, strict=True)), UNLISTED)
    if notes.objects[index] is not None:
        number = read_mask(notes.objects[index]).astype(np.int64)
        if number.shape != category.shape:
            size, own = (f"{shape[1]}x{shape[0]}" for shape in (category.shape, number.shape))
            raise BadFrame(f"{notes.objects[index]}: object map is {own}, expected {size} as {path.name} of the labels")
    return np.where(category == VOID, -1, category * numbering.WIDE + number)


def of_colors(path: pathlib.Path, colors: Mapping[int, int]) -> np.ndarray:
    """Label values `[h, w]` of a colour picture.

    Raises:
      BadFrame: it shows a colour that the label map does not list.
    """
    ids = read_rgb(path).astype(np.int64) @ TO_ID
    found, place, counts = np.unique(ids, return_inverse=True, return_counts=True)
    rows = zip(found.tolist(), counts.tolist(), strict=True)
    unknown = {f"color {rgb_of(one)}": count for one, count in rows if one not in colors}
    if unknown:
        raise StrayValues(path, unknown, "not in labelmap.txt; expected the label map of this export")
    return np.array([colors[one] for one in found.tolist()])[place].reshape(ids.shape)


def rgb_of(number: int) -> list[int]:
    """Red, green and blue of an RGB id."""
    return [number % 256, number // 256 % 256, number // 65536]


def label_map(path: pathlib.Path, classes: ClassFile) -> tuple[tuple[int, int], ...]:
    """RGB id -> label value of a `labelmap.txt` of CVAT (`name:r,g,b:parts:actions`), by the names of the class file.

    Names that are no class are void, which needs a void value in the class file, and are told in a warning.

    Raises:
      UserError: a line is of another form, two names share a colour, or void has no value.
    """
    values = {name.casefold(): v for name, v in zip(classes.classes.names, classes.classes.official_ids, strict=True)}
    by_color: dict[int, int] = {}
    foreign: list[str] = []
    for line in read_lines(path):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        levels = rest.partition(":")[0].split(",")
        if len(levels) != 3 or not all(level.strip().isdigit() for level in levels):
            raise UserError(f"{path}: line {line!r}; expected name:red,green,blue:: as CVAT writes it")
        color = int(np.array([int(level) for level in levels]) @ TO_ID)
        if color in by_color:
            raise UserError(f"{path}: {name!r} has the color of an earlier label; expected one color each")
        if name.casefold() not in values and not classes.void:
            raise UserError(f"{path}: {name!r} is no class of the class file; add it there, or give a void value")
        if name.casefold() not in (*values, BACKGROUND):
            foreign.append(name)
        by_color[color] = values[name.casefold()] if name.casefold() in values else classes.void[0]
    if foreign:
        warnings.warn(f"{path}: {', '.join(foreign)}: no class of the class file, so void", stacklevel=2)
    return tuple(by_color.items())


def scan_maps(video: VideoFiles) -> VideoFiles:
    """Numbers of all objects of a video; a map that cannot be read is named when its frame is."""
    if not isinstance(video.notes, MapNotes):
        return video
    seen: set[int] = set()
    for i, mask in enumerate(video.masks or ()):
        try:
            seen |= set(np.unique(wide_values(video, i)).tolist()) if mask is not None else set()
        except BadFrame:
            continue
    things = video.notes.classes.classes.thing_ids
    return video._replace(notes=video.notes._replace(values=numbering.renumber(seen, things)))


def read_maps(video: VideoFiles, index: int) -> LabelMap:
    """Labels of one frame of class maps."""
    values, things = video.notes.values, video.notes.classes.classes.thing_ids
    findings = told_once(video, index, numbering.beyond(values, things))
    return LabelMap(numbering.look_up(wide_values(video, index), values), findings=findings)


def told_once(video: VideoFiles, index: int, beyond: int) -> dict[str, int]:
    """What a video tells with its first labelled frame alone, such as how many objects found no number."""
    first = next(i for i, mask in enumerate(video.masks) if mask is not None)
    if index != first:
        return {}
    return ({BEYOND: beyond} if beyond else {}) | dict(video.notes.told)


Segments = dict[tuple[str, str], list[dict]]  # by video and frame


def read_panoptic(path: pathlib.Path) -> Segments:
    """Rows `segments_info` of every frame, of VIPSeg's form (annotations of a video) or COCO's (of an image).

    An image's video is the folder in its file name; one without a folder is a video of its own.

    Raises:
      UserError: the json breaks a rule of its form.
    """
    content = load_json(path)
    rows = rows_of(content, "annotations", {}, path)
    if all("annotations" in row for row in rows):
        return of_videos(content, path)
    images = by_id(rows_of(content, "images", IMAGE, path), "images", path)
    annotations = rows_of(content, "annotations", ANNOTATION, path)
    by_id(annotations, "annotations", path, "image_id")
    segments: Segments = {}
    for i, row in enumerate(annotations):
        if row["image_id"] not in images:
            raise UserError(f"{path}: annotations[{i}] has image_id {row['image_id']!r}, which no image has")
        name = pathlib.PurePosixPath(images[row["image_id"]]["file_name"])
        put(segments, (name.parent.name or name.stem, name.stem), row["segments_info"], f"{path}: annotations[{i}]")
    return segments


def of_videos(content: Mapping, path: pathlib.Path) -> Segments:
    """`read_panoptic` of annotations of videos.

    Raises:
      UserError: a rule of the form is broken, or a video or frame is there twice.
    """
    segments: Segments = {}
    rows = rows_of(content, "annotations", {"video_id": ID, "annotations": LIST}, path)
    by_id(rows, "annotations", path, "video_id")
    for i, row in enumerate(rows):
        own = f"{path}: annotations[{i}] of {row['video_id']!r}"
        for frame in rows_of(row, "annotations", {"file_name": FILE, "segments_info": LIST}, own):
            key = str(row["video_id"]), pathlib.PurePosixPath(frame["file_name"]).stem
            put(segments, key, frame["segments_info"], own)
    return segments


def put(segments: Segments, key: tuple[str, str], rows: list[dict], where: str) -> None:
    """Keep the segments of a frame.

    Raises:
      UserError: it has some already.
    """
    if key in segments:
        raise UserError(f"{where}: frame {key[1]!r} of video {key[0]!r} is there twice; expected every frame once")
    segments[key] = rows


class SegmentNotes(NamedTuple):
    """What RGB segment ids need beside their files.

    Attributes:
      frames: of every frame, pairs of a segment's id and its label value.
      beyond: how many objects of the video found no number.
      told: counts for the report, told with the first labelled frame.
    """

    frames: tuple[tuple[tuple[int, int], ...], ...]
    beyond: int = 0
    told: tuple[tuple[str, int], ...] = ()


def numbered(frames: list[list[dict] | None], classes: ClassFile, where: str) -> SegmentNotes:
    """Label values of the segments of a video; an id is one object through it.

    Raises:
      UserError: a segment has no id or category, or a category that the class file does not know.
    """
    index = {value: c for c, value in enumerate(classes.classes.official_ids)}
    rows = [pairs_of(frame or (), index, classes.void, where) for frame in frames]
    rank = {number: i for i, number in enumerate(sorted({number for frame in rows for number, _ in frame}), start=1)}
    wide = {(n, c): c * numbering.WIDE + rank[n] for frame in rows for n, c in frame if c != VOID}
    things = classes.classes.thing_ids
    values = numbering.renumber(wide.values(), things)
    pairs = tuple(tuple((n, values[wide[n, c]] if c != VOID else 0) for n, c in frame) for frame in rows)
    return SegmentNotes(pairs, numbering.beyond(values, things))


def pairs_of(rows: Sequence[Any], index: Mapping[int, int], void: tuple[int, ...], where: str) -> list[tuple[int, int]]:
    """Id and class of every segment of a frame.

    Raises:
      UserError: as of `numbered`, or an id is there twice.
    """
    pairs = [pair_of(row, index, void, where) for row in rows]
    seen: set[int] = set()
    for number, _ in pairs:
        if number in seen:
            raise UserError(f"{where}: segment id {number} stands in segments_info of a frame twice; expected one each")
        seen.add(number)
    return pairs


def pair_of(row: Any, index: Mapping[int, int], void: tuple[int, ...], where: str) -> tuple[int, int]:
    """Id and class of one segment.

    Raises:
      UserError: as of `numbered`.
    """
    if not isinstance(row, dict) or not {"id", "category_id"} <= row.keys():
        raise UserError(f"{where}: segment {shown(row)}; expected id and category_id")
    if type(row["id"]) is not int or not 0 < row["id"] < 1 << 24:
        raise UserError(f"{where}: segment id {shown(row['id'])}; expected R + 256 G + 65536 B, 1..16777215")
    checked(row["category_id"], ID, f"{where}: category_id of segment {row['id']}")
    if row["category_id"] not in index and row["category_id"] not in void:
        raise UserError(
            f"{where}: segment {row['id']} has category {row['category_id']!r}, which is not in the class file; "
            "add it to its classes or to void"
        )
    return row["id"], index.get(row["category_id"], VOID)


def read_rgb_ids(video: VideoFiles, index: int) -> LabelMap:
    """Labels of one frame of RGB segment ids; ids that the json does not list are void."""
    ids = read_rgb(video.masks[index]).astype(np.int64) @ TO_ID
    values = {0: 0, **dict(video.notes.frames[index])}
    present = np.unique(ids)
    strays = {
        "ids in a PNG that its json does not list": np.setdiff1d(present, list(values)).size,
        "ids in a json that its PNG does not show": np.setdiff1d(list(values)[1:], present).size,
    }
    findings = {words: int(count) for words, count in strays.items() if count}
    findings |= told_once(video, index, video.notes.beyond)
    return LabelMap(numbering.look_up(ids, values), findings=findings)
