"""VSPW's truth root and result folder on disk (spec: data_and_metrics 2, 4.3, 5.3).

Truth: `<split>.txt`, `data/<video>/mask/<stem>.png`, 8-bit, class + 1, any other value is void.
Prediction: `<video>/<stem>.png`, 8-bit, class 0..123, any other value is no class. Sizes must be equal.
"""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vps_jax.evaluation import images
from vps_jax.types import UserError


class MaskPair(NamedTuple):
    """One frame's two files."""

    truth: pathlib.Path
    prediction: pathlib.Path


def read_folders(root: pathlib.Path, predictions: pathlib.Path, split: str) -> dict[str, list[MaskPair]]:
    """Every frame that a mask folder of the split has.

    Raises:
      UserError: the list of the split, a video, or a frame is missing, or the results have a frame too many.
    """
    names = [line.strip() for line in (root / f"{split}.txt").read_text().splitlines() if line.strip()]
    videos = {}
    for video in names:
        masks = _pngs(root / "data" / video / "mask", f"the masks of video {video}")
        found = _pngs(predictions / video, f"the predictions of video {video}")
        missing = [stem for stem in masks if stem not in found]
        if missing:
            raise UserError(f"{predictions / video / missing[0]}.png: no such file; frame {missing[0]} is missing")
        extra = [stem for stem in found if stem not in masks]
        if extra:
            raise UserError(f"{found[extra[0]]}: frame {extra[0]} of video {video} is not in the truth; remove it")
        videos[video] = [MaskPair(masks[stem], found[stem]) for stem in masks]
    if not videos:
        raise UserError(f"{root / split}.txt: no video in it; expected one video id per line")
    return videos


def _pngs(folder: pathlib.Path, what: str) -> dict[str, pathlib.Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected {what} there")
    files = {path.stem: path for path in sorted(folder.glob("*.png")) if not path.name.startswith(".")}
    if not files:
        raise UserError(f"{folder}: no PNG in it; expected {what} there")
    return files


def load_frames(pairs: list[MaskPair]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decode frame by frame: truth and prediction uint8 `[h, w]`.

    Raises:
      UserError: not an 8-bit grey PNG, or two sizes.
    """
    size = None
    for pair in pairs:
        truth, prediction = (images.read_png(path, kind="grey") for path in pair)
        (h, w), (ph, pw) = truth.shape, prediction.shape
        if truth.shape != prediction.shape:
            raise UserError(f"{pair.prediction}: size is {pw}x{ph}, but the truth {pair.truth} is {w}x{h}")
        if size not in (None, truth.shape):
            raise UserError(f"{pair.truth}: size is {w}x{h}, but the frames before are {size[1]}x{size[0]}")
        size = truth.shape
        yield truth, prediction
