"""Result folders: the writer of every format, and VIPSeg's own (spec: metrics 4.1, tarvis 8.6)."""

import contextlib
import json
import os
import pathlib
import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from vps_jax.datasets import DATASETS, recognize
from vps_jax.datasets.classes import ClassTable, from_rows
from vps_jax.datasets.colors import SegmentColors, color_id
from vps_jax.files import atomic_path, write_json
from vps_jax.media.run_state import FOLDER as STATE
from vps_jax.media.run_state import RunState
from vps_jax.parsing import resolve
from vps_jax.types import PanopticFrame, UserError

# results that belong to no data set here, or to another layout of one: name -> (folder, classes) -> writer
FORMATS = {
    "cityscapes-vps": "vps_jax.media.flat_panoptic:FlatPanopticWriter",
    "davis": "vps_jax.media.frame_maps:davis_writer",
    "kitti-step": "vps_jax.media.frame_maps:kitti_step_writer",
    "burst": "vps_jax.media.mask_lists:burst_writer",
    "ytvis": "vps_jax.media.mask_lists:ytvis_writer",
    "coco-rle": "vps_jax.media.mask_lists:coco_writer",
}
TRACKS_ONLY = ("burst", "davis", "ytvis")  # formats that have no place for a class without tracks
CLASS_FILE = "classes.json"  # the class list of a result folder; pred.json has no place for it
RESERVED = ("overlay", "tracks", STATE)  # folders beside the results
Origin = tuple[str, str | None] | None
UNKNOWN = 255  # category of a pixel without class
THING_OFFSET = 256  # segments: 0..255 stuff classes, beyond it thing tracks


def encode_frame(
    frame: PanopticFrame, colors: SegmentColors, official_ids: Sequence[int]
) -> tuple[np.ndarray, list[dict]]:
    """Segment ids and table of one frame.

    Args:
      frame: to be written.
      colors: of the video's segments so far.
      official_ids: number of each class in the file.

    Returns:
      RGB uint8 `[h, w, 3]` with id = R + 256 G + 65536 B, 0 where the class is unknown; `segments_info`: rows of
      `id`, `category_id`, `iscrowd`, `area` in pixels; stuff first, then things by track.
    """
    segments = np.where(frame.track_ids > 0, frame.track_ids + THING_OFFSET, frame.categories)  # [h, w]
    area = np.bincount(segments.ravel())
    present = np.flatnonzero(area)
    table = np.zeros((len(area), 4), np.uint8)
    rows = []
    for segment in present[present != UNKNOWN].tolist():
        category = segment
        if segment > THING_OFFSET:
            at = np.argmax(segments == segment)
            category = int(frame.categories.ravel()[at])
            color = colors.thing(segment - THING_OFFSET, category)
        else:
            color = colors.stuff(segment)
        table[segment, :3] = color
        rows.append({
            "id": color_id(color),
            "category_id": official_ids[category],
            "iscrowd": 0,
            "area": int(area[segment]),
        })  # fmt: skip
    painted = np.take(table.view(np.uint32)[:, 0], segments)  # four bytes at once take a sixth of the time of three
    return cv2.cvtColor(painted.view(np.uint8).reshape(*segments.shape, 4), cv2.COLOR_RGBA2RGB), rows


def make_writer(out: str | pathlib.Path, layout: str, classes: ClassTable):
    """The writer of a layout: an object with the attributes and methods of `VipsegWriter`.

    Args:
      out: its folder.
      layout: name of a data set that names a writer, the root of one, or one of `FORMATS`.
      classes: of the results.

    Raises:
      UserError: unknown layout, or `out` cannot be written.
    """
    return resolve(writer_of(layout))(pathlib.Path(out), classes)


def writer_of(layout: str) -> str:
    """The `module:name` of a layout's writer; see `make_writer`."""
    writers = {name: spec.writer for name, spec in DATASETS.items() if spec.writer} | FORMATS
    if layout not in writers and (own := recognize(pathlib.Path(layout))) is not None and own.writer:
        return own.writer
    if layout not in writers:
        names = sorted(name for name in writers if (other := name.replace("_", "-")) == name or other not in writers)
        raise UserError(f"format {layout!r}: there is none; expected one of {', '.join(names)}")
    return writers[layout]


