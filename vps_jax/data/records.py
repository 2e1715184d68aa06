"""The only place that knows what a prepared record holds (written by `tfds_builders`)."""

import contextlib
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg

from tfds_builders.frames import whole
from vps_jax import datasets
from vps_jax.data.sample import looked_up, pixel_counts
from vps_jax.datasets import ClassTable, LabelCode
from vps_jax.datasets.labels import panoptic_value
from vps_jax.types import LAST_ID, UserError

MOST_COMBINATIONS = 32  # of overlapping instances in one clip


class Video(NamedTuple):
    """One row of the video table.

    Attributes:
      name: video id.
      stems: file name without suffix of every frame.
      size: `(height, width)` of the stored frames.
      first: record number of the first frame.
      instances: how many instances each frame shows, 9 for nine or more.
      combinations: label values of instances that overlap, see `datasets.spec.LabelMap`.
    """

    name: str
    stems: tuple[str, ...]
    size: tuple[int, int]
    first: int
    instances: tuple[int, ...]
    combinations: tuple[tuple[int, ...], ...] = ()


class BrokenRecord(UserError):
    """A stored frame that cannot be read."""


class Records(NamedTuple):
    """A prepared split.

    Attributes:
      source: random access to the records.
      videos: the video table.
      labels: what the label values mean.
      folder, split: where it lies.
      classes: the class list that the folder carries; None for one of an earlier version.
    """

    source: Any
    videos: tuple[Video, ...]
    labels: LabelCode
    folder: str
    split: str
    classes: ClassTable | None = None

    @property
    def overlapping(self) -> bool:
        """Whether instances of some video overlap."""
        return any(video.combinations for video in self.videos)


def open_records(path: str | pathlib.Path, split: str) -> Records:
    """Open a prepared data set.

    Args:
      path: the folder that `prepare` wrote, `<out>/<name>`, or the version folder below it.
      split: `train`, `val` or `test`.

    Raises:
      UserError: nothing prepared is there, or not that split.
    """
    import tensorflow_datasets as tfds

    folder = version_folder(pathlib.Path(path))
    builder = tfds.builder_from_directory(str(folder))
    if split not in builder.info.splits:
        have = ", ".join(builder.info.splits) or "none"
        raise UserError(f"{folder} has no split {split!r}; expected one of {have}: change the split or prepare again")
    skip = {"image": tfds.decode.SkipDecoding()}
    metadata = builder.info.metadata
    videos = tuple(
        Video(
            row["id"],
            tuple(row["stems"]),
            (row["height"], row["width"]),
            row["first"],
            tuple(map(int, row["instances"])),
            tuple(map(tuple, row.get("combinations", ()))),
        )
        for row in metadata[f"videos_{split}"]
    )
    source = builder.as_data_source(split, decoders=skip)
    classes = datasets.from_rows(metadata["classes"]) if "classes" in metadata else None
    return Records(source, videos, datasets.label_code(metadata["label_code"], classes), str(folder), split, classes)


def version_folder(path: pathlib.Path) -> pathlib.Path:
    """The folder with the records: `path` itself or its newest version."""
    if (path / "dataset_info.json").exists():
        return path
    versions = sorted(p.parent for p in path.glob("*/dataset_info.json"))
    if not versions:
        raise UserError(
            f"{path} holds no prepared data set; expected dataset_info.json in it or below: run "
            f"`vps-jax data prepare`, or leave the set out by data.without={path.name}"
        )
    return versions[-1]


