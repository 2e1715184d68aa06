"""Look through a data set in its official layout and name everything that is wrong with it."""

import collections
import concurrent.futures
import itertools
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tfds_builders.frames import whole
from vps_jax import datasets, files
from vps_jax.data.records import decode_image
from vps_jax.datasets import DatasetSpec, VideoFiles
from vps_jax.datasets.label_files import BadFrame, StrayValues

LOOK_AHEAD = 64  # videos
SHORT = 4  # frames
VALUES = 50  # that mean nothing, with a line each
ALL_VOID = "all labelled pixels are void; expected pixels of classes: look at the labels, or at your class file"


class SplitCounts(NamedTuple):
    """What a split holds."""

    split: str
    videos: int
    frames: int
    labelled: int
    with_objects: int
    objects: int
    short_videos: int
    sizes: dict[str, int]
    findings: dict[str, int]


class Report(NamedTuple):
    """What `check` found: counts per split, and one line per problem."""

    layout: str
    splits: tuple[SplitCounts, ...]
    problems: tuple[str, ...]

    @property
    def videos(self) -> int:
        """Videos of all splits."""
        return sum(split.videos for split in self.splits)

    @property
    def frames(self) -> int:
        """Frames of all splits."""
        return sum(split.frames for split in self.splits)

    def as_json(self) -> dict:
        """Plain values."""
        return {
            "layout": self.layout,
            "splits": [split._asdict() for split in self.splits],
            "problems": list(self.problems),
        }


class VideoCounts(NamedTuple):
    """What one video holds."""

    frames: int
    labelled: int
    objects: int
    size: str
    findings: dict[str, int]
    problems: list["str | Strays"]
    all_void: bool = False


class Strays(NamedTuple):
    """Pixels of a label that mean nothing."""

    where: pathlib.Path
    value: str
    pixels: int
    reason: str


def check(
    name: str | DatasetSpec, source: str | pathlib.Path, *, workers: int | None = None, progress: bool = True
) -> Report:
    """Decode every image and mask of a data set.

    Args:
      name: one of `datasets.DATASETS`, or a specification.
      source: folder in one of its layouts.
      workers: threads; None for as many as the machine has processors, 16 at most.
      progress: show a progress bar.

    Returns:
      Counts and problems: unreadable images, masks of another size or kind or with values of no class, images without
      mask, frames of another size than those before, videos that are listed twice or that have no frame, files that no
      list accounts for.

    Raises:
      UserError: the folder has no layout of the set at all, or its lists and jsons break their rules.
    """
    spec = name if isinstance(name, DatasetSpec) else datasets.dataset(name)
    source = pathlib.Path(source)
    layout, counts, problems = spec.layout(source), [], []
    splits = {split: layout.videos(source, split) for split in layout.splits(source)}
    for split, videos in splits.items():
        if layout.strays is not None:
            problems += layout.strays(source, split)
        looks = list(looked_at(videos, spec, split, workers or min(16, os.cpu_count() or 1), progress))
        problems += joined([line for video in looks for line in video.problems])
        if labelled := [video for video in looks if video.labelled]:
            problems += [f"{split}: {ALL_VOID}"] * all(video.all_void for video in labelled)
        counts.append(summed(split, looks))
    return Report(layout.name, tuple(counts), (*listed_twice(splits), *problems))


def joined(problems: list[str | Strays]) -> list[str]:
    """Lines of a split in their order; a value that means nothing has one line, where it was seen first.

    Of more values than `VALUES` the rest are counted at the end: a picture taken for a label may have thousands.
    """
    frames: dict[tuple[str, str], list[Strays]] = {}
    for one in problems:
        if isinstance(one, Strays):
            frames.setdefault((one.value, one.reason), []).append(one)
    lines, more = [], max(0, len(frames) - VALUES)
    shown = dict(itertools.islice(frames.items(), VALUES))
    for one in problems:
        if not isinstance(one, Strays):
            lines.append(one)
        elif (rows := shown.pop((one.value, one.reason), None)) is not None:
            count = f" in {len(rows)} frames, first this one," if len(rows) > 1 else ""
            lines.append(f"{one.where}: {one.value} on {sum(row.pixels for row in rows)} pixels{count} is {one.reason}")
    return lines + ([f"{more} more values mean nothing; expected labels in the form that is named"] if more else [])


def listed_twice(splits: dict[str, list[VideoFiles]]) -> Iterator[str]:
    """Lines for videos that stand in two lists, or twice in one."""
    home: dict[pathlib.Path | str, str] = {}
    for split, videos in splits.items():
        for video in videos:
            key = video.images[0] if video.images else video.name  # KITTI's test numbers its videos from 0 again
            if key in home:
                yield f"{video.name}: listed in {home[key]} and in {split}"
            home[key] = split


