"""What all builders share: one record per frame, the JPEG verbatim, the label as a zlib-compressed uint16 map.

A record of a frame is read at random without decoding any other. The video table and a report of what was found are in
the metadata: `videos_<split>` is a list of `{id, stems, height, width, first, instances}` where `first` is the record
number of the first frame and `instances` has a digit per frame, the number of instances it shows (9: nine or more), and
`report_<split>` counts what the report of `vps-jax data prepare` prints.
"""

import collections
import concurrent.futures
import itertools
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from vps_jax.datasets import DatasetSpec, VideoFiles
from vps_jax.datasets.label_files import BadFrame
from vps_jax.types import UserError

LOOK_AHEAD = 64  # frames read ahead by threads; cv2 and zlib release the interpreter's lock


class Frame(NamedTuple):
    """A frame that was read: record fields and what the table and report need."""

    image: bytes
    label: bytes
    height: int
    width: int
    counts: np.ndarray  # pixels per label value, `[65536]` int64; all zero without a label


class FrameBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders: all of them prepare a `DatasetSpec`.

    Attributes:
      SPEC: the data set.
      skip_bad: leave unreadable frames out and report them, instead of stopping at the first.
      track: wraps the iteration over frames, for a progress bar; called with (iterable, total).
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The manual folder is the root of the data set in one of its official layouts."
    SPEC: DatasetSpec
    skip_bad: bool = False
    track: Callable[[Iterable, int], Iterable] = staticmethod(lambda items, total: items)

    def find_videos(self, root: pathlib.Path) -> dict[str, list[VideoFiles]]:
        """Videos of every split that the folder has.

        Raises:
          UserError: the layout is not recognised, or no listed video has frames.
        """
        splits = {split: self.SPEC.videos(root, split) for split in self.SPEC.splits(root)}
        if not any(usable(video) for videos in splits.values() for video in videos):
            raise UserError(f"{root}: no listed video has frames; expected the images and masks of {self.SPEC.title}")
        return splits

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "video_id": tfds.features.Text(),
                "stem": tfds.features.Text(),
                "height": np.int32,
                "width": np.int32,
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format=None),
                "label": tfds.features.Text(),  # zlib of uint16 [height, width], empty without a label
            }
        )
        spec = self.SPEC
        metadata = tfds.core.MetadataDict(dataset=spec.name, label_code=spec.labels.name, classes=spec.classes.rows())
        return tfds.core.DatasetInfo(builder=self, disable_shuffling=True, features=features, metadata=metadata)

    def _split_generators(self, dl_manager):
        root = pathlib.Path(dl_manager.manual_dir)
        splits = self.find_videos(root)
        return {split: self._generate_examples(split, videos) for split, videos in splits.items() if videos}

    def _generate_examples(self, split: str, videos: list[VideoFiles]):
        table = VideoTable(self)
        jobs = [(video, i) for video in videos for i in usable(video)]
        for (video, i), frame in zip(jobs, self.track(self._frames(jobs), len(jobs)), strict=True):
            if not isinstance(frame, BadFrame):
                frame = table.checked(video, i, frame)
            if isinstance(frame, BadFrame):
                if not self.skip_bad:
                    raise frame
                table.bad.append(str(frame))
                continue
            stem = video.images[i].stem
            key = table.add(video, stem, frame)
            yield (
                key,
                {
                    "video_id": video.name,
                    "stem": stem,
                    "height": frame.height,
                    "width": frame.width,
                    "image": frame.image,
                    "label": frame.label,
                },
            )
        self.info.metadata[f"videos_{split}"] = table.rows
        self.info.metadata[f"report_{split}"] = table.report(videos)

    def _frames(self, jobs: list[tuple[VideoFiles, int]]) -> Iterator[Frame | BadFrame]:
        """Read frames in order, a few ahead."""
        with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            waiting: collections.deque = collections.deque()
            todo = iter(jobs)
            for video, i in itertools.islice(todo, LOOK_AHEAD):
                waiting.append(pool.submit(self._read, video, i))
            while waiting:
                yield waiting.popleft().result()
                for video, i in itertools.islice(todo, 1):
                    waiting.append(pool.submit(self._read, video, i))

    def _read(self, video: VideoFiles, i: int) -> Frame | BadFrame:
        try:
            if not video.labelled:
                return read_frame(video.images[i])
            return read_frame(video.images[i], self.SPEC.read_label(video, i))
        except BadFrame as error:
            return error


def builder_of(spec: DatasetSpec) -> type[FrameBuilder]:
    """The builder of a data set, whether or not it has a folder here."""
    return type(spec.name, (FrameBuilder,), {"SPEC": spec, "name": spec.name}, skip_registration=True)


def usable(video: VideoFiles) -> list[int]:
    """Numbers of the frames that go into the records: all, or those with a mask where the split has masks."""
    return [i for i in range(len(video.images)) if video.masks is None or video.masks[i] is not None]


