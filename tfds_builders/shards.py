"""Videos in shards: whole videos in a row that one process turns into one record file, with its rows of the tables.

A shard is a function of its source files alone. Its rows stand in a json beside the record file and are written last:
a run that was stopped takes up the shards whose json is there and whose source files are as they were.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tfds_builders.frames import BadFrame, Frame, packed, read_frame, usable
from vps_jax.datasets import DatasetSpec, VideoFiles
from vps_jax.files import atomic_path, write_json

LOOK_AHEAD = 64  # frames read ahead by threads; cv2 and zlib release the interpreter's lock
SHORT = 4  # frames
LEAST, MOST = 32, 256  # frames of a shard at least, shards of a split about


class Options(NamedTuple):
    """What decides the bytes of a shard beside its files."""

    skip_bad: bool = False
    shrink: tuple[int, int] | None = None
    threads: int = 1


class Shard(NamedTuple):
    """Whole videos of one split, in order; `stem` names its files, `fingerprint` its source files."""

    split: str
    stem: pathlib.Path
    videos: tuple[VideoFiles, ...]
    fingerprint: str

    @property
    def records(self) -> pathlib.Path:
        return self.stem.with_suffix(".array_record")

    @property
    def rows(self) -> pathlib.Path:
        return self.stem.with_suffix(".json")


def cut(split: str, videos: Sequence[VideoFiles], folder: pathlib.Path, options: Options) -> list[Shard]:
    """The shards of a split."""
    aim = max(LEAST, -(-sum(len(usable(v)) for v in videos) // MOST))
    groups: list[list[VideoFiles]] = [[]]
    frames = 0
    for video in videos:
        if frames >= aim:
            groups.append([])
            frames = 0
        groups[-1].append(video)
        frames += len(usable(video))
    return [
        Shard(split, folder / f"{split}-{i:05d}", tuple(group), fingerprint(group, options))
        for i, group in enumerate(groups)
        if group
    ]


def fingerprint(videos: Sequence[VideoFiles], options: Options) -> str:
    """Hash of names and sizes of the files of some videos, of what their notes say, and of the options."""
    told = hashlib.sha256(repr(options[:2]).encode())
    for video in videos:
        told.update(f"{video.name}\n".encode())
        told.update(notes_bytes((video.images, video.masks, video.notes)))
    return told.hexdigest()[:16]


def notes_bytes(notes) -> bytes:
    """A stable form of what a data set keeps about a video; of a file its name and size, wherever it lies."""
    if isinstance(notes, pathlib.Path):
        return f"{notes.name} {notes.stat().st_size if notes.exists() else -1}\n".encode()
    if isinstance(notes, dict):
        return b"".join(repr(key).encode() + notes_bytes(value) for key, value in notes.items())
    if isinstance(notes, (tuple, list)):
        return b"".join(map(notes_bytes, notes))
    return repr(notes).encode()


def finished(shard: Shard) -> dict | None:
    """The rows of a shard that was written before from the same files, or None."""
    if not shard.rows.exists() or not shard.records.exists():
        return None
    rows = json.loads(shard.rows.read_text())
    return rows if rows["fingerprint"] == shard.fingerprint else None


def write_shard(shard: Shard, spec: DatasetSpec, serialize: Callable[[dict], bytes], options: Options) -> dict:
    """Write the record file of a shard and its rows; done before, the rows are only read.

    Raises:
      BadFrame: a frame cannot be used, unless `options.skip_bad`.
    """
    from array_record.python import array_record_module

    if (rows := finished(shard)) is not None:
        return rows
    table, size = VideoTable(spec), 0
    with atomic_path(shard.records) as temporary:
        writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
        try:
            for record in records_of(shard, spec, options, table):
                data = serialize(record)
                size += len(data)
                on_disk(writer.write, data)
        except BaseException:
            with contextlib.suppress(RuntimeError):
                writer.close()
            raise
        on_disk(writer.close)
    rows = {"fingerprint": shard.fingerprint, "bytes": size, **table.finished(shard.videos)}
    write_json(shard.rows, rows)
    return rows


def on_disk(action: Callable, *given) -> None:
    """Call a method of a record writer, which says RuntimeError where the disk is full or gone.

    Raises:
      OSError: the disk refuses.
    """
    try:
        action(*given)
    except RuntimeError as error:
        raise OSError(str(error).split(";")[0]) from error


def records_of(shard: Shard, spec: DatasetSpec, options: Options, table: "VideoTable") -> Iterator[dict]:
    """The records of a shard in order, counted into the table."""
    for video in shard.videos:
        scanned = spec.scan(video) if spec.scan is not None and video.labelled else video
        todo = usable(video)
        for i, frame in zip(todo, read_ahead(scanned, todo, spec, options), strict=True):
            frame = table.checked(video, i, frame)
            if isinstance(frame, BadFrame):
                if not options.skip_bad:
                    raise frame
                table.bad.append(str(frame))
                continue
            stem = video.images[i].stem
            yield {
                "video_id": video.name,
                "stem": stem,
                "height": frame.height,
                "width": frame.width,
                "image": frame.image,
                "label": table.add(video, stem, frame),
            }


def read_ahead(
    video: VideoFiles, todo: Sequence[int], spec: DatasetSpec, options: Options
) -> Iterator[Frame | BadFrame]:
    """Frames in order, a few read ahead by threads; a frame that cannot be used comes as what is wrong with it."""

    def read(i: int) -> Frame | BadFrame:
        try:
            labels = spec.read_label(video, i) if video.labelled else None
            return read_frame(video.images[i], labels, shrink=options.shrink or spec.shrink)
        except BadFrame as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
        waiting: collections.deque = collections.deque()
        coming = iter(todo)
        for i in itertools.islice(coming, LOOK_AHEAD):
            waiting.append(pool.submit(read, i))
        while waiting:
            yield waiting.popleft().result()
            for i in itertools.islice(coming, 1):
                waiting.append(pool.submit(read, i))


def default_threads() -> int:
    """Threads of a process that works alone."""
    return min(16, os.cpu_count() or 1)


class VideoTable:
    """Rows of the video table and the counts of the report, filled frame by frame."""

    def __init__(self, spec: DatasetSpec):
        self.labels, self.first_combination = spec.labels, spec.first_combination
        self.rows: list[dict] = []
        self.bad: list[str] = []
        self.counts: collections.Counter = collections.Counter()
        self.findings: collections.Counter = collections.Counter()
        self.unknown: dict[int, str] = {}

    def checked(self, video: VideoFiles, i: int, frame: Frame | BadFrame) -> Frame | BadFrame:
        """The frame, or what is wrong with it: all frames of a video have one size."""
        if isinstance(frame, BadFrame) or not self.rows or self.rows[-1]["id"] != video.name:
            return frame
        height, width = self.rows[-1]["height"], self.rows[-1]["width"]
        if (frame.height, frame.width) == (height, width):
            return frame
        size = f"{frame.width}x{frame.height}"
        return BadFrame(f"{video.images[i]}: image is {size}, expected {width}x{height} as the frames before")

    def add(self, video: VideoFiles, stem: str, frame: Frame) -> bytes:
        """Count a frame in and return its label as it is stored."""
        if not self.rows or self.rows[-1]["id"] != video.name:
            row = {"id": video.name, "stems": [], "height": frame.height, "width": frame.width, "instances": ""}
            self.rows.append(row)
        row = self.rows[-1]
        row["stems"].append(stem)
        shown = set(np.flatnonzero(frame.counts * self.labels.is_instance).tolist())
        label = frame.label
        if frame.labels is not None:
            table = row.setdefault("combinations", [])
            label = packed(in_video(frame.labels, table, self.first_combination))
            shown |= {value for combination in frame.labels.combinations for value in combination}
        row["instances"] += str(min(9, len(shown)))
        for value in np.flatnonzero(frame.counts).tolist():
            self.counts[value] += int(frame.counts[value])
            if not self.labels.known[value]:
                self.unknown.setdefault(value, f"{video.name}/{stem}")
        self.findings.update(frame.findings)
        return label

    def finished(self, videos: Sequence[VideoFiles]) -> dict:
        """Rows and counts as plain json."""
        there = {row["id"] for row in self.rows}
        return {
            "videos": self.rows,
            "counts": sorted(self.counts.items()),
            "findings": dict(sorted(self.findings.items())),
            "unknown": [[value, place] for value, place in self.unknown.items()],
            "bad_frames": self.bad,
            "images_without_mask": sum(len(v.images) - len(usable(v)) for v in videos),
            "videos_without_frames": [v.name for v in videos if v.name not in there],
        }


def in_video(labels, table: list[list[int]], first: int) -> np.ndarray:
    """Label values whose combinations are numbered as the video's table has them; the table grows."""
    lookup = np.arange(65536)
    for j, combination in enumerate(labels.combinations):
        members = [int(value) for value in combination]
        if members not in table:
            table.append(members)
        lookup[first + j] = first + table.index(members)
    return lookup[labels.values]