def read_frame(records: Records, video: Video, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode one frame: image uint8 `[h, w, 3]` RGB and label values uint16 `[h, w]` (zeros without a label).

    Raises:
      BrokenRecord: file, image or label cannot be read; names file, video and frame.
    """
    number = video.first + index
    try:
        return decode_record(records.source[number])
    except (RuntimeError, ValueError, OSError, zlib.error, cv2.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise BrokenRecord(
            f"{file_of(records, number)}: video {video.name}, frame {video.stems[index]} (record {number}) cannot be "
            f"read: {reason}"
        ) from error


def file_of(records: Records, number: int) -> str:
    """Path of the file that holds a record."""
    for part in records.source.dataset_info.splits[records.split].file_instructions:
        if number < part.examples_in_shard:
            return str(part.filename)
        number -= part.examples_in_shard
    return records.folder


def decode_record(record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Image and label values of a record; ValueError or zlib.error if one of them is broken."""
    if not record["image"]:
        raise ValueError("the record is empty")  # what a file that is cut may give
    image = decode_image(record["image"])
    if image is None or not whole(record["image"]):
        raise ValueError("the image cannot be decoded")
    if not record["label"]:
        return image, np.zeros(image.shape[:2], np.uint16)
    return image, decode_label(record["label"], (record["height"], record["width"]))


def decode_label(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Label values uint16 `[h, w]`."""
    return np.frombuffer(zlib.decompress(data), "<u2").reshape(size)


def decode_image(data: bytes) -> np.ndarray | None:
    """uint8 `[h, w, 3]` RGB, or None when the bytes are no image."""
    if data.startswith(b"\xff\xd8"):
        with contextlib.suppress(ValueError):  # colours that it does not convert
            return simplejpeg.decode_jpeg(data, "RGB")  # the same pixels in four fifths of the time
    # masks lie on the stored raster, so images stay on it too; the published loaders turn an image by its EXIF tag
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def combinations_of(records: Records, video: Video) -> dict[int, tuple[int, ...]]:
    """Label value of every combination of overlapping instances of a video -> their label values."""
    if not video.combinations:
        return {}
    first = panoptic_value(len(records.classes.names), 0)
    return {first + j: members for j, members in enumerate(video.combinations)}


class Instances(NamedTuple):
    """Id map uint16 `[t, h, w]`, class per row int32 `[n]` and combinations bool `[MOST_COMBINATIONS, n]` of a clip."""

    ids: np.ndarray
    classes: np.ndarray
    overlaps: np.ndarray


def make_ids(
    labels: np.ndarray,
    code: LabelCode,
    max_instances: int,
    *,
    only: np.ndarray | None = None,
    combinations: Mapping[int, tuple[int, ...]] | None = None,
) -> Instances:
    """Label values of a clip -> the id map and instance table of `types.Clip`.

    Instances are sorted by descending area over the clip (ties by value); those beyond `max_instances` become pixels of
    their class. Void and values that mean nothing become 0.

    Args:
      labels: uint16 `[t, h, w]`.
      code: what the values mean.
      max_instances: rows of the instance table, n.
      only: bool `[65536]`, the values that may be instances; others become pixels of their class. None: all.
      combinations: label value -> the instances that overlap in its pixels.
    """
    combinations = combinations or {}
    area = pixel_counts(labels)
    shown = {value: members for value, members in combinations.items() if area[value]}
    for value, members in shown.items():
        area[list(members)] += area[value]
    lookup = np.where(code.classes >= 0, 1 + max_instances + code.classes, 0).astype(np.uint16)
    values = np.flatnonzero((code.is_instance if only is None else only & code.is_instance) & (area > 0))
    values = values[np.argsort(-area[values], kind="stable")][:max_instances]
    lookup[values] = 1 + np.arange(len(values), dtype=np.uint16)
    instance_classes = np.full(max_instances, -1, np.int32)
    instance_classes[: len(values)] = code.classes[values]
    overlaps = np.zeros((MOST_COMBINATIONS, max_instances), bool)
    rows = {int(value): row for row, value in enumerate(values)}
    for value, kept in combination_rows(shown, rows, area).items():
        if len(kept) < 2:
            lookup[value] = 1 + kept[0] if kept else lookup[shown[value][-1]]
            continue
        same = np.flatnonzero((overlaps == np.isin(np.arange(max_instances), kept)).all(axis=1))
        free = np.flatnonzero(~overlaps.any(axis=1))
        place = same[:1] if same.size else free[:1]
        overlaps[place[:, None], kept] = True
        lookup[value] = LAST_ID - place[0] if place.size else 1 + max(kept)  # the smallest when there is no room
    return Instances(looked_up(lookup, labels), instance_classes, overlaps)


def combination_rows(
    shown: Mapping[int, tuple[int, ...]], rows: Mapping[int, int], area: np.ndarray
) -> dict[int, list[int]]:
    """Rows of the instances of every combination, the combinations with most pixels first."""
    order = sorted(shown, key=lambda value: (-area[value], value))
    return {value: sorted(rows[v] for v in shown[value] if v in rows) for value in order}
