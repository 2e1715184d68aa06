"""A run as one HTML file: each video with classes that can be switched off, its tracks and areas over time, scores.

The page needs no network and no server. Numbers are of all frames at full size; pictures are of some frames, evenly
chosen and made smaller, so that the file stays of a size that a browser opens. `page/` holds what draws it.
"""

import base64
import importlib.resources
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import IO, Any, NamedTuple

import cv2
import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation.protocol import Table
from vps_jax.types import PanopticFrame
from vps_jax.viz.overlay import THINGS, UNKNOWN, segments_of, track_color

QUALITY = 70  # of WebP, 1..100
MOST_POINTS = 600  # of a video's areas over time; of longer videos every so many frames are kept
SCRIPTS = ("state", "player", "charts", "tables", "start")  # in this order, as one script
HEAD, VIDEOS = "<!-- head -->", "<!-- videos -->"  # places in page/run_page.html


class Picture(NamedTuple):
    """One frame to look at.

    Attributes:
      frame: its position in the video.
      time: seconds of the source, None where it is not known.
      image: WebP in base64, None without a source.
      labels: see `pack_labels`.
      areas: pixels of the whole frame by class.
    """

    frame: int
    time: float | None
    image: str | None
    labels: str
    areas: dict[int, int]


@dataclass(frozen=True)
class Head:
    """What the page says before any video.

    Attributes:
      title: of the run.
      classes: `{name, thing, color}` in the order of the class list.
      videos: `{name, frames}` in order.
      notes: lines about the page as a whole.
      tables: of an evaluation or comparison, under their headings.
      plots: `{title, png}` with a PNG in base64.
    """

    title: str
    classes: list[dict]
    videos: list[dict]
    notes: Sequence[str] = ()
    tables: Sequence[dict] = ()
    plots: Sequence[dict] = ()


