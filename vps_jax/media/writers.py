"""Result folders of VIPSeg (spec: data_and_metrics 4.1, tarvis 8.6) and of VSPW."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from vps_jax.files import write_json
from vps_jax.types import PanopticFrame, UserError

UNKNOWN = 255  # category of a pixel without class
THING_OFFSET = 256  # segments: 0..255 stuff classes, beyond it thing tracks


class SegmentColors:
    """Segment ids of one video as RGB colours, after the rules of the panoptic file format.

    A stuff class has the colour of its category in every frame. The first track of a thing class gets its category
    colour if no other segment has it, later ones a free colour within 30 per channel of it. Free colours are drawn
    from a generator seeded by the class, so that the same video gives the same file on every machine.
    """

    def __init__(self, categories: Sequence[dict]):
        """Categories are `{id, color, isthing}` each, as `taxonomy.categories` gives them."""
        self._base = {row["id"]: tuple(row["color"]) for row in categories}
        self._taken = {(0, 0, 0)} | {tuple(row["color"]) for row in categories if not row["isthing"]}
        self._tracks: dict[int, tuple[int, int, int]] = {}

    def stuff(self, category: int) -> tuple[int, int, int]:
        """Colour of a stuff class."""
        return self._base[category]

    def track(self, track_id: int, category: int) -> tuple[int, int, int]:
        """Colour of a track, the same one at every call."""
        if track_id not in self._tracks:
            color = self._free_color(category)
            self._taken.add(color)
            self._tracks[track_id] = color
        return self._tracks[track_id]

    def _free_color(self, category: int) -> tuple[int, int, int]:
        base, color, tries = self._base[category], self._base[category], 0
        random = np.random.default_rng((category, len(self._taken)))
        while color in self._taken:
            spread = 30 + tries // 1000  # a crowded class may go further away
            color = tuple(np.clip(base + random.integers(-spread, spread + 1, 3), 0, 255).tolist())
            tries += 1
        return color


def encode_frame(frame: PanopticFrame, colors: SegmentColors) -> tuple[np.ndarray, list[dict]]:
    """Segment ids and table of one frame.

    Returns:
      RGB uint8 `[h, w, 3]` with id = R + 256 G + 65536 B, 0 where the class is unknown; `segments_info`: rows of
      `id`, `category_id`, `iscrowd`, `area` in pixels; stuff first, then things by track.
    """
    segments = np.where(frame.track_ids > 0, frame.track_ids + THING_OFFSET, frame.categories)  # [h, w]
    area = np.bincount(segments.ravel())
    present = np.flatnonzero(area)
    table = np.zeros((len(area), 3), np.uint8)
    rows = []
    for segment in present[present != UNKNOWN].tolist():
        category = segment
        if segment > THING_OFFSET:
            at = np.argmax(segments == segment)
            category = int(frame.categories.ravel()[at])
            color = colors.track(segment - THING_OFFSET, category)
        else:
            color = colors.stuff(segment)
        table[segment] = color
        rows.append({"id": color_id(color), "category_id": category, "iscrowd": 0, "area": int(area[segment])})
    return table[segments], rows


def color_id(color: Sequence[int]) -> int:
    """R + 256 G + 65536 B."""
    return color[0] + 256 * color[1] + 65536 * color[2]


class VideoResult(NamedTuple):
    """An open video of a result folder: `write(frame)` takes its frames in order."""

    write: Callable[[PanopticFrame], None]


class VipsegWriter:
    """Writes one run's result folder, frame by frame.

    PNGs go to a hidden folder beside their place. When a video is whole its folder takes the place of an earlier one,
    and `pred.json`, replaced at once, lists it; videos of earlier runs stay listed. So a run that is stopped leaves a
    valid folder of the videos that were done.
    """

    def __init__(self, folder: pathlib.Path, *, categories: Sequence[dict]):
        """Makes the folder and checks that it can be written.

        Raises:
          UserError: it cannot.
        """
        self.folder = pathlib.Path(folder)
        self._categories = categories
        _make_writable(self.folder / "pan_pred")
        self._records = _read_records(self.folder)

    @contextlib.contextmanager
    def video(self, video_id: str) -> Iterator[VideoResult]:
        """The place of one video's frames."""
        colors = SegmentColors(self._categories)
        annotations = []

        with _video_folder(self.folder / "pan_pred", video_id) as folder:

            def write(frame: PanopticFrame) -> None:
                image, segments = encode_frame(frame, colors)
                _write_png(folder / f"{frame.stem}.png", image[..., ::-1])
                annotations.append({"file_name": f"{frame.stem}.jpg", "segments_info": segments})

            yield VideoResult(write)
        self._records[video_id] = {"video_id": video_id, "annotations": annotations}
        write_json(self.folder / "pred.json", {"annotations": list(self._records.values())})


