"""Videos in and out: files, folders of frames, a VIPSeg or VSPW root; frames are decoded one at a time."""

import contextlib
import fractions
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import av
import cv2
import numpy as np

from vps_jax.types import UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".webm", ".mkv", ".mov")
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
DEFAULT_FPS = 6.0  # VIPSeg's frames are five or six a second


class Frame(NamedTuple):
    """Decoded frame: name without suffix, and RGB uint8 `[h, w, 3]`."""

    stem: str
    image: np.ndarray


class Video(NamedTuple):
    """A video whose frames can be decoded again and again.

    Attributes:
      video_id: name of the video in results.
      num_frames: as the container or folder says.
      fps: frames per second.
      frames: starts decoding from the first frame; raises `UserError` at a frame that cannot be decoded.
      size: height and width in pixels, from the first frame alone.
      stems: names of the frames, as the container or folder says.
    """

    video_id: str
    num_frames: int
    fps: float
    frames: Callable[[], Iterator[Frame]]
    size: Callable[[], tuple[int, int]]
    stems: tuple[str, ...]


def open_videos(path: str | pathlib.Path, *, split: str | None = None) -> list[Video]:
    """Whatever the user points at: a video file, a folder of frames, or the root of a data set.

    Args:
      path: `.mp4`, `.avi`, `.webm`, `.mkv` or `.mov`; a folder of `.jpg` or `.png`; a VIPSeg root, raw (`imgs/`) or
        converted (`images/`); a VSPW root (`data/<video>/origin/`).
      split: `train`, `val` or `test`, for a root (default `val`).

    Raises:
      UserError: nothing there, not a video, no frames, a damaged frame, an unknown split.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"{path}: does not exist; expected a video, a folder of frames or a VIPSeg root")
    if path.is_file():
        return [open_video_file(path)]
    if image_folder(path) is not None:
        return open_vipseg(path, split=split or "val")
    if (path / "data").is_dir() and any(path.glob("*.txt")):
        return open_vspw(path, split=split or "val")
    if split is not None:
        raise UserError(f"{path}: split {split!r} needs a root with imgs/, images/ or data/, leave the split out")
    return [open_frame_folder(path)]


def open_video_file(path: pathlib.Path) -> Video:
    """A video file; stems are the eight-digit frame numbers from 0.

    Raises:
      UserError: not a video, or damaged so that it cannot be opened. Decoding raises it where the file breaks off.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: has no video stream; expected a video, choose another file")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
            count = stream.frames
            if any(entry.pos + entry.size > path.stat().st_size for entry in stream.index_entries):
                raise UserError(
                    f"{path}: is cut off, its index points behind its end; expected a whole video, copy it again"
                )
            next(container.decode(stream), None)
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a video ({_reason(error)}); expected mp4, avi or webm") from error
    count = count or _count_frames(path)
    stems = tuple(map(_frame_name, range(count)))
    size = functools.partial(_first_size, lambda: _decode_file(path))
    return Video(path.stem, count, fps, lambda: _decode_file(path), size, stems)


def _frame_name(index: int) -> str:
    return f"{index:08d}"


def _first_size(frames: Callable[[], Iterator[Frame]]) -> tuple[int, int]:
    with contextlib.closing(frames()) as first:
        return next(first).image.shape[:2]


def _count_frames(path: pathlib.Path) -> int:
    """Frames of a container that does not say, by reading packets without decoding them."""
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def _decode_file(path: pathlib.Path) -> Iterator[Frame]:
    done, end = 0, 0.0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                upright = np.rot90(
                    frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)
                )  # phones lie on their side
                yield Frame(_frame_name(done), np.ascontiguousarray(upright))
                done, end = done + 1, frame.time or 0.0
            whole = done and not _ends_early(container.format.name, stream, done, end)
    except av.error.FFmpegError as error:
        raise UserError(f"{path}: broken after frame {done} ({_reason(error)}); expected a whole video") from error
    if not whole:
        raise UserError(f"{path}: ends early, after {done} frames; expected a whole video, copy it again")


def _ends_early(container: str, stream, done: int, end: float) -> bool:
    """Whether a container promised more than was decoded.

    For mp4 and mov the index was checked at the start, and their frame counts prove nothing: a trimmed video keeps
    frames that are never shown.
    """
    if container == "avi":
        return done < stream.frames
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")  # Matroska and WebM: "00:00:05.000000000"
    minutes, _, seconds = rest.partition(":")
    if not seconds or not stream.average_rate:
        return False
    duration = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return end + 2.5 / float(stream.average_rate) < duration


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0]


def open_frame_folder(folder: pathlib.Path, *, stems: list[str] | None = None) -> Video:
    """A folder of frames in the order of their names, or the named ones. All files are checked for truncation at once.

    Raises:
      UserError: no frames, a missing or a damaged one.
    """
    files = _frame_files(folder, stems)
    for file in files:
        _check_whole(file)
    return _folder_video(folder.name, files, DEFAULT_FPS, lambda: (Frame(f.stem, read_image(f)) for f in files))