def check_has_tracks(task: str, layout: str) -> None:
    """Raises UserError for a task without tracks and a layout that holds tracks alone: its files would be empty."""
    if writer_of(layout) in [FORMATS[name] for name in TRACKS_ONLY]:
        raise UserError(
            f"format {layout!r}: holds tracks, and task {task!r} has none; choose another format, such as vspw, or "
            "another task"
        )


def check_places(writer, video_ids: Iterable[str]) -> None:
    """Raises UserError for a video whose results would take the place of a folder with something else."""
    for name in video_ids:
        where = writer.place(name).relative_to(writer.folder).parts[0]
        if where in RESERVED:
            raise UserError(
                f"video {name!r}: its results would lie in {writer.folder / where}, which holds something else; rename "
                "it or choose --format vipseg"
            )


class WriteError(UserError):
    """The result folder cannot be written any more; another video would fail as well."""


class VideoResult(NamedTuple):
    """An open video of a result folder.

    Attributes:
      write: takes its frames in order.
      segment_id: (track, category) -> the id of the track in `pred.json`; None where ids are not written.
    """

    write: Callable[[PanopticFrame], None]
    segment_id: Callable[[int, int], int | None]


class VipsegWriter:
    """Writes one run's result folder, frame by frame.

    PNGs go to a hidden folder beside their place. When a video is whole its folder takes the place of an earlier one,
    and `pred.json`, replaced at once, lists it; videos of earlier runs stay listed. So a run that is stopped leaves a
    valid folder of the videos that were done.
    """

    def __init__(self, folder: pathlib.Path, classes: ClassTable):
        """Makes the folder and checks that it can be written.

        Raises:
          UserError: it cannot.
        """
        self.folder = pathlib.Path(folder)
        self._classes = classes
        make_writable(self.folder)
        self._list = RecordList(self.folder)
        self._check_classes()
        make_writable(self.folder / "pan_pred")
        with writing(self.folder / CLASS_FILE):
            write_json(self.folder / CLASS_FILE, classes.rows())
        self.state = RunState(self.folder)

    def _check_classes(self) -> None:
        """Raises UserError if videos are listed whose classes are others than these."""
        if not self._list.names() or not (self.folder / CLASS_FILE).exists():
            return
        theirs = read_classes(self.folder)
        if (theirs.names, theirs.official_ids) != (self._classes.names, self._classes.official_ids):
            raise UserError(
                f"{self.folder}: its videos have {len(theirs.names)} classes from {theirs.names[0]!r} on, these are "
                f"{len(self._classes.names)} from {self._classes.names[0]!r} on; choose another folder"
            )

    def place(self, video_id: str) -> pathlib.Path:
        """The folder of a video's PNGs."""
        return self.folder / "pan_pred" / video_id

    @contextlib.contextmanager
    def video(
        self, video_id: str, *, made_by: str = "", origin: Origin = None, order: Sequence[str] = (),
        number: int | str | None = None,
    ) -> Iterator[VideoResult]:  # fmt: skip
        """The place of one video's frames.

        Args:
          video_id: of the video.
          made_by: what made it, kept with the record that it is finished.
          origin: what opens the source again, kept there too, see `Video.origin`.
          order: of the run's videos in `pred.json`, whatever process finishes first.
          number: id of the video in its data set's json, for formats that know videos by it.
        """
        del number
        colors = SegmentColors(self._classes)
        annotations: list[str] = []  # as text, which takes a tenth of the memory of a table

        with video_folder(self.place(video_id)) as folder:

            def write(frame: PanopticFrame) -> None:
                image, segments = encode_frame(frame, colors, self._classes.official_ids)
                bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
                _, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 3])
                with writing(folder):
                    (folder / f"{frame.stem}.png").write_bytes(data.tobytes())
                annotations.append(json.dumps({"file_name": f"{frame.stem}.jpg", "segments_info": segments}))

            yield VideoResult(write, lambda track, category: color_id(colors.thing(track, category)))
        with writing(self.folder / "pred.json"):
            # read again where it is needed, and only as long: it grows with the video
            self.state.finish(video_id, {
                "made_by": made_by, "origin": origin,
                "record": {"video_id": video_id, "annotations": list(map(json.loads, annotations))},
            })  # fmt: skip
            self.list_finished(order)

    def list_finished(self, order: Sequence[str]) -> None:
        """Bring `pred.json` up to date. Another process may finish a video meanwhile: then its list is made again."""
        listed = None
        while listed != (finished := self.state.finished()):
            listed = finished
            ours = [name for name in finished if "record" in self.state.content(name) and self.place(name).is_dir()]
            self._list.write(ours, lambda name: self.state.content(name)["record"], order)