class VideoPage:
    """Collects what the page shows of one video, frame by frame; only small pictures are held."""

    def __init__(self, frames: int, chosen: Iterable[int], *, side: int, pixel_aspect: Fraction = Fraction(1)):
        """Nothing is drawn yet.

        Args:
          frames: length of the video.
          chosen: positions of the frames with pictures.
          side: longest side of a picture in pixels.
          pixel_aspect: width of a pixel over its height.
        """
        self._chosen, self._side, self._aspect = frozenset(chosen), side, float(pixel_aspect)
        self._step = -(-frames // MOST_POINTS)
        self._stems: list[str] = []
        self._size = (0, 0)
        self._segments: dict[int, int] = {UNKNOWN: 0}  # segment -> its number in the label maps
        self._categories: dict[int, int] = {}  # track -> class
        self._areas: dict[int, np.ndarray] = {}  # class -> pixels of every frame
        self._frames = frames
        self._seen: dict[int, dict[str, Any]] = {}  # track -> spans and pixels
        self._pictures: list[Picture] = []

    def wants(self, position: int) -> bool:
        """Whether the frame at a position gets a picture."""
        return position in self._chosen

    def add(self, frame: PanopticFrame, image: np.ndarray | None = None, time: float | None = None) -> None:
        """Take the next frame, with its image RGB uint8 `[h, w, 3]` if it gets a picture and the source is there."""
        position, segments = len(self._stems), segments_of(frame)
        self._stems.append(frame.stem)
        self._size = segments.shape
        pixels = np.bincount(segments.ravel())
        for segment in np.flatnonzero(pixels).tolist():
            self._segments.setdefault(segment, len(self._segments))
            category = segment
            if segment > THINGS:
                category = int(frame.categories.ravel()[np.argmax(segments == segment)])
                self._categories[segment - THINGS] = category
                self._see(segment - THINGS, position, int(pixels[segment]))
            if category != UNKNOWN:
                areas = self._areas.setdefault(category, np.zeros(self._frames, np.int64))
                areas[position] += pixels[segment]
        if position in self._chosen:
            self._pictures.append(self._draw(position, segments, image, time))

    def _see(self, track: int, position: int, pixels: int) -> None:
        row = self._seen.setdefault(track, {"spans": [], "pixels": 0})
        if row["spans"] and row["spans"][-1][1] == position - 1:
            row["spans"][-1][1] = position
        else:
            row["spans"].append([position, position])
        row["pixels"] += pixels

    def _draw(self, position: int, segments: np.ndarray, image: np.ndarray | None, time: float | None) -> Picture:
        size = picture_size(segments.shape, self._side, self._aspect)
        numbers = np.zeros(int(segments.max()) + 1, np.uint16)
        known = [segment for segment in self._segments if segment < len(numbers)]
        numbers[known] = [self._segments[segment] for segment in known]
        small = cv2.resize(numbers[segments], size, interpolation=cv2.INTER_NEAREST)
        areas = {category: int(areas[position]) for category, areas in self._areas.items() if areas[position]}
        return Picture(position, time, None if image is None else pack_image(image, size), pack_labels(small), areas)

    def content(
        self, name: str, classes: ClassTable, *, scores: Mapping[int, float | None] | None = None,
        rows: Sequence[tuple[str, Any]] = (), notes: Sequence[str] = (),
    ) -> dict[str, Any]:  # fmt: skip
        """All that the page knows of the video, as json holds it.

        Args:
          name: of the video.
          classes: of its results.
          scores: mean score 0..1 by track.
          rows: (name, value) of the video's own numbers in an evaluation.
          notes: lines about it.
        """
        width, height = picture_size(self._size, self._side, self._aspect)
        return {
            "name": name,
            "size": list(self._size),
            "picture": [height, width],
            "stems": self._stems,
            "step": self._step,
            "segments": [self._segment(segment, classes) for segment in self._segments],
            "areas": {category: areas[:: self._step].tolist() for category, areas in sorted(self._areas.items())},
            "classes": [self._class_row(category) for category in sorted(self._areas)],
            "tracks": [self._track_row(track, scores or {}) for track in sorted(self._seen)],
            "pictures": [picture._asdict() for picture in self._pictures],
            "scores": [list(row) for row in rows],
            "notes": list(notes),
        }

    def _segment(self, segment: int, classes: ClassTable) -> dict[str, Any]:
        if segment == UNKNOWN:
            return {"class": -1, "track": 0, "color": [0, 0, 0]}
        if segment < THINGS:
            return {"class": segment, "track": 0, "color": list(classes.colors[segment])}
        track = segment - THINGS
        return {"class": self._categories[track], "track": track, "color": list(track_color(track))}

    def _class_row(self, category: int) -> dict[str, Any]:
        shares = self._areas[category] / (self._size[0] * self._size[1])
        return {
            "class": category, "frames": int(np.count_nonzero(shares)), "mean": round(float(shares.mean()), 6),
            "most": round(float(shares.max()), 6),
        }  # fmt: skip

    def _track_row(self, track: int, scores: Mapping[int, float | None]) -> dict[str, Any]:
        spans = self._seen[track]["spans"]
        frames = sum(last - first + 1 for first, last in spans)
        return {
            "track": track, "class": self._categories[track], "segment": self._segments[track + THINGS],
            "spans": spans, "frames": frames, "pixels": round(self._seen[track]["pixels"] / frames, 2),
            "score": scores.get(track),
        }  # fmt: skip


def picture_size(shape: Sequence[int], side: int, aspect: float) -> tuple[int, int]:
    """Width and height of a picture with square pixels whose longest side is at most `side`; never enlarged."""
    height, width = shape[0], shape[1] * aspect
    scale = min(1.0, side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def pack_image(image: np.ndarray, size: tuple[int, int]) -> str:
    """RGB uint8 `[h, w, 3]` as WebP of `size` (width, height), in base64."""
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".webp", small[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return base64.b64encode(data.tobytes()).decode()


def pack_labels(labels: np.ndarray) -> str:
    """uint16 `[h, w]` in base64: zlib of all low bytes and then all high bytes, each row XOR the row above it.

    A canvas would decode a PNG through colour management, and some browsers add noise when it is read back.
    """
    rows = labels.copy()
    rows[1:] ^= labels[:-1]
    planes = (rows & 255).astype(np.uint8).tobytes() + (rows >> 8).astype(np.uint8).tobytes()
    return base64.b64encode(zlib.compress(planes, 9)).decode()


def table(rows: Table, heading: str) -> dict[str, Any]:
    """A table of an evaluation as the page draws it."""
    return {
        "heading": heading,
        "title": rows.title,
        "columns": list(rows.columns),
        "rows": [list(r) for r in rows.rows],
    }


def plot(title: str, png: bytes) -> dict[str, str]:
    """A picture of an evaluation."""
    return {"title": title, "png": base64.b64encode(png).decode()}


def class_rows(classes: ClassTable) -> list[dict]:
    """The class list as the page knows it."""
    columns = zip(classes.names, classes.is_thing, classes.colors, strict=True)
    return [{"name": name, "thing": bool(thing), "color": list(color)} for name, thing, color in columns]


def write_page(file: IO[str], head: Head, videos: Iterable[Mapping[str, Any]]) -> None:
    """Write the page; videos are written as they come, so that no more than one is held."""
    for part in page(head, videos):
        file.write(part)


def page(head: Head, videos: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The page in parts."""
    folder = importlib.resources.files("vps_jax.viz") / "page"
    frame, style = ((folder / f"run_page.{kind}").read_text() for kind in ("html", "css"))
    script = "\n".join((folder / f"{name}.js").read_text() for name in SCRIPTS)
    before, rest = frame.replace("/* style */", style).replace("/* script */", script).split(HEAD)
    between, after = rest.split(VIDEOS)
    yield before
    yield block("head", asdict(head))
    yield between
    for i, video in enumerate(videos):
        yield block(f"video{i}", video)
    yield after


def block(name: str, value: Any) -> str:
    """A value as json inside the page; a `<` in a name cannot end the block."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'