class VideoTable:
    """Rows of the video table and the counts of the report, filled frame by frame."""

    def __init__(self, builder: FrameBuilder):
        self.labels = builder.SPEC.labels
        self.rows: list[dict] = []
        self.bad: list[str] = []
        self.counts = np.zeros(65536, np.int64)
        self.sizes: collections.Counter = collections.Counter()
        self.unknown: dict[int, str] = {}
        self.frames = 0

    def checked(self, video: VideoFiles, i: int, frame: Frame) -> Frame | BadFrame:
        """The frame, or what is wrong with it: all frames of a video have one size."""
        if not self.rows or self.rows[-1]["id"] != video.name:
            return frame
        height, width = self.rows[-1]["height"], self.rows[-1]["width"]
        if (frame.height, frame.width) == (height, width):
            return frame
        size = f"{frame.width}x{frame.height}"
        return BadFrame(f"{video.images[i]}: image is {size}, expected {width}x{height} as the frames before")

    def add(self, video: VideoFiles, stem: str, frame: Frame) -> int:
        """Count a frame in and return its record number."""
        if not self.rows or self.rows[-1]["id"] != video.name:
            row = {"id": video.name, "stems": [], "height": frame.height, "width": frame.width}
            self.rows.append({**row, "first": self.frames, "instances": ""})
            self.sizes[f"{frame.width}x{frame.height}"] += 1
        row = self.rows[-1]
        row["stems"].append(stem)
        row["instances"] += str(min(9, np.count_nonzero(frame.counts[self.labels.is_instance])))
        self.counts += frame.counts
        for value in np.flatnonzero(frame.counts * ~self.labels.known):
            self.unknown.setdefault(int(value), f"{video.name}/{stem}")
        self.frames += 1
        return self.frames - 1

    def report(self, videos: list[VideoFiles]) -> dict:
        """What was found in the split, plain json."""
        labelled = int(self.counts.sum())
        return {
            "videos": len(self.rows),
            "frames": self.frames,
            "videos_with_instances": sum(row["instances"].strip("0") != "" for row in self.rows),
            "sizes": dict(self.sizes.most_common()),
            "images_without_mask": sum(len(v.images) - len(usable(v)) for v in videos),
            "videos_without_frames": sorted({v.name for v in videos} - {row["id"] for row in self.rows}),
            "unlabelled_share": float(self.counts[list(self.labels.void)].sum() / labelled) if labelled else None,
            "unknown_values": {
                str(value): {
                    "pixels": int(self.counts[value]),
                    "first_seen": place,
                    **({"class_only": True} if self.labels.classes[value] >= 0 else {}),
                }
                for value, place in sorted(self.unknown.items())
            },
            "bad_frames": self.bad,
        }


def read_frame(image: pathlib.Path, mask: np.ndarray | None = None) -> Frame:
    """Read one image and join it with its label values `[h, w]`, if it has any.

    Raises:
      BadFrame: the image is truncated or of another kind, or the mask has another size.
    """
    try:
        data = image.read_bytes()
    except OSError as error:
        raise BadFrame(f"{image}: cannot be read ({error.strerror}); restore the file") from None
    height, width = image_size(data, image)
    if mask is None:
        return Frame(data, b"", height, width, np.zeros(65536, np.int64))
    if mask.shape != (height, width):
        size = f"{mask.shape[1]}x{mask.shape[0]}"
        raise BadFrame(f"{image}: its mask is {size}, expected the image's size {width}x{height}")
    mask = mask.astype("<u2")
    counts = np.bincount(mask.ravel(), minlength=65536)
    return Frame(data, zlib.compress(mask.tobytes(), 1), height, width, counts)


def image_size(data: bytes, path: pathlib.Path) -> tuple[int, int]:
    """`(height, width)` of a whole JPEG or PNG.

    Raises:
      BadFrame: another kind of file, or cut off.
    """
    if data.startswith(b"\x89PNG"):
        if b"IEND" not in data[-64:]:
            raise BadFrame(f"{path}: truncated PNG ({len(data)} bytes, no end marker); fetch the file again")
        return int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    return jpeg_size(data, path)


def jpeg_size(data: bytes, path: pathlib.Path) -> tuple[int, int]:
    """`(height, width)` from the header; the end marker must be there too.

    Raises:
      BadFrame: not a JPEG, or cut off.
    """
    if data[:2] != b"\xff\xd8":
        raise BadFrame(f"{path}: expected a JPEG or PNG image ({len(data)} bytes found)")
    if b"\xff\xd9" not in data[-64:]:
        raise BadFrame(f"{path}: truncated JPEG ({len(data)} bytes, no end marker); fetch the file again")
    at = 2
    while at + 9 < len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        # start-of-frame markers, without the three numbers in their range that mean something else
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + length
    raise BadFrame(f"{path}: JPEG without a frame header; fetch the file again")
