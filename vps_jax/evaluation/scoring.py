"""The states of several metrics fed side by side: one pass over the frames of a video feeds them all."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from vps_jax.evaluation import counts as counting
from vps_jax.evaluation.metrics import Metric
from vps_jax.evaluation.plan import Job
from vps_jax.evaluation.protocol import Settings, State
from vps_jax.types import UserError

States = dict[str, State]


def make_states(metrics: Mapping[str, Metric], settings: Settings) -> States:
    """Empty state of each metric."""
    return {name: row.load().start(settings) for name, row in metrics.items()}


def merge(states: States, others: States) -> None:
    """Take the videos of `others` into `states`."""
    for name, state in states.items():
        state.merge(others[name])


def compute(states: States) -> dict:
    """Metric -> its numbers, in percent."""
    return {name: state.compute() for name, state in states.items()}


def add_counts(states: States, video: str, counts: counting.VideoCounts) -> None:
    """Add a counted video to every state."""
    for state in states.values():
        state.update(video, counts)


def score_video(
    states: States,
    video: str,
    frames: Iterable[tuple[counting.SegmentFrame, counting.SegmentFrame]],
    settings: Settings,
) -> None:
    """Add a panoptic video from its frames, see `count_video`."""
    add_counts(states, video, count_video(states, frames, settings))


def count_video(
    states: States, frames: Iterable[tuple[counting.SegmentFrame, counting.SegmentFrame]], settings: Settings
) -> counting.VideoCounts:
    """Counts of a panoptic video; on the way the metrics that watch see its frames.

    Args:
      states: what is scored; `add_counts` must end the video.
      frames: (truth, prediction) of each frame, of one size; two are held at a time.
      settings: as the states were started with.
    """
    watchers = [state.watch for state in states.values() if hasattr(state, "watch")]
    pairs, truth_tables, prediction_tables = [], [], []
    for truth, prediction in frames:
        lengths, (truth_ids, prediction_ids) = counting.runs(truth.pixels, prediction.pixels)
        pairs.append(counting.count_runs(lengths, truth_ids, prediction_ids))
        truth_tables.append(truth.segments)
        prediction_tables.append(prediction.segments)
        if watchers:
            shape, dtype = truth.pixels.shape[:2], map_type(len(settings.classes.names))
            # as VSPW's masks: class + 1 in the truth, 0 is void
            truth_classes = (_classes_of(truth_ids, truth.segments) + 1).astype(dtype)
            classes = _classes_of(prediction_ids, prediction.segments)
            classes = np.where(classes < 0, np.iinfo(dtype).max, classes).astype(dtype)
            maps = [np.repeat(values, lengths).reshape(shape) for values in (truth_classes, classes)]
            for watch in watchers:
                watch(*maps)
    return counting.join_frames(pairs, truth_tables, prediction_tables)


def score_class_maps(
    states: States, video: str, frames: Iterable[tuple[np.ndarray, np.ndarray]], settings: Settings
) -> None:
    """Add a video of class maps: truth `[h, w]` class + 1, prediction class; other values are no class."""
    watchers = [state.watch for state in states.values() if hasattr(state, "watch")]
    num_classes = len(settings.classes.names)
    pairs, truth_tables, prediction_tables = [], [], []
    for truth, prediction in frames:
        lengths, (values, classes) = counting.runs(truth, prediction)
        truth_ids = np.where((values > 0) & (values <= num_classes), values, counting.VOID)
        ids = np.where((classes >= 0) & (classes < num_classes), classes + 1, counting.VOID)
        pairs.append(counting.count_runs(lengths, truth_ids, ids))
        truth_tables.append(_class_segments(truth_ids))
        prediction_tables.append(_class_segments(ids))
        for watch in watchers:
            watch(truth, prediction)
    add_counts(states, video, counting.join_frames(pairs, truth_tables, prediction_tables))


def score_job(score: Callable, settings: Settings, states: States, job: Job) -> None:
    """Score one video; every complaint names it."""
    what = f"video {job.video}"
    with one_line(what):
        try:
            score(states, job, settings)
        except UserError as error:
            raise UserError(str(error) if str(job.video) in str(error) else f"{what}: {error}") from None


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """What nobody expected becomes one line that names what was being read."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{what}: not enough memory; score fewer videos at once") from None
    except OSError as error:
        place = "" if error.filename is None or str(error.filename) in what else f": {error.filename}"
        raise UserError(f"{what}{place}: {error.strerror or error}; expected files that can be read") from None
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{what}: {line}; the evaluator did not expect this, please report it") from None


def map_type(num_classes: int) -> np.dtype:
    """The smallest unsigned type that holds class + 1 and a value for no class."""
    return np.dtype(np.uint8 if num_classes < 255 else np.uint16 if num_classes < 65535 else np.uint32)


def _classes_of(ids: np.ndarray, segments: counting.Segments) -> np.ndarray:
    """Class of each id by the frame's table, -1 where it is not listed; int64 `[n]`."""
    by_id = np.argsort(segments.ids)
    sorted_ids = np.append(segments.ids[by_id], -1)
    categories = np.append(segments.categories[by_id], -1)
    at = np.searchsorted(sorted_ids[:-1], ids)
    return np.where(sorted_ids[at] == ids, categories[at], -1)


def _class_segments(ids: np.ndarray) -> counting.Segments:
    """The table of a class map's frame: every class that occurs is one segment."""
    present = np.setdiff1d(ids, [counting.VOID])
    return counting.Segments(present, present - 1, np.zeros(len(present), bool), areas=None)
