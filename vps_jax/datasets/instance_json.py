"""The YouTube-VIS form: one json per split with a run-length code per track and frame (spec: data_sets 5, 6)."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vps_jax.datasets import rle
from vps_jax.datasets.classes import ClassTable
from vps_jax.datasets.json_fields import (
    ID,
    LIST,
    PIXELS,
    by_id,
    categories_of,
    file_list,
    load_json,
    refuse_double_ids,
    rows_of,
    shown,
)
from vps_jax.datasets.label_files import BadFrame
from vps_jax.datasets.labels import MOST_INSTANCES, panoptic_value
from vps_jax.datasets.panoptic_json import check_categories
from vps_jax.datasets.spec import LabelMap, VideoFiles
from vps_jax.types import UserError

# what the published settings of both data sets share
INFERENCE = {
    "task": "instance", "clip_frames": 12, "overlap_frames": 6, "score_threshold": 0.0, "max_tracks_per_clip": 10,
    "max_instances": 10,
}  # fmt: skip
MASKLESS = "annotations without a mask, left out"

VIDEO = {"id": ID, "width": PIXELS, "height": PIXELS, "file_names": LIST}
TRACK = {"video_id": ID, "category_id": ID, "segmentations": LIST}


class Tracks(NamedTuple):
    """Tracks of one video.

    Attributes:
      size: (height, width) of its masks.
      values: label value of every track.
      codes: of every track, the run-length code of each frame, or None.
      findings: counts for the report.
      source, video: the json and the video in it, for messages.
      first_combination: value of the first combination of overlapping masks.
      least_area: pixels below which a mask is left out of its frame.
    """

    size: tuple[int, int]
    values: tuple[int, ...]
    codes: tuple[tuple[Any, ...], ...]
    findings: tuple[tuple[str, int], ...]
    source: pathlib.Path
    video: str
    first_combination: int
    least_area: int = 0


def read_videos(
    path: pathlib.Path,
    classes: ClassTable,
    image_of: Callable[[str], pathlib.Path],
    content: Mapping | None = None,
    unknown: str = "which is no official id",
) -> list[VideoFiles]:
    """The videos of a json in its order; without annotations (missing, null or empty) they have no labels.

    A track's instance number counts from 1 per video and class, in the json's order; annotations without a mask are no
    tracks.

    Args:
      path: the json.
      classes: its categories are matched by the official ids.
      image_of: entry of `file_names` -> image file.
      content: what the json holds, if that is known.
      unknown: what a message says of a category that is none.

    Raises:
      UserError: the json breaks a rule of the form.
    """
    content = load_json(path) if content is None else content
    videos = by_id(rows_of(content, "videos", VIDEO, path), "videos", path)
    check_categories(content, classes, path)
    check_names(content, classes, path)
    rows = None
    if content.get("annotations"):
        rows = rows_of(content, "annotations", TRACK, path, may={"id": ID})
        refuse_double_ids(rows, "annotations", path)
        refuse_boxes(rows, path)
    by_video: dict[Any, list[dict]] = {number: [] for number in videos}
    for i, row in enumerate(rows or ()):
        if row["video_id"] not in videos:
            raise UserError(f"{path}: annotations[{i}] has video_id {row['video_id']!r}, which no video has")
        by_video[row["video_id"]].append(row)
    found = []
    for number, video in videos.items():
        own = f"video {number!r}"
        names = file_list(video["file_names"], f"{path}: {own}: file_names")
        images = tuple(image_of(name) for name in names)
        name = str(pathlib.PurePosixPath(names[0]).parent)
        tracks = tracks_of(by_video[number], video, classes, path, own, unknown) if rows is not None else None
        there = [i for i, image in enumerate(images) if image.exists()]
        if not there:
            found.append(VideoFiles(name, (), None))
        else:
            found.append(VideoFiles(name, *kept(images, tracks, there), number=number))
    return found


def without_mask(masks: Sequence[Any]) -> int:
    """How many annotations of a track have no mask; null says that the track is not seen, which is no fault."""
    return sum(mask is not None and not mask for mask in masks) or int(not any(masks))


def refuse_boxes(rows: list[dict], path: pathlib.Path) -> None:
    """Raises UserError when no annotation has a mask."""
    if not any(any(row["segmentations"]) for row in rows):
        raise UserError(
            f"{path}: none of {len(rows)} annotations has a mask; expected masks, boxes cannot be trained on"
        )


def check_names(content: Mapping, classes: ClassTable, path: pathlib.Path) -> None:
    """Raises UserError when most categories have other names: two editions number different classes alike."""
    names = dict(zip(classes.official_ids, (name.casefold() for name in classes.names), strict=True))
    rows = [row for row in categories_of(content, path) if "name" in row and row.get("id") in names]
    other = [row for row in rows if names[row["id"]] != str(row["name"]).casefold()]
    if 2 * len(other) > len(rows):
        found, expected = other[0]["name"], classes.names[classes.official_ids.index(other[0]["id"])]
        raise UserError(
            f"{path}: category {other[0]['id']} is {found!r}, expected {expected!r}; is this another edition?"
        )


def missing_images(path: pathlib.Path, image_of: Callable[[str], pathlib.Path], videos: Sequence[Mapping]) -> list[str]:
    """A line for the images that a json lists and that are not there, or none.

    Args:
      path: the json.
      image_of: entry of `file_names` -> image file.
      videos: rows of the json, as `read_videos` takes them.
    """
    missing = [image for video in videos for name in video["file_names"] if not (image := image_of(name)).exists()]
    return [f"{path}: {len(missing)} listed images are not there, first {missing[0]}"] if missing else []


def kept(images: Sequence[pathlib.Path], tracks: Tracks | None, there: list[int]) -> tuple:
    """Images that exist, no mask files, and the tracks in them."""
    if tracks is not None:
        codes = tuple(tuple(track[i] for i in there) for track in tracks.codes)
        missing = (("listed images that are not there", len(images) - len(there)),) if len(there) < len(images) else ()
        tracks = tracks._replace(codes=codes, findings=tracks.findings + missing)
    return tuple(images[i] for i in there), None, tracks


def tracks_of(
    rows: list[dict], video: Mapping, classes: ClassTable, source: pathlib.Path, name: str, unknown: str
) -> Tracks:
    """Tracks of one video.

    Raises:
      UserError: a category that is none, or another number of masks than frames.
    """
    index = {number: c for c, number in enumerate(classes.official_ids)}
    frames, values, codes, seen, crowd, beyond, empty = len(video["file_names"]), [], [], {}, 0, 0, 0
    for row in rows:
        own = f"{source}: {name}: track {row.get('id', len(values))!r}"
        category = index.get(row["category_id"])
        if category is None:
            raise UserError(f"{own} has category {row['category_id']!r}, {unknown}")
        masks = row["segmentations"]
        if len(masks) != frames:
            raise UserError(
                f"{own} has {len(masks)} segmentations for {frames} file_names; expected one or null per frame"
            )
        crowd += bool(row.get("iscrowd"))
        empty += without_mask(masks)
        if not any(masks):
            continue
        seen[category] = seen.get(category, 0) + 1
        beyond += seen[category] > MOST_INSTANCES
        values.append(panoptic_value(category, seen[category] if seen[category] <= MOST_INSTANCES else 0))
        codes.append(tuple(mask or None for mask in masks))
    findings = (("crowd tracks", crowd), (MASKLESS, empty), ("objects beyond 255 of their class", beyond))
    size = int(video["height"]), int(video["width"])
    first = panoptic_value(len(classes.names), 0)
    return Tracks(size, tuple(values), tuple(codes), tuple(f for f in findings if f[1]), source, name, first)


def read_label(video: VideoFiles, index: int) -> LabelMap:
    """Labels of one frame; pixels of several masks name their combination."""
    tracks: Tracks = video.notes
    where = f"{tracks.source}: {tracks.video}, {video.images[index].name}"
    masks = [decode(track[index], tracks.size, where) if track[index] is not None else None for track in tracks.codes]
    shown = [(value, mask) for value, mask in zip(tracks.values, masks, strict=True) if mask is not None]
    large = [(value, mask) for value, mask in shown if mask.sum() >= tracks.least_area]
    labels = combined(large, tracks.size, tracks.first_combination)
    findings = dict(tracks.findings) if index == 0 else {}
    if len(large) < len(shown):
        findings[f"masks under {tracks.least_area} pixels, left out"] = len(shown) - len(large)
    return labels._replace(findings=labels.findings | findings)


def decode(code: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """A mask bool `[h, w]` of `{"counts", "size"}` with counts as list or text, of the text alone, or of polygons.

    Raises:
      BadFrame: it is no such code, or of another size.
    """
    if isinstance(code, list) and code and isinstance(code[0], list):
        return of_polygons(code, size, where)
    counts = code.get("counts") if isinstance(code, dict) else code
    own = code["size"] if isinstance(code, dict) and "size" in code else size
    if not isinstance(own, list | tuple) or len(own) != 2 or not all(PIXELS.fits(side) for side in own):
        raise BadFrame(f"{where}: the size of a mask is {shown(own)}; expected height and width in pixels")
    if tuple(own) != tuple(size):
        raise BadFrame(f"{where}: mask is {own[1]}x{own[0]}, expected {size[1]}x{size[0]} as the json says")
    try:
        return rle.to_mask(rle.parse_counts(counts), *size)
    except ValueError as error:
        raise BadFrame(f"{where}: a mask cannot be read ({error}); expected run lengths that fill the frame") from None


def of_polygons(polygons: list[list[float]], size: tuple[int, int], where: str) -> np.ndarray:
    """A mask bool `[h, w]` of the pixels whose centre lies in one of the polygons `[x, y, x, y, ...]`.

    Raises:
      BadFrame: one is no list of at least three points.
    """
    mask = np.zeros(size, bool)
    centers = np.arange(size[0]) + 0.5
    for polygon in polygons:
        good = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        if not good or not all(isinstance(v, int | float) and np.isfinite(v) for v in polygon):
            raise BadFrame(f"{where}: a polygon cannot be read; expected x, y of three points or more")
        points = np.array(polygon, np.float64).reshape(-1, 2)
        crossings = np.zeros((size[0], size[1] + 1), np.int64)  # a pixel is inside after an odd number of them
        for (x, y), (to_x, to_y) in zip(points, np.roll(points, -1, axis=0), strict=True):
            rows = np.flatnonzero((centers >= min(y, to_y)) & (centers < max(y, to_y)))
            at = x + (centers[rows] - y) * (to_x - x) / (to_y - y) if len(rows) else rows
            crossings[rows, np.clip(np.ceil(at - 0.5), 0, size[1]).astype(np.int64)] += 1
        mask |= np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return mask


def combined(shown: Sequence[tuple[int, np.ndarray]], size: tuple[int, int], first_combination: int) -> LabelMap:
    """Label values of masks that may overlap.

    Args:
      shown: (label value, bool `[h, w]`) of every mask.
      size: (height, width).
      first_combination: value of the first combination.
    """
    values, combinations = np.zeros(size, np.int64), []
    covered = sum((mask.astype(np.int32) for _, mask in shown), np.zeros(size, np.int32))
    for value, mask in shown:
        values[mask] = value
    overlap = covered > 1
    if overlap.any():
        keys = np.stack([mask[overlap] for _, mask in shown], axis=-1)  # [pixels, masks]
        rows, place = np.unique(keys, axis=0, return_inverse=True)
        # masks of one value (objects beyond the 255th) are no combination
        members = [tuple(dict.fromkeys(v for (v, _), there in zip(shown, row, strict=True) if there)) for row in rows]
        combinations = list(dict.fromkeys(m for m in members if len(m) > 1))
        codes = [first_combination + combinations.index(m) if len(m) > 1 else m[0] for m in members]
        values[overlap] = np.array(codes)[place.ravel()]
    findings = {"pixels of more than one mask": int(overlap.sum())} if overlap.any() else {}
    return LabelMap(values.astype(np.uint16), tuple(combinations), findings)
