"""VSPW's truth root and result folder on disk (spec: metrics 2, 4.3, 5.3).

Truth: `<split>.txt`, `data/<video>/mask/<stem>.png`, 8-bit, class + 1, any other value is void.
Prediction: `<video>/<stem>.png`, 8-bit, class 0..123, any other value is no class. Sizes must be equal.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.evaluation import checked, images, scoring
from vps_jax.evaluation.plan import Job, Plan, TruthSource, keep_videos
from vps_jax.evaluation.protocol import SEMANTIC, Settings
from vps_jax.evaluation.vipseg_folders import png_stems
from vps_jax.types import UserError


class MaskPair(NamedTuple):
    """One frame's two files."""

    truth: pathlib.Path
    prediction: pathlib.Path


def plan(truth: TruthSource, predictions: pathlib.Path) -> Plan:
    """What a result folder has to be scored; `truth.path` is the split's list."""
    pairs = read_folders(truth.root, predictions, truth.path, truth.videos)
    jobs = [Job(video, len(frames), frames) for video, frames in pairs.items()]
    inputs = (truth.path, truth.root / "data", *(predictions / video for video in pairs))
    return Plan("vspw", SEMANTIC, truth.spec.classes, jobs, score, inputs)


def score(states: scoring.States, job: Job, settings: Settings) -> None:
    """Read one video and add it."""
    scoring.score_class_maps(states, job.video, load_frames(job.content), settings)


def read_folders(
    root: pathlib.Path, predictions: pathlib.Path, source: pathlib.Path, videos: Sequence[str] | None = None
) -> dict[str, list[MaskPair]]:
    """Every frame that a mask folder of the listed videos has.

    Raises:
      UserError: the list of the split, a video, or a frame is missing, or the results have a frame too many.
    """
    names = checked.read_list(source)
    if not names:
        raise UserError(f"{source}: no video in it; expected one video id per line")
    pairs = {}
    for video in keep_videos(names, videos, source):
        masks = _pngs(root / "data" / video / "mask", f"the masks of video {video}")
        predicted = _pngs(predictions / video, f"the predictions of video {video}")
        missing = [stem for stem in masks if stem not in predicted]
        if missing:
            raise UserError(f"{predictions / video / missing[0]}.png: no such file; frame {missing[0]} is missing")
        extra = [stem for stem in predicted if stem not in masks]
        if extra:
            raise UserError(f"{predicted[extra[0]]}: frame {extra[0]} of video {video} is not in the truth; remove it")
        pairs[video] = [MaskPair(masks[stem], predicted[stem]) for stem in masks]
    return pairs


def _pngs(folder: pathlib.Path, what: str) -> dict[str, pathlib.Path]:
    files = {stem: folder / f"{stem}.png" for stem in sorted(png_stems(folder, what))}
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
        truth = images.read_png(pair.truth, kind="grey")
        (h, w) = truth.shape
        if size not in (None, (h, w)):
            raise UserError(f"{pair.truth}: size is {w}x{h}, but the frames before are {size[1]}x{size[0]}")
        size = h, w
        prediction = images.read_png(pair.prediction, kind="grey", size=size)
        yield truth, prediction