class RecordList:
    """`pred.json` of a folder, which other processes may write too. One record at a time is in memory."""

    def __init__(self, folder: pathlib.Path):
        """Raises UserError for a file that is no such list."""
        self._folder, self._path = folder, folder / "pred.json"
        self._lock = threading.Lock()
        self._version: tuple[int, ...] | None = None
        self._texts: dict[str, bytes] = {}  # of the videos in the file, compressed; empty of those of this run
        self._read()

    def names(self) -> list[str]:
        """The videos that are listed."""
        return list(self._texts)

    def write(self, names: Sequence[str], record: Callable[[str], dict], order: Sequence[str]) -> None:
        """Replace the file by one that also has the records of `names`; `order` is as for `VipsegWriter.video`."""
        with self._lock, atomic_path(self._path) as partial:
            self._read()
            self._texts |= dict.fromkeys(names, b"")
            listed = in_order(list(self._texts), order)
            with partial.open("w", encoding="utf-8") as file:
                file.write('{"annotations": [')
                for i, name in enumerate(listed):
                    text = self._texts[name]
                    file.write(", " if i else "")
                    file.write(zlib.decompress(text).decode() if text else json.dumps(record(name)))
                file.write("]}")
            self._texts = {name: self._texts[name] for name in listed}
            self._version = version(partial)

    def _read(self) -> None:
        """What stands in the file, unless it is what was written last."""
        if self._version is None or self._version != version(self._path):
            self._version, records = version(self._path), read_records(self._folder)
            self._texts = {name: zlib.compress(json.dumps(one).encode(), 1) for name, one in records.items()}


def version(path: pathlib.Path) -> tuple[int, ...] | None:
    """What tells a file from the one that takes its place; None if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def list_rows(state: RunState, order: Sequence[str], write: Callable[[list], None]) -> None:
    """Write the `rows` of all finished videos; again, if another process has finished one meanwhile.

    Args:
      state: of the result folder.
      order: of the run's videos.
      write: writes the rows, at once.
    """
    listed = None
    while listed != (finished := state.finished()):
        listed = finished
        names = in_order(sorted(name for name in finished if "rows" in state.content(name)), order)
        write([row for name in names for row in state.content(name)["rows"]])


def in_order(names: Sequence[str], order: Sequence[str]) -> list[str]:
    """The names with those of `order` in that order, at the places that they have together; others keep theirs."""
    rank = {name: i for i, name in enumerate(order)}
    sorted_names = iter(sorted((name for name in names if name in rank), key=rank.get))
    return [next(sorted_names) if name in rank else name for name in names]


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turn what the disk says into one line.

    Raises:
      WriteError: the disk is full, or the folder gone.
    """
    try:
        yield
    except OSError as error:
        where = str(error.filename or path).removeprefix("file:")  # as FFmpeg is given names
        raise WriteError(
            f"{where}: cannot be written ({error.strerror or error}); finished videos are kept: mend that and run again"
        ) from error


