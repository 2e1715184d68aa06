"""Pictures made of pictures: side by side, contact sheets of a video, legends of what is in it."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.types import PanopticFrame
from vps_jax.viz.overlay import FONT, UNKNOWN, overlay, track_color

PAPER = 255
INK = (20, 20, 20)
LINE = 22  # height in pixels of a line of text
GAP = 4


def scale_frame(image: np.ndarray, frame: PanopticFrame, *, width: int) -> tuple[np.ndarray, PanopticFrame]:
    """An image `[h, w, 3]` and its labels at another width, aspect kept: linear (area when shrinking) and nearest."""
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    smooth = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    labels = [cv2.resize(x, size, interpolation=cv2.INTER_NEAREST) for x in (frame.categories, frame.track_ids)]
    return cv2.resize(image, size, interpolation=smooth), PanopticFrame(frame.stem, *labels)


def side_by_side(pictures: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Pictures `[h, w, 3]` of one height in a row, each under its title; RGB uint8."""
    columns = []
    for picture, title in zip(pictures, titles, strict=True):
        head = np.full((LINE, picture.shape[1], 3), PAPER, np.uint8)
        _text(head, title, (GAP, LINE - 6))
        columns += [np.concatenate([head, picture]), np.full((LINE + picture.shape[0], GAP, 3), PAPER, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def contact_sheet(
    images: Iterable[np.ndarray],
    frames: Sequence[PanopticFrame],
    table: ClassTable,
    *,
    columns: int = 4,
    cell_width: int = 320,
    rows: int = 6,
    legend: bool = True,
) -> np.ndarray:
    """Evenly chosen frames of a video with their panoptic labels, one legend under all of them.

    Args:
      images: RGB uint8 `[h, w, 3]`, one per frame, in the same order.
      frames: panoptic frames.
      table: class names and colours.
      columns, rows: at most so many cells.
      cell_width: in pixels.
      legend: draw it.

    Returns:
      RGB uint8 `[H, columns * cell_width, 3]`.
    """
    chosen = set(np.linspace(0, len(frames) - 1, min(len(frames), columns * rows)).round().astype(int).tolist())
    cells, shown = [], []
    for index, (image, frame) in enumerate(zip(images, frames, strict=True)):
        if index in chosen:
            small, labels = scale_frame(image, frame, width=cell_width)
            cells.append(side_by_side([overlay(small, labels, table)], [frame.stem]))
            shown.append(frame)
    sheet = in_columns(cells, columns)
    return np.concatenate([sheet, draw_legend(shown, table, width=columns * cell_width)]) if legend else sheet


def in_columns(cells: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Pictures uint8 `[h, w, 3]` of one width in rows of so many, each row as high as its highest."""
    rows = []
    for first in range(0, len(cells), columns):
        row = [*cells[first : first + columns]]
        row += [np.full_like(row[0], PAPER)] * (columns - len(row))
        height = max(len(cell) for cell in row)
        pads = [((0, height - len(cell)), (0, 0), (0, 0)) for cell in row]
        filled = [np.pad(cell, pad, constant_values=PAPER) for cell, pad in zip(row, pads, strict=True)]
        rows.append(np.concatenate(filled, axis=1))
    return np.concatenate(rows)


def draw_legend(
    frames: Sequence[PanopticFrame], table: ClassTable, *, width: int, column_width: int = 200
) -> np.ndarray:
    """Colour and name of every class and track in `frames`; RGB uint8 `[h, width, 3]`."""
    return legend_of(_legend_entries(frames, table), width=width, column_width=column_width)


def legend_of(
    entries: Sequence[tuple[tuple[int, int, int], str]], *, width: int, column_width: int = 200
) -> np.ndarray:
    """Colours with their texts in columns; RGB uint8 `[h, width, 3]`."""
    columns = max(1, width // column_width)
    lines = -(-len(entries) // columns)
    out = np.full((lines * LINE + GAP, width, 3), PAPER, np.uint8)
    for i, (color, text) in enumerate(entries):
        x, y = i % columns * column_width + GAP, i // columns * LINE + GAP
        out[y : y + LINE - 6, x : x + LINE - 6] = color
        _text(out, text, (x + LINE, y + LINE - 9))
    return out


def _legend_entries(frames: Sequence[PanopticFrame], table: ClassTable) -> list[tuple[tuple[int, int, int], str]]:
    """Stuff by class, then things by track."""
    stuff: set[int] = set()
    tracks: dict[int, int] = {}
    for frame in frames:
        stuff.update(np.unique(frame.categories[frame.track_ids == 0]).tolist())
        for track_id in np.unique(frame.track_ids[frame.track_ids > 0]).tolist():
            tracks[track_id] = int(frame.categories[frame.track_ids == track_id][0])
    stuff.discard(UNKNOWN)
    entries = [(table.colors[category], table.names[category]) for category in sorted(stuff)]
    return entries + [(track_color(i), f"{table.names[category]} {i}") for i, category in sorted(tracks.items())]


def _text(image: np.ndarray, text: str, corner: tuple[int, int]) -> None:
    cv2.putText(image, text, corner, FONT, 0.45, INK, 1, cv2.LINE_AA)