def _folder_video(video_id: str, files: Sequence[pathlib.Path], fps: float, frames) -> Video:
    stems = tuple(file.stem for file in files)
    return Video(video_id, len(files), fps, frames, lambda: read_image(files[0]).shape[:2], stems)


def _frame_files(folder: pathlib.Path, stems: Sequence[str] | None) -> list[pathlib.Path]:
    """Files of the named frames, or of all, in the order of their names."""
    listing = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {path.stem: path for path in listing if path.suffix.lower() in FRAME_SUFFIXES}
    if not found:
        raise UserError(f"{folder}: no .jpg or .png frames; expected a folder of frames, check the path")
    missing = [stem for stem in stems or () if stem not in found]
    if missing:
        raise UserError(f"{folder}: frame {missing[0]} is missing; expected {len(stems)} listed frames, restore it")
    return [found[stem] for stem in stems] if stems else list(found.values())


def read_image(path: pathlib.Path) -> np.ndarray:
    """RGB uint8 `[h, w, 3]` of an image file, as stored (no rotation by EXIF).

    Raises:
      UserError: the file is damaged.
    """
    data = _check_whole(path)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UserError(f"{path}: cannot be decoded; expected a JPEG or PNG image, restore it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _check_whole(path: pathlib.Path) -> bytes:
    """Bytes of an image file whose end is there: decoders fill the rest of a truncated JPEG with grey in silence."""
    data = path.read_bytes()
    if data.startswith(b"\x89PNG"):
        whole = b"IEND" in data[-64:]
    elif data.startswith(b"\xff\xd8"):
        whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0  # end of image behind the last start of scan
    else:
        raise UserError(f"{path}: is not an image ({len(data)} bytes); expected a JPEG or PNG image, restore it")
    if not whole:
        raise UserError(f"{path}: is truncated after {len(data)} bytes; expected a whole image, restore it")
    return data


def image_folder(root: pathlib.Path) -> pathlib.Path | None:
    """Where a VIPSeg root keeps its images: `images/` (converted) or `imgs/` (raw); None if this is no such root."""
    for name in ("images", "imgs"):
        if (root / name).is_dir():
            return root / name
    return None


def open_vipseg(root: pathlib.Path, *, split: str) -> list[Video]:
    """Videos of a split in the order of its truth json, else of its list (spec: data_and_metrics 1).

    Raises:
      UserError: no such split, a missing video, no frames, a damaged frame.
    """
    images = image_folder(root)
    listing = root / f"panoptic_gt_VIPSeg_{split}.json"
    if images.name == "images" and listing.is_file():
        videos = json.loads(listing.read_text())["videos"]
        chosen = {video["video_id"]: [pathlib.Path(i["file_name"]).stem for i in video["images"]] for video in videos}
    else:
        chosen = dict.fromkeys(_split_list(root, split))
    return [_lazy_folder(images / video_id, video_id, stems=stems) for video_id, stems in chosen.items()]


def open_vspw(root: pathlib.Path, *, split: str) -> list[Video]:
    """Videos of a split of VSPW in the order of its list (spec: data_and_metrics 2).

    Raises:
      UserError: as `open_vipseg`.
    """
    return [_lazy_folder(root / "data" / name / "origin", name, fps=15.0) for name in _split_list(root, split)]


def _split_list(root: pathlib.Path, split: str) -> list[str]:
    path = root / f"{split}.txt"
    if not path.is_file():
        raise UserError(f"{root}: split {split!r} has no {path.name}; choose another split")
    return path.read_text().split()


def _lazy_folder(
    folder: pathlib.Path, video_id: str, *, stems: list[str] | None = None, fps: float = DEFAULT_FPS
) -> Video:
    """A video of a data set; its files are checked when its decoding starts, not all data sets' at once."""
    if not folder.is_dir():
        raise UserError(f"{folder}: video folder is missing; expected the frames of a listed video, restore it")
    files = _frame_files(folder, stems)

    def frames() -> Iterator[Frame]:
        yield from open_frame_folder(folder, stems=stems).frames()

    return _folder_video(video_id, files, fps, frames)


class VideoWriter:
    """Writes RGB frames to an H.264 file (`.mp4`); odd sides are extended by one pixel. A context manager.

    The file appears under its name only when the block ends without an error.
    """

    def __init__(self, path: pathlib.Path, *, fps: float):
        self.path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._rate = fractions.Fraction(fps).limit_denominator(65535)
        self._container = None
        self._stream = None

    def __enter__(self) -> "VideoWriter":
        self._container = av.open(str(self._partial), "w", format="mp4")
        return self

    def write(self, image: np.ndarray) -> None:
        """Append `[h, w, 3]` uint8; all frames have one size."""
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": "20"})
            self._stream.height, self._stream.width = image.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind, error, trace) -> None:
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if kind is None and self._stream is not None:
            self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)