def looked_at(
    videos: list[VideoFiles], spec: DatasetSpec, split: str, workers: int, progress: bool
) -> Iterator[VideoCounts]:
    """Counts of every video in order."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        looks = pool.map(lambda video: look_at(video, spec, split), videos)
        yield from files.track(looks, f"check {split}", total=len(videos), show=progress)


def look_at(video: VideoFiles, spec: DatasetSpec, split: str) -> VideoCounts:
    """Decode one video."""
    problems, sizes, labelled = [], [], 0
    findings: collections.Counter = collections.Counter()
    seen: set[int] = set()
    all_void = True
    if not video.images:
        problems.append(f"{video.name}: listed in {split}, but no image of it is there")
    scanned = spec.scan(video) if spec.scan is not None and video.labelled else video
    for i, image in enumerate(video.images):
        size, lines = image_size(image)
        problems += lines
        if size is not None and size not in sizes:
            sizes.append(size)
            if len(sizes) > 1:
                first = f"{sizes[0][1]}x{sizes[0][0]}"
                problems.append(f"{image}: image is {size[1]}x{size[0]}, expected {first} as the frames before")
        if not video.labelled:
            continue
        if video.masks is not None and video.masks[i] is None:
            if spec.sparse:
                findings["images without a label"] += 1
            else:
                problems.append(f"{image}: image without a mask")
            continue
        try:
            labels = spec.read_label(scanned, i)
        except StrayValues as error:
            problems += [Strays(error.path, value, pixels, error.reason) for value, pixels in error.pixels.items()]
            continue
        except BadFrame as error:
            problems.append(str(error))
            continue
        labelled += 1
        problems += mask_problems(labels.values, size, video.masks[i] if video.masks else image, spec)
        findings.update(labels.findings)
        counts = np.bincount(labels.values.ravel(), minlength=65536)
        values = np.flatnonzero(counts * spec.labels.is_instance)
        seen |= {*values.tolist(), *(int(v) for members in labels.combinations for v in members)}
        all_void &= counts[list(spec.labels.void)].sum() == labels.values.size
    size = f"{sizes[0][1]}x{sizes[0][0]}" if sizes else ""
    return VideoCounts(len(video.images), labelled, len(seen), size, dict(findings), problems, all_void)


def mask_problems(
    values: np.ndarray, size: tuple[int, int] | None, where: pathlib.Path, spec: DatasetSpec
) -> list[str | Strays]:
    """Problems of label values `[h, w]` whose image has a size."""
    problems: list[str | Strays] = []
    if size is not None and values.shape != size:
        shape = f"{values.shape[1]}x{values.shape[0]}"
        problems.append(f"{where}: mask is {shape}, its image {size[1]}x{size[0]}")
    counts = np.bincount(values.ravel(), minlength=65536)
    strays = np.flatnonzero((counts > 0) & ~spec.labels.known)
    return problems + [Strays(where, f"value {v}", int(counts[v]), "no class") for v in strays.tolist()]


def image_size(image: pathlib.Path) -> tuple[tuple[int, int] | None, list[str]]:
    """`(height, width)` of an image that decodes to its end, or the problem."""
    try:
        data = image.read_bytes()
    except OSError as error:
        return None, [f"{image}: unreadable image ({error.strerror})"]
    ends = whole(data)
    pixels = decode_image(data) if data and ends else None
    if pixels is None:
        return None, [f"{image}: unreadable image ({len(data)} bytes, {'damaged' if ends else 'cut off'})"]
    return pixels.shape[:2], []


def summed(split: str, videos: list[VideoCounts]) -> SplitCounts:
    """Counts of a split."""
    findings: collections.Counter = collections.Counter()
    for video in videos:
        findings.update(video.findings)
    longest = max((video.frames for video in videos), default=0)
    return SplitCounts(
        split,
        videos=len(videos),
        frames=sum(video.frames for video in videos),
        labelled=sum(video.labelled for video in videos),
        with_objects=sum(video.objects > 0 for video in videos),
        objects=sum(video.objects for video in videos),
        short_videos=sum(0 < video.frames < SHORT for video in videos) if longest > 1 else 0,
        sizes=dict(collections.Counter(video.size for video in videos if video.size).most_common()),
        findings=dict(sorted(findings.items())),
    )


def table(report: Report) -> list[str]:
    """Lines for the terminal: a row per split, then what was found in it."""
    header = ("split", "videos", "frames", "labelled", "with objects", "objects", "short", "sizes")
    rows = [header] + [
        (s.split, s.videos, s.frames, s.labelled, s.with_objects, s.objects, s.short_videos, sizes_of(s))
        for s in report.splits
    ]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(header))]
    lines = ["  ".join(str(cell).rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{s.split}: {words}: {count}" for s in report.splits for words, count in s.findings.items()]
    return [f"layout: {report.layout}", *lines]


def sizes_of(split: SplitCounts) -> str:
    """The commonest sizes in words."""
    shown = [f"{size} ({count})" for size, count in list(split.sizes.items())[:3]]
    return ", ".join(shown + ["..."] * (len(split.sizes) > 3)) or "none"
