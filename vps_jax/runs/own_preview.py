"""A picture of a user's own data as they were prepared: frames with the names on their labels, and all classes."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax import files
from vps_jax.data import records
from vps_jax.data.own_prepare import PREVIEW, RECORDS
from vps_jax.datasets import ClassTable, LabelCode
from vps_jax.types import PanopticFrame, UserError
from vps_jax.viz import sheets
from vps_jax.viz.overlay import UNKNOWN, overlay

LOOKED_AT = 96  # frames, evenly over all, of which the sheet shows some
COLUMNS, CELLS = 3, 12
CELL_WIDTH, LEGEND_WIDTH = 480, 288  # pixels; the sheet is five columns of the legend wide
TITLE = 56  # letters that fit over a cell


class Example(NamedTuple):
    """A frame with its labels.

    Attributes:
      title: split, video and frame.
      image: RGB uint8 `[h, w, 3]`.
      labels: its classes, and a number per object that is the same in all frames of its video.
      classes: those that it shows.
    """

    title: str
    image: np.ndarray
    labels: PanopticFrame
    classes: frozenset[int]


def write(out: str | pathlib.Path, splits: Iterable[str]) -> pathlib.Path | None:
    """Write `preview.jpg` into a folder that `vps-jax data prepare own` wrote; nothing where no frame has a label.

    Args:
      out: the folder.
      splits: those that were prepared.

    Returns:
      The file.

    Raises:
      UserError: the records are not there, or the picture cannot be written.
    """
    out = pathlib.Path(out)
    opened = [records.open_records(out / RECORDS, split) for split in splits]
    examples = [example for one in opened for example in examples_of(one, LOOKED_AT // len(opened))]
    if not examples:
        return None
    if (out / PREVIEW).is_file() and not os.access(out, os.W_OK):  # a disk that is read-only by now
        return out / PREVIEW
    try:
        files.write_image(out / PREVIEW, sheet(examples, opened[0].classes))
    except OSError as error:
        raise UserError(f"{out / PREVIEW} cannot be written ({error.strerror}); make room and start again") from error
    return out / PREVIEW


def examples_of(opened: records.Records, most: int) -> Iterator[Example]:
    """Evenly chosen frames of a split that have a label."""
    places = [(video, i) for video in opened.videos for i in range(len(video.stems))]
    chosen = np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int)
    numbers: dict[str, dict[int, int]] = {}
    for video, i in (places[k] for k in np.unique(chosen)):
        image, values = records.read_frame(opened, video, i)
        if values.any():
            for value, members in records.combinations_of(opened, video).items():
                values = np.where(values == value, members[-1], values)
            labels = frame_of(video.stems[i], values, opened.labels, numbers.setdefault(video.name, {}))
            classes = frozenset(np.unique(labels.categories).tolist()) - {UNKNOWN}
            yield Example(f"{opened.split} {video.name}/{video.stems[i]}", image, labels, classes)


def frame_of(stem: str, values: np.ndarray, code: LabelCode, numbers: dict[int, int]) -> PanopticFrame:
    """Label values uint16 `[h, w]` as a frame; `numbers` has the number of every object so far, and grows."""
    tracks = np.zeros(values.shape, np.int32)
    for value in np.unique(values[code.is_instance[values]]).tolist():
        tracks[values == value] = numbers.setdefault(value, len(numbers) + 1)
    categories = np.where(code.classes[values] < 0, UNKNOWN, code.classes[values])
    return PanopticFrame(stem, categories.astype(np.uint8), tracks)


def shown(examples: Sequence[Example], most: int) -> list[Example]:
    """At most so many, in order: those that show classes which the ones before do not, then evenly chosen ones."""
    chosen: list[int] = []
    seen: frozenset[int] = frozenset()
    while len(chosen) < most:
        new = [len(example.classes - seen) for example in examples]
        best = int(np.argmax(new))
        if not new[best]:
            break
        chosen.append(best)
        seen |= examples[best].classes
    left = [i for i in range(len(examples)) if i not in chosen]
    even = np.linspace(0, len(left) - 1, min(len(left), most - len(chosen))).round().astype(int)
    return [examples[i] for i in sorted({*chosen, *(left[k] for k in even)})]


def sheet(examples: Sequence[Example], classes: ClassTable) -> np.ndarray:
    """Frames with their labels, and under them every class with its colour and share; RGB uint8 `[h, w, 3]`."""
    cells = []
    for example in shown(examples, CELLS):
        small, labels = sheets.scale_frame(example.image, example.labels, width=CELL_WIDTH)
        cells.append(sheets.side_by_side([overlay(small, labels, classes)], [example.title[-TITLE:]]))
    sizes = sum(np.bincount(example.labels.categories.ravel(), minlength=UNKNOWN + 1) for example in examples)
    entries = [(classes.colors[c], entry(c, sizes, classes)) for c in range(len(classes.names))]
    width = COLUMNS * CELL_WIDTH
    return np.concatenate([
        sheets.in_columns(cells, COLUMNS), sheets.legend_of(entries, width=width, column_width=LEGEND_WIDTH),
    ])  # fmt: skip


def entry(category: int, sizes: np.ndarray, classes: ClassTable) -> str:
    """Text of a class: its name, whether it is a thing, its share of the pixels of all frames that were looked at."""
    share = sizes[category] / sizes.sum()
    words = f"{share:.1%}" if share >= 0.0005 else "under 0.1%" if share else "not seen"
    return f"{classes.names[category]} {words}" + (", a color per object" if classes.is_thing[category] else "")
