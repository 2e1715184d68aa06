"""KITTI-STEP's truth and results on disk: one RGB PNG per frame (spec: data_sets 7).

Truth: `panoptic_maps/<split>/<sequence>/<frame>.png`. Prediction: `<sequence>/<frame>.png`, in the same code, at the
root of the results, or in `<split>/` or `panoptic_maps/<split>/` there. Red is the class, 255 is void; green and blue
are the number of a thing, 256 G + B. A true thing of number 0 is a crowd.
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import counts, images, scoring
from vps_jax.evaluation.counts import SegmentFrame, Segments
from vps_jax.evaluation.plan import Job, Plan, TruthSource, keep_videos
from vps_jax.evaluation.protocol import PANOPTIC, Settings
from vps_jax.evaluation.vipseg_folders import png_stems
from vps_jax.types import UserError

VOID = 255
# quirks of VIPSeg's copy of the score; that of this data set tells crowds by their number
LEFT = ("first_thing_crowd", "crowd_tracks")


def plan(truth: TruthSource, predictions: pathlib.Path) -> Plan:
    """What a result folder has to be scored; `truth.path` is the split's folder."""
    maps, results = truth.path, results_folder(predictions, truth.path)
    jobs = []
    for video in sequences(maps, truth.videos):
        stems = sorted(png_stems(maps / video, f"the maps of sequence {video}"))
        _check_stems(stems, results / video)
        pairs = [(maps / video / f"{stem}.png", results / video / f"{stem}.png") for stem in stems]
        jobs.append(Job(video, len(pairs), pairs))
    inputs = (maps, *(results / job.video for job in jobs))
    return Plan("kitti_step", PANOPTIC, truth.spec.classes, jobs, score, inputs, left=LEFT)


def sequences(truth: pathlib.Path, videos: Sequence[str] | None) -> list[str]:
    """Names of the sequences of a split's folder; those wanted, or all when None.

    Raises:
      UserError: none is there, or a wanted one is not.
    """
    names = sorted(path.name for path in truth.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise UserError(f"{truth}: no sequence in it; expected folders such as 0002")
    return keep_videos(names, videos, truth)


def results_folder(predictions: pathlib.Path, truth: pathlib.Path) -> pathlib.Path:
    """Where the sequences of the results are: at the root, or below it as those of the truth."""
    places = (predictions / truth.parent.name / truth.name, predictions / truth.name)
    return next((place for place in places if place.is_dir()), predictions)


def _check_stems(stems: list[str], folder: pathlib.Path) -> None:
    stems_there = png_stems(folder, f"the {len(stems)} predicted maps of sequence {folder.name}")
    for stem in sorted(set(stems) ^ stems_there)[:1]:
        if stem in stems_there:
            raise UserError(f"{folder / stem}.png: frame {stem} is not in the truth; remove it")
        raise UserError(f"{folder / stem}.png: no such file; frame {stem} of sequence {folder.name} is missing")


def score(states: scoring.States, job: Job, settings: Settings) -> None:
    """Read one sequence and add it."""
    scoring.score_video(states, job.video, _frames(job.content, settings.classes), settings)


def _frames(pairs: list[tuple[pathlib.Path, pathlib.Path]], classes: ClassTable) -> Iterator[tuple]:
    size = None
    for truth, prediction in pairs:
        pixels = images.read_png(truth, kind="RGB", size=size)
        size = pixels.shape[:2]
        yield (
            read_segments(pixels, classes, truth=True, path=truth),
            read_segments(images.read_png(prediction, kind="RGB", size=size), classes, truth=False, path=prediction),
        )


def read_segments(pixels: np.ndarray, classes: ClassTable, *, truth: bool, path: pathlib.Path) -> SegmentFrame:
    """Ids and table of one map, B, G, R `[h, w, 3]`; the id of a segment is 1 + 65536 class + number.

    Raises:
      UserError: a class that is none.
    """
    lengths, (values,) = counts.runs(pixels)  # R + 256 G + 65536 B
    category, number = values & 255, (values >> 8 & 255) << 8 | values >> 16
    wrong = category[(category != VOID) & (category >= len(classes.names))]
    if len(wrong):
        raise UserError(f"{path}: class {wrong[0]} in red; expected 0..{len(classes.names) - 1}, or 255 for void")
    thing = np.append(np.asarray(classes.is_thing, bool), np.zeros(256 - len(classes.names), bool))[category]
    ids = np.where(category == VOID, counts.VOID, 1 + (category << 16) + np.where(thing, number, 0))
    present, first = np.unique(ids, return_index=True)
    first = first[present != counts.VOID]
    crowd = truth & thing[first] & (number[first] == 0)
    table = Segments(ids[first], category[first], crowd, areas=None)
    return SegmentFrame(np.repeat(ids, lengths).reshape(pixels.shape[:2]), table)
