"""Panoptic frames drawn over images: colours per track, contours, names, a legend of what is seen."""

import colorsys
import difflib
from collections.abc import Collection
from typing import NamedTuple

import cv2
import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.types import PanopticFrame, UserError

FONT = cv2.FONT_HERSHEY_SIMPLEX
UNKNOWN = 255
THINGS = 256  # segments: 0..255 stuff classes, beyond it tracks
REDS = (0.06, 0.9)  # hues of tracks; VIPSeg's sky, grass, road and trees are the pink and red ones beyond
SKETCH_SIDE = 360  # pixels: names are placed on a small copy
LEAST_STUFF, LEAST_THING = 0.02, 0.0005  # share of the image from which on a segment gets a name


class Style(NamedTuple):
    """How a frame is drawn.

    Attributes:
      opacity: of the colours, 0..1.
      names: write names of things and of large stuff.
      legend: list what is seen in the upper left corner.
      classes: names of the classes that are drawn; None for all.
    """

    opacity: float = 0.5
    names: bool = True
    legend: bool = False
    classes: Collection[str] | None = None


class Segments(NamedTuple):
    """The segments of a frame.

    Attributes:
      index: of each pixel's segment in `values`, `[h, w]`; uint8 unless there are more.
      values: int `[n]`, ascending, see `segments_of`.
      areas: int `[n]`, pixels.
    """

    index: np.ndarray
    values: np.ndarray
    areas: np.ndarray


class Named(NamedTuple):
    """A segment: its value, class and track (0 for stuff), and its share of the image."""

    segment: int
    category: int
    track: int
    share: float


def track_color(track_id: int) -> tuple[int, int, int]:
    """A strong colour per track, the same one in every frame and run; neighbouring ids are far apart in hue."""
    low, high = REDS
    hue = low + (high - low) * (track_id * 0.618033988749895 % 1.0)  # golden ratio: evenly spread for any number
    value = (1.0, 0.8, 0.9)[track_id % 3]
    return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue, 0.85, value))


def colorize(frame: PanopticFrame, table: ClassTable) -> np.ndarray:
    """RGB uint8 `[h, w, 3]`: stuff in its class colour, things in the colour of their track, unknown black."""
    return painted(segments_in(frame), table)


def painted(seen: Segments, table: ClassTable) -> np.ndarray:
    """See `colorize`."""
    colors = np.zeros((max(256, len(seen.values)), 1, 3), np.uint8)
    for i, segment in enumerate(seen.values.tolist()):
        if segment > THINGS:
            colors[i] = track_color(segment - THINGS)
        elif segment < len(table.colors):
            colors[i] = table.colors[segment]
    return cv2.applyColorMap(seen.index, colors) if len(colors) == 256 else colors[seen.index, 0]


def segments_in(frame: PanopticFrame) -> Segments:
    """The segments of a frame, numbered without gaps: every further step is quick on bytes."""
    segments = segments_of(frame)
    areas = np.bincount(segments.ravel())
    values = np.flatnonzero(areas)
    places = np.zeros(len(areas), np.uint8 if len(values) <= 256 else np.int32)
    places[values] = np.arange(len(values))
    return Segments(places[segments], values, areas[values])


def segments_of(frame: PanopticFrame) -> np.ndarray:
    """int32 `[h, w]`: the class of stuff, `THINGS` + track of things."""
    return np.where(frame.track_ids > 0, frame.track_ids + THINGS, frame.categories).astype(np.int32, copy=False)


def overlay(
    image: np.ndarray, frame: PanopticFrame, table: ClassTable, style: Style = Style()  # noqa: B008  (immutable)
) -> np.ndarray:  # fmt: skip
    """A panoptic frame over its image.

    Args:
      image: RGB uint8 `[h, w, 3]`.
      frame: of the same size.
      table: class names and colours.
      style: what is drawn.

    Returns:
      RGB uint8 `[h, w, 3]`.
    """
    frame = only(frame, chosen_ids(style, table))
    seen = segments_in(frame)
    drawn = cv2.addWeighted(image, 1 - style.opacity, painted(seen, table), style.opacity, 0)
    drawn.reshape(-1, 3)[np.flatnonzero(edges(seen.index))] = 255
    if style.classes is not None:
        hidden = frame.categories == UNKNOWN
        drawn[hidden] = image[hidden]
    named = named_segments(frame, seen) if style.names or style.legend else []
    taken = write_legend(drawn, named, table) if style.legend else []
    if style.names:
        write_names(drawn, seen, named, table, taken)
    return drawn


def chosen_ids(style: Style, table: ClassTable) -> list[int] | None:
    """The classes that are drawn; None for all.

    Raises:
      UserError: a name that no class has.
    """
    if not 0 <= style.opacity <= 1:
        raise UserError(f"opacity {style.opacity}: expected a number from 0 to 1")
    if style.classes is None:
        return None
    wrong = [name for name in style.classes if name not in table.names]
    if wrong:
        near = difflib.get_close_matches(wrong[0], table.names, n=3, cutoff=0.5) or table.names[:3]
        raise UserError(
            f"class {wrong[0]!r}: there is none of that name among {len(table.names)}; expected one such as "
            f"{', '.join(near)}"
        )
    return [table.names.index(name) for name in style.classes]