def make_writable(folder: pathlib.Path) -> None:
    """Make a folder and check that it can be written.

    Raises:
      UserError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: cannot be written ({reason}); choose another output folder") from error


@contextlib.contextmanager
def video_folder(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden folder that takes the place of `final` when the block ends well, and is removed if not.

    Raises:
      WriteError: it cannot be written any more.
    """
    partial, old = (final.with_name(f".{final.name}.{kind}") for kind in ("partial", "old"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        with writing(partial):
            partial.mkdir(parents=True)
        yield partial
        with writing(final):
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
                final.rename(old)
            partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_video(folder: pathlib.Path, video_id: str, classes: ClassTable) -> Iterator[PanopticFrame]:
    """Frames of one video of a result folder; tracks are numbered from 1 in the order in which they appear.

    Raises:
      UserError: the folder has no such video, or a PNG is missing.
    """
    record = read_records(pathlib.Path(folder)).get(video_id)
    if record is None:
        raise UserError(f"{folder}: its pred.json has no video {video_id!r}; predict that video first")
    yield from read_frames(pathlib.Path(folder), record, classes, {})


def read_frames(
    folder: pathlib.Path, record: dict, classes: ClassTable, numbers: dict[int, int]
) -> Iterator[PanopticFrame]:
    """Frames of one record of `read_records`.

    Args:
      folder: of the results.
      record: of the video.
      classes: of the results.
      numbers: segment id -> track; a track that is not in it gets the next number.

    Raises:
      UserError: a PNG is missing.
    """
    for row in record["annotations"]:
        stem = pathlib.Path(row["file_name"]).stem
        path = folder / "pan_pred" / record["video_id"] / f"{stem}.png"
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f"{path}: missing or damaged; expected the frame that pred.json lists, predict it again")
        yield decode_frame(stem, image[..., ::-1], row["segments_info"], classes, numbers)


def decode_frame(
    stem: str, image: np.ndarray, segments: list[dict], classes: ClassTable, numbers: dict[int, int]
) -> PanopticFrame:
    """The way back from RGB `[h, w, 3]` and its table; `numbers`, segment id -> track id, grows with new tracks."""
    ids = image.astype(np.int32) @ np.array([1, 256, 65536], np.int32)  # [h, w]
    positions = {number: category for category, number in enumerate(classes.official_ids)}
    keys, categories, tracks = [0], [UNKNOWN], [0]
    for row in sorted(segments, key=lambda row: row["id"]):
        category = positions[row["category_id"]]
        keys.append(row["id"])
        categories.append(category)
        number = numbers.get(row["id"], max(numbers.values(), default=0) + 1) if classes.is_thing[category] else 0
        tracks.append(number)
        numbers |= {row["id"]: number} if number else {}
    at = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)  # [h, w]
    unlisted = np.asarray(keys)[at] != ids
    if unlisted.any():
        raise UserError(f"frame {stem}: has the id {ids[unlisted][0]}, which pred.json does not list; predict it again")
    return PanopticFrame(stem, np.array(categories, np.uint8)[at], np.array(tracks, np.int32)[at])


def read_classes(folder: pathlib.Path) -> ClassTable:
    """The class list of a result folder.

    Raises:
      UserError: it has none, or a damaged one.
    """
    path = folder / CLASS_FILE
    try:
        return from_rows(json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(
            f"{path}: is missing, as in results of version 0.1 and of other programs; run the same `vps-jax predict` "
            "again, which adds it and keeps finished videos, or give the truth with --truth"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: is no class list ({error}); remove it and run the same predict again") from error


def read_records(folder: pathlib.Path) -> dict[str, dict]:
    """Records of `pred.json` by video, empty if there is none."""
    path = folder / "pred.json"
    if not path.exists():
        return {}
    try:
        records = json.loads(path.read_text())["annotations"]
        by_video = {record["video_id"]: record for record in records}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no VIPSeg result list; move it away or choose another folder") from error
    if len(by_video) < len(records):
        names = [record["video_id"] for record in records]
        double = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: video {double} stands in it twice; keep one of the two")
    return by_video
