"""A draft of a class file from label PNGs: which values there are, how many pixels they have, a picture of each."""

import glob
import pathlib
from typing import NamedTuple

import numpy as np

from vps_jax import files
from vps_jax.datasets.class_file import MOST, chosen
from vps_jax.datasets.label_files import PALETTE, png_kind, read_mask
from vps_jax.datasets.labels import VALUES
from vps_jax.types import UserError

PER_CLASS = 1000  # Cityscapes' form: class * 1000 + object
CUSTOMARY_VOID = 255
DIM = 4  # by which the rest of a picture is darkened


class Found(NamedTuple):
    """One class that labels show.

    Attributes:
      value: of the class.
      share: of all pixels, 0..1.
      thing: whether the labels number its objects.
      color: of the palette, or None.
      example: the file in which it is largest.
    """

    value: int
    share: float
    thing: bool
    color: tuple[int, int, int] | None
    example: pathlib.Path


def draft(labels: str, out: pathlib.Path, *, progress: bool = True) -> list[Found]:
    """Write a draft class file and, in a folder beside it, a picture of each class.

    Args:
      labels: pattern of single-channel PNGs.
      out: YAML file to write; the pictures go to `<stem>_pictures/<value>.png`.
      progress: show a progress bar.

    Raises:
      UserError: no file fits, a file is no label map, there are too many values, or `out` is there already.
    """
    if out.exists():
        raise UserError(f"{out} is there already; expected a new file: name another or remove it")
    paths = [pathlib.Path(path) for path in sorted(glob.glob(labels, recursive=True))]
    if not paths:
        raise UserError(f"--labels {labels!r} fits no file; expected label PNGs, such as 'labels/train/*/*.png'")
    values = survey(paths, progress=progress)
    classes = [one for one in values if one.value != CUSTOMARY_VOID]
    if len(classes) > MOST:
        raise UserError(
            f"{labels}: {len(classes)} different values; expected at most {MOST} classes: are these class maps?"
        )
    pictures = out.with_name(f"{out.stem}_pictures")
    try:
        pictures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out.parent} cannot be written ({error.strerror}); choose another file for --out") from error
    for one in values:
        files.write_image(pictures / f"{one.value}.png", picture(one))
    files.write_text(out, "\n".join(lines(classes, len(classes) < len(values))) + "\n")
    return values


def survey(paths: list[pathlib.Path], *, progress: bool = False) -> list[Found]:
    """What label files show, by ascending value."""
    total, largest, example = np.zeros(VALUES, np.int64), np.zeros(VALUES, np.int64), {}
    objects, colors = set(), {}
    for path in files.track(paths, "labels", show=progress):
        mask = read_mask(path)
        colors = colors or palette(path)
        counts = np.bincount(mask.ravel(), minlength=VALUES)
        numbered = np.flatnonzero(counts[PER_CLASS:]) + PER_CLASS
        objects |= set((numbered // PER_CLASS).tolist())
        np.add.at(counts, numbered // PER_CLASS, counts[numbered])
        counts[PER_CLASS:] = 0
        total += counts
        for value in np.flatnonzero(counts > largest).tolist():
            largest[value], example[value] = counts[value], path
    values = np.flatnonzero(total).tolist()
    return [Found(v, total[v] / total.sum(), v in objects, colors.get(v), example[v]) for v in values]


def palette(path: pathlib.Path) -> dict[int, tuple[int, int, int]]:
    """Colours of the values of a palette PNG; empty for a grey one."""
    if png_kind(path)[1] != PALETTE:
        return {}
    from PIL import Image

    levels = Image.open(path).getpalette()
    return {i: tuple(levels[3 * i : 3 * i + 3]) for i in range(len(levels) // 3)}


def picture(entry: Found) -> np.ndarray:
    """The label map that shows a class best, uint8 `[h, w, 3]`: the class in white, the rest dim."""
    mask = read_mask(entry.example).astype(np.int64)
    mask = np.where(mask >= PER_CLASS, mask // PER_CLASS, mask)
    colors = np.array([color for color, _ in zip(chosen(), range(256), strict=False)], np.uint8)
    shown = colors[mask % 256] // DIM
    shown[mask == entry.value] = 255
    return shown


def lines(classes: list[Found], void: bool) -> list[str]:
    """The draft."""
    colors = chosen()
    rows = ["name: own", f"void: [{CUSTOMARY_VOID if void else ''}]", "classes:"]
    for one in classes:
        color = list(one.color if one.color and any(one.color) else next(colors))
        thing = ", thing: true" if one.thing else ""
        row = f"{{value: {one.value}, name: class_{one.value}, color: {color}{thing}}}"
        rows.append(f"  - {row}  # {one.share:.2%} of the pixels")
    return rows
