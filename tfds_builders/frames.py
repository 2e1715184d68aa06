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
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

LOOK_AHEAD = 64  # frames read ahead by threads; cv2 and zlib release the interpreter's lock


class BadFrame(ValueError):
    """A frame that cannot be used, with the file and the reason."""


class Video(NamedTuple):
    """Files of one video (or single image).

    Attributes:
      name: video id.
      images: JPEG files in order.
      labels: one mask file per image, or None (no annotation for this split).
      unlabelled: images left out because they have no mask.
      segments: what `FrameBuilder.read_label` needs beside the mask file.
    """

    name: str
    images: tuple[pathlib.Path, ...]
    labels: tuple[pathlib.Path, ...] | None
    unlabelled: int = 0
    segments: Any = None


class Frame(NamedTuple):
    """A frame that was read: record fields and what the table and report need."""

    image: bytes
    label: bytes
    height: int
    width: int
    counts: np.ndarray  # pixels per label value, `[65536]` int64; all zero without a label


class FrameBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders. A builder says where the files of a split lie and what its label values mean.

    Attributes:
      VOID: label values of pixels that nobody labelled.
      LABEL_CODE: name of the label coding, kept in the metadata (`vps_jax.data.records` knows them).
      skip_bad: leave unreadable frames out and report them, instead of stopping at the first.
      track: wraps the iteration over frames, for a progress bar; called with (iterable, total).
    """

    VERSION = tfds.core.Version("1.0.0")
    VOID: tuple[int, ...] = (0,)
    LABEL_CODE = ""
    skip_bad: bool = False
    track: Callable[[Iterable, int], Iterable] = staticmethod(lambda items, total: items)

    def find_videos(self, root: pathlib.Path) -> dict[str, list[Video]]:
        """Videos of every split that the folder has. Raises ValueError when the layout is not recognised."""
        raise NotImplementedError

    def instance_values(self) -> np.ndarray:
        """bool `[65536]`: label values that are instances."""
        raise NotImplementedError

    def known_values(self) -> np.ndarray:
        """bool `[65536]`: label values that the official description allows, void included."""
        raise NotImplementedError

    def read_label(self, video: Video, path: pathlib.Path) -> np.ndarray:
        """Label values `[h, w]` of one frame, from a single-channel PNG unless a builder knows better.

        Raises:
          BadFrame: the file is unreadable or of another kind.
        """
        mask = read_png(path)
        if mask.ndim != 2:
            raise BadFrame(f"{path}: {mask.shape[-1]} channels; expected a single-channel 8 or 16 bit PNG mask")
        return mask

    def extra_metadata(self, root: pathlib.Path) -> dict:
        """Plain json that goes into the metadata."""
        return {}

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "video_id": tfds.features.Text(),
                "stem": tfds.features.Text(),
                "height": np.int32,
                "width": np.int32,
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "label": tfds.features.Text(),  # zlib of uint16 [height, width], empty without a label
            }
        )
        metadata = tfds.core.MetadataDict(label_code=self.LABEL_CODE)
        return tfds.core.DatasetInfo(builder=self, disable_shuffling=True, features=features, metadata=metadata)

    def _split_generators(self, dl_manager):
        root = pathlib.Path(dl_manager.manual_dir)
        splits = self.find_videos(root)
        self.info.metadata.update(self.extra_metadata(root))
        return {split: self._generate_examples(split, videos) for split, videos in splits.items() if videos}

    def _generate_examples(self, split: str, videos: list[Video]):
        table = VideoTable(self)
        jobs = [(v, i) for v in videos for i in range(len(v.images))]
        for (video, i), frame in zip(jobs, self.track(self._frames(jobs), len(jobs)), strict=True):
            if isinstance(frame, BadFrame):
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

    def _frames(self, jobs: list[tuple[Video, int]]) -> Iterator[Frame | BadFrame]:
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

    def _read(self, video: Video, i: int) -> Frame | BadFrame:
        try:
            if video.labels is None:
                return read_frame(video.images[i])
            return read_frame(video.images[i], self.read_label(video, video.labels[i]), video.labels[i])
        except BadFrame as error:
            if self.skip_bad:
                return error
            raise


class VideoTable:
    """Rows of the video table and the counts of the report, filled frame by frame."""

    def __init__(self, builder: FrameBuilder):
        self.void = list(builder.VOID)
        self.instances, self.known = builder.instance_values(), builder.known_values()
        self.rows: list[dict] = []
        self.bad: list[str] = []
        self.counts = np.zeros(65536, np.int64)
        self.sizes: collections.Counter = collections.Counter()
        self.unknown: dict[int, str] = {}
        self.frames = 0

    def add(self, video: Video, stem: str, frame: Frame) -> int:
        """Count a frame in and return its record number."""
        if not self.rows or self.rows[-1]["id"] != video.name:
            row = {"id": video.name, "stems": [], "height": frame.height, "width": frame.width}
            self.rows.append({**row, "first": self.frames, "instances": ""})
            self.sizes[f"{frame.width}x{frame.height}"] += 1
        row = self.rows[-1]
        row["stems"].append(stem)
        row["instances"] += str(min(9, np.count_nonzero(frame.counts[self.instances])))
        self.counts += frame.counts
        for value in np.flatnonzero(frame.counts * ~self.known):
            self.unknown.setdefault(int(value), f"{video.name}/{stem}")
        self.frames += 1
        return self.frames - 1

    def report(self, videos: list[Video]) -> dict:
        """What was found in the split, plain json."""
        labelled = int(self.counts.sum())
        return {
            "videos": len(self.rows),
            "frames": self.frames,
            "videos_with_instances": sum(row["instances"].strip("0") != "" for row in self.rows),
            "sizes": dict(self.sizes.most_common()),
            "images_without_mask": sum(v.unlabelled for v in videos),
            "videos_without_frames": sorted({v.name for v in videos} - {row["id"] for row in self.rows}),
            "unlabelled_share": float(self.counts[self.void].sum() / labelled) if labelled else None,
            "unknown_values": {
                str(value): {"pixels": int(self.counts[value]), "first_seen": place}
                for value, place in sorted(self.unknown.items())
            },
            "bad_frames": self.bad,
        }


def read_frame(image: pathlib.Path, mask: np.ndarray | None = None, mask_file: pathlib.Path | None = None) -> Frame:
    """Read one image and join it with its label values `[h, w]`, if it has any.

    Raises:
      BadFrame: the JPEG is truncated or no JPEG, or the mask has another size.
    """
    data = image.read_bytes()
    height, width = jpeg_size(data, image)
    if mask is None:
        return Frame(data, b"", height, width, np.zeros(65536, np.int64))
    if mask.shape != (height, width):
        size = f"{mask.shape[1]}x{mask.shape[0]}"
        raise BadFrame(f"{mask_file}: mask is {size}, expected the image's size {width}x{height}")
    mask = mask.astype("<u2")
    counts = np.bincount(mask.ravel(), minlength=65536)
    return Frame(data, zlib.compress(mask.tobytes(), 1), height, width, counts)


def read_png(path: pathlib.Path) -> np.ndarray:
    """A PNG as it is stored: `[h, w]` uint8 or uint16, or `[h, w, c]` in OpenCV's channel order.

    Raises:
      BadFrame: it cannot be decoded.
    """
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    mask = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED) if raw.size else None
    if mask is None:
        raise BadFrame(f"{path}: unreadable PNG ({raw.size} bytes); fetch the file again")
    return mask


def jpeg_size(data: bytes, path: pathlib.Path) -> tuple[int, int]:
    """`(height, width)` from the header; the end marker must be there too.

    Raises:
      BadFrame: not a JPEG, or cut off.
    """
    if data[:2] != b"\xff\xd8":
        raise BadFrame(f"{path}: expected a JPEG image ({len(data)} bytes found)")
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


def visible(folder: pathlib.Path, suffix: str = "") -> list[pathlib.Path]:
    """Entries with the suffix, sorted by name, without dot files; empty when the folder is missing."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.endswith(suffix) and not p.name.startswith("."))


def paired(name: str, images: pathlib.Path, labels: pathlib.Path | None) -> Video:
    """A video from its folder of images and its folder of masks of the same stems (None: the split has no masks)."""
    frames = visible(images, ".jpg")
    if labels is None:
        return Video(name, tuple(frames), None)
    with_mask = [f for f in frames if (labels / f"{f.stem}.png").exists()]
    masks = tuple(labels / f"{f.stem}.png" for f in with_mask)
    return Video(name, tuple(with_mask), masks, unlabelled=len(frames) - len(with_mask))


def split_lists(root: pathlib.Path) -> dict[str, list[str]]:
    """Video names of `train.txt`, `val.txt` and `test.txt`, those that exist.

    Raises:
      ValueError: none exists.
    """
    lists = {s: root / f"{s}.txt" for s in ("train", "val", "test")}
    found = {split: path.read_text().split() for split, path in lists.items() if path.exists()}
    if not found:
        raise ValueError(f"{root}: no train.txt, val.txt or test.txt; expected one video name per line in each")
    return found