def only(frame: PanopticFrame, classes: Collection[int] | None) -> PanopticFrame:
    """The frame with all other classes unknown."""
    if classes is None:
        return frame
    shown = np.zeros(256, bool)
    shown[list(classes)] = True
    inside = shown[frame.categories]
    return frame._replace(
        categories=np.where(inside, frame.categories, UNKNOWN).astype(np.uint8),
        track_ids=np.where(inside, frame.track_ids, 0),
    )


def contours(frame: PanopticFrame) -> np.ndarray:
    """Bool `[h, w]`: pixels whose right or lower neighbour belongs to another segment."""
    return edges(segments_of(frame))


def edges(segments: np.ndarray) -> np.ndarray:
    """See `contours`; of anything that tells segments apart."""
    edge = np.zeros(segments.shape, bool)
    edge[:, :-1] |= segments[:, :-1] != segments[:, 1:]
    edge[:-1] |= segments[:-1] != segments[1:]
    return edge


def named_segments(frame: PanopticFrame, seen: Segments) -> list[Named]:
    """Segments that are large enough for a name, the largest first; of things a smaller share is enough."""
    named = []
    for i, (segment, area) in enumerate(zip(seen.values.tolist(), seen.areas.tolist(), strict=True)):
        share, track = area / seen.index.size, max(0, segment - THINGS)
        if segment != UNKNOWN and share >= (LEAST_THING if track else LEAST_STUFF):
            category = int(frame.categories.ravel()[np.argmax(seen.index == i)]) if track else segment
            named.append(Named(segment, category, track, share))
    return sorted(named, key=lambda one: -one.share)


def title(one: Named, table: ClassTable) -> str:
    """The name of a segment; a thing has the number of its track."""
    return f"{table.names[one.category]} {one.track}" if one.track else table.names[one.category]


def write_names(image: np.ndarray, seen: Segments, named: list[Named], table: ClassTable, taken: list) -> None:
    """Write names where segments are thickest. Things come first; a name that would cover another, or one of the boxes
    `taken`, is moved or left out."""
    scale = max(0.35, min(image.shape[:2]) / 900)
    shrink = max(1, -(-min(image.shape[:2]) // SKETCH_SIDE))
    sketch = seen.index[::shrink, ::shrink]
    for one in sorted(named, key=lambda one: not one.track):
        mask = sketch == np.searchsorted(seen.values, one.segment)
        if mask.any():
            x, y = inner_point(mask)
            write_text(image, title(one, table), (x * shrink, y * shrink), scale, taken)


def inner_point(mask: np.ndarray) -> tuple[int, int]:
    """The pixel `(x, y)` farthest from the border of a region; a centroid may lie outside."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)
    y, x = np.unravel_index(np.argmax(distance), distance.shape)
    return int(x) - 1, int(y) - 1


def write_text(image: np.ndarray, text: str, center: tuple[int, int], scale: float, taken: list) -> None:
    """White on a dark box, centred, inside the image, a line up or down where `taken` boxes are; else not at all."""
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    x = int(np.clip(center[0] - width // 2, 0, max(0, image.shape[1] - width)))
    for shift in (0, 1, -1, 2, -2):
        y = center[1] + height // 2 + shift * (height + below + 2)
        y = int(np.clip(y, height, max(height, image.shape[0] - 1 - below)))
        box = (max(0, x - 1), max(0, y - height - 1), x + width + 1, y + below)
        if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            break
    else:
        return
    taken.append(box)
    image[box[1] : box[3], box[0] : box[2]] //= 3
    cv2.putText(image, text, (x, y), FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)


def write_legend(image: np.ndarray, seen: list[Named], table: ClassTable) -> list[tuple[int, int, int, int]]:
    """Colours and names of what is seen, on a dark ground, as many as fit; returns the box `(x, y, x, y)` of it."""
    scale = max(0.35, min(image.shape[:2]) / 1200)
    line = round(30 * scale) + 4
    rows = seen[: max(0, image.shape[0] // line - 1)]
    if not rows:
        return []
    width = max(cv2.getTextSize(title(one, table), FONT, scale, 1)[0][0] for one in rows) + 2 * line
    image[: line * len(rows) + 4, : min(width, image.shape[1])] //= 4
    for i, one in enumerate(rows):
        color = track_color(one.track) if one.track else table.colors[one.category]
        image[4 + i * line : (i + 1) * line, 4:line] = color
        cv2.putText(
            image, title(one, table), (line + 4, (i + 1) * line - 3), FONT, scale, (255, 255, 255), 1, cv2.LINE_AA
        )
    return [(0, 0, width, line * len(rows) + 4)]
