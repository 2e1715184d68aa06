"""Panoptic frames drawn over images: colours per track, contours, names."""

import colorsys

import cv2
import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.types import PanopticFrame

FONT = cv2.FONT_HERSHEY_SIMPLEX
UNKNOWN = 255


def track_color(track_id: int) -> tuple[int, int, int]:
    """A strong colour per track, the same one in every frame and run; neighbouring ids are far apart in hue."""
    hue = track_id * 0.618033988749895 % 1.0  # golden ratio: evenly spread for any number of tracks
    value = (1.0, 0.8, 0.9)[track_id % 3]
    return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue, 0.85, value))


def colorize(frame: PanopticFrame, table: ClassTable) -> np.ndarray:
    """RGB uint8 `[h, w, 3]`: stuff in its class colour, things in the colour of their track, unknown black."""
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(table.colors)] = table.colors
    out = colors[frame.categories]
    for track_id in _tracks(frame):
        out[frame.track_ids == track_id] = track_color(track_id)
    return out


def overlay(
    image: np.ndarray, frame: PanopticFrame, table: ClassTable, *, opacity: float = 0.5, names: bool = True
) -> np.ndarray:
    """A panoptic frame over its image.

    Args:
      image: RGB uint8 `[h, w, 3]`.
      frame: of the same size.
      table: class names and colours.
      opacity: of the colours, 0..1.
      names: write class names on things and on large stuff regions.

    Returns:
      RGB uint8 `[h, w, 3]`.
    """
    out = cv2.addWeighted(image, 1 - opacity, colorize(frame, table), opacity, 0)
    out[contours(frame)] = 255
    return _write_names(out, frame, table) if names else out


def contours(frame: PanopticFrame) -> np.ndarray:
    """Bool `[h, w]`: pixels whose right or lower neighbour belongs to another segment."""
    segments = frame.track_ids.astype(np.int64) * 256 + frame.categories
    edge = np.zeros(segments.shape, bool)
    edge[:, :-1] |= segments[:, :-1] != segments[:, 1:]
    edge[:-1] |= segments[:-1] != segments[1:]
    return edge


def _write_names(image: np.ndarray, frame: PanopticFrame, table: ClassTable) -> np.ndarray:
    height, width = frame.categories.shape
    scale = max(0.35, min(height, width) / 900)
    for mask, text, least in _labelled_segments(frame, table):
        if mask.sum() < least * mask.size:
            continue
        x, y = _inner_point(mask)
        _write(image, text, (x, y), scale)
    return image


def _labelled_segments(frame: PanopticFrame, table: ClassTable):
    """Mask, text and least share of the image that deserves a name; stuff first, so that things are written on top."""
    for category in np.unique(frame.categories[frame.track_ids == 0]).tolist():
        if category != UNKNOWN:
            yield (frame.categories == category) & (frame.track_ids == 0), table.names[category], 0.02
    for track_id in _tracks(frame):
        mask = frame.track_ids == track_id
        yield mask, f"{table.names[frame.categories[mask][0]]} {track_id}", 0.0005


def _tracks(frame: PanopticFrame) -> list[int]:
    return [i for i in np.unique(frame.track_ids).tolist() if i > 0]


def _inner_point(mask: np.ndarray) -> tuple[int, int]:
    """The pixel `(x, y)` farthest from the border of a region; a centroid may lie outside."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)
    y, x = np.unravel_index(np.argmax(distance), distance.shape)
    return int(x) - 1, int(y) - 1


def _write(image: np.ndarray, text: str, center: tuple[int, int], scale: float) -> None:
    """White on a dark box, centred, kept inside the image."""
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    x = int(np.clip(center[0] - width // 2, 0, max(0, image.shape[1] - width)))
    y = int(np.clip(center[1] + height // 2, height, max(height, image.shape[0] - 1 - below)))
    box = image[max(0, y - height - 1) : y + below, max(0, x - 1) : x + width + 1]
    box //= 3
    cv2.putText(image, text, (x, y), FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