class VspwWriter:
    """Writes VSPW's result layout, 8-bit class maps `<video>/<stem>.png` (spec: data_and_metrics 4.3)."""

    def __init__(self, folder: pathlib.Path):
        """Makes the folder and checks that it can be written.

        Raises:
          UserError: it cannot.
        """
        self.folder = pathlib.Path(folder)
        _make_writable(self.folder)

    @contextlib.contextmanager
    def video(self, video_id: str) -> Iterator[VideoResult]:
        """The place of one video's frames."""
        with _video_folder(self.folder, video_id) as folder:
            yield VideoResult(lambda frame: _write_png(folder / f"{frame.stem}.png", frame.categories))


def _make_writable(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: cannot be written ({reason}); choose another output folder") from error


@contextlib.contextmanager
def _video_folder(place: pathlib.Path, video_id: str) -> Iterator[pathlib.Path]:
    """A hidden folder that takes the place of `place / video_id` when the block ends well, and is removed if not."""
    partial, final, old = (place / name for name in (f".{video_id}.partial", video_id, f".{video_id}.old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _write_png(path: pathlib.Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 3]):
        raise UserError(f"{path}: cannot be written; expected room on the disk, free some")


def read_video(folder: pathlib.Path, video_id: str, *, thing_ids: Sequence[int]) -> Iterator[PanopticFrame]:
    """Frames of one video of a result folder; tracks are numbered from 1 in the order in which they appear.

    Raises:
      UserError: the folder has no such video, or a PNG is missing.
    """
    record = _read_records(pathlib.Path(folder)).get(video_id)
    if record is None:
        raise UserError(f"{folder}: its pred.json has no video {video_id!r}; predict that video first")
    numbers: dict[int, int] = {}
    for row in record["annotations"]:
        stem = pathlib.Path(row["file_name"]).stem
        path = pathlib.Path(folder) / "pan_pred" / video_id / f"{stem}.png"
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f"{path}: missing or damaged; expected the frame that pred.json lists, predict it again")
        yield decode_frame(stem, image[..., ::-1], row["segments_info"], thing_ids=thing_ids, numbers=numbers)


def decode_frame(
    stem: str, image: np.ndarray, segments: list[dict], *, thing_ids: Sequence[int], numbers: dict[int, int]
) -> PanopticFrame:
    """The way back from RGB `[h, w, 3]` and its table; `numbers`, segment id -> track id, grows with new tracks."""
    ids = image.astype(np.int32) @ np.array([1, 256, 65536], np.int32)  # [h, w]
    keys, categories, tracks = [0], [UNKNOWN], [0]
    for row in sorted(segments, key=lambda row: row["id"]):
        is_thing = row["category_id"] in thing_ids
        keys.append(row["id"])
        categories.append(row["category_id"])
        tracks.append(numbers.setdefault(row["id"], len(numbers) + 1) if is_thing else 0)
    at = np.searchsorted(keys, ids)  # [h, w]
    return PanopticFrame(stem, np.array(categories, np.uint8)[at], np.array(tracks, np.int32)[at])


def _read_records(folder: pathlib.Path) -> dict[str, dict]:
    """Records of `pred.json` by video, empty if there is none."""
    path = folder / "pred.json"
    if not path.exists():
        return {}
    try:
        return {record["video_id"]: record for record in json.loads(path.read_text())["annotations"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no VIPSeg result list; move it away or choose another folder") from error