def merged(parts: Sequence[dict], spec: DatasetSpec) -> tuple[list[dict], dict]:
    """The video table of a split, with the record number of each video's first frame, and its report."""
    rows, first = [], 0
    for row in itertools.chain.from_iterable(part["videos"] for part in parts):
        rows.append({**row, "first": first})
        first += len(row["stems"])
    counts, findings, unknown = collections.Counter(), collections.Counter(), {}
    for part in parts:
        counts.update(dict(map(tuple, part["counts"])))
        findings.update(part["findings"])
        for value, place in part["unknown"]:
            unknown.setdefault(value, place)
    return rows, {**counted(rows, counts, spec), **noted(parts, findings), "unknown_values": {
        str(value): {"pixels": counts[value], "first_seen": place} | only_class(value, spec)
        for value, place in sorted(unknown.items())
    }}  # fmt: skip


def counted(rows: list[dict], counts: collections.Counter, spec: DatasetSpec) -> dict:
    """What the report says of videos, frames, sizes and pixels."""
    labelled, lengths = sum(counts.values()), [len(row["stems"]) for row in rows]
    sizes = collections.Counter(f"{row['width']}x{row['height']}" for row in rows)
    void = sum(counts[value] for value in spec.labels.void)
    return {
        "videos": len(rows),
        "frames": sum(len(row["stems"]) for row in rows),
        "videos_with_instances": sum(row["instances"].strip("0") != "" for row in rows),
        "short_videos": sum(n < SHORT for n in lengths) if max(lengths, default=0) > 1 else 0,  # images are no videos
        "combinations": sum(len(row.get("combinations", ())) for row in rows),
        "sizes": dict(sizes.most_common()),
        "unlabelled_share": void / labelled if labelled else None,
    }


def noted(parts: Sequence[dict], findings: collections.Counter) -> dict:
    """What the report says of things left out."""
    return {
        "images_without_mask": sum(part["images_without_mask"] for part in parts),
        "videos_without_frames": sorted(name for part in parts for name in part["videos_without_frames"]),
        "findings": dict(sorted(findings.items())),
        "bad_frames": [line for part in parts for line in part["bad_frames"]],
    }


def only_class(value: int, spec: DatasetSpec) -> dict:
    """Says of an unknown value that it trains as a pixel of its class."""
    return {"class_only": True} if spec.labels.classes[value] >= 0 else {}
