"""Two results of one truth side by side: differences of scores, classes and videos, and how sure they are.

The interval is that of a paired bootstrap over videos: both results are scored on the same resampled sets of videos, as
often as asked for, and the middle of the differences is reported. It tells how much of a difference hangs on which
videos happen to be in the set; it knows nothing of other sources of chance, such as the seed of a training.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vps_jax.evaluation import metrics as metric_table
from vps_jax.evaluation import tables
from vps_jax.evaluation.protocol import CLASSES, VIDEOS, Table
from vps_jax.types import UserError

CONFIDENCE = 0.95
MOST_SAMPLES = 100_000
SAME = ("layout", "split", "quirks_on", "quirks_off")  # of two results that can be compared


class Difference(NamedTuple):
    """One score of both results in percent, its difference, and the interval of the difference or None."""

    name: str
    a: float | None
    b: float | None
    difference: float | None
    interval: tuple[float, float] | None


class Comparison(NamedTuple):
    """What differs.

    Attributes:
      scores: the headline numbers.
      classes, videos: per name the first number of the first metric that has such a table: `(name, a, b, difference)`,
        sorted by the difference, best first.
      class_score, video_score: which number that is.
    """

    scores: list[Difference]
    classes: list[tuple]
    videos: list[tuple]
    class_score: str
    video_score: str


def compare(a: Mapping, b: Mapping, *, samples: int = 1000, seed: int = 0) -> Comparison:
    """Compare two results of `runner.evaluate_folders`, also as json.

    Args:
      a, b: the results; differences are `b - a`.
      samples: resampled sets of videos.
      seed: of the resampling.

    Raises:
      UserError: they were not scored alike, or share no metric; or numbers that cannot be used.
    """
    if not 0 <= samples <= MOST_SAMPLES or seed < 0:
        raise UserError(f"samples is {samples}, seed {seed}; expected samples 0..{MOST_SAMPLES}, a seed of 0 or more")
    check_alike(a, b)
    heads = [metric_table.headline(result) for result in (a, b)]
    intervals = bootstrap(a, b, samples=samples, seed=seed)
    scores = [
        Difference(name, heads[0].get(name), heads[1].get(name), _minus(heads[1].get(name), heads[0].get(name)),
                   intervals.get(name))
        for name in dict.fromkeys((*heads[0], *heads[1]))
    ]  # fmt: skip
    classes, class_score = _rows(a, b, CLASSES)
    videos, video_score = _rows(a, b, VIDEOS)
    return Comparison(scores, classes, videos, class_score, video_score)


def check_alike(a: Mapping, b: Mapping) -> None:
    """Raises UserError unless two results are of the same videos, scored in the same way."""
    for key in SAME:
        if a.get(key) != b.get(key):
            raise UserError(f"{key} is {a.get(key)!r} in the one result and {b.get(key)!r} in the other; score alike")
    shared = [name for name in metric_table.METRICS if name in a and name in b]
    if not shared:
        raise UserError("the two results share no metric; score both with the same --metrics")
    for name in shared:
        videos = [set(result[name].get("per_video", ())) for result in (a, b)]
        if videos[0] != videos[1]:
            video = min(videos[0] ^ videos[1])
            raise UserError(f"video {video} is in one of the results only; score both on the same videos")
    windows = [result.get("vpq", {}).get("windows", {}).keys() for result in (a, b)]
    if "vpq" in shared and windows[0] != windows[1]:
        raise UserError(f"windows are {', '.join(windows[0])} and {', '.join(windows[1])}; score both with the same")


def check_whole(result: Mapping, path: pathlib.Path) -> None:
    """Raises UserError unless a result that was read can be compared, if only with itself."""
    try:
        as_tables(compare(result, result, samples=1))
        json.dumps(result, allow_nan=False)
    except Exception as error:  # a json may be of another version, or changed by hand: any kind of error
        raise UserError(
            f"{path}: not whole as a result of `vps-jax evaluate --json` ({type(error).__name__}: {error}); score again"
        ) from None


def bootstrap(a: Mapping, b: Mapping, *, samples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Interval of `b - a` of every score that its metric can resample, from sets of as many videos as there are."""
    rng = np.random.default_rng(seed)
    intervals, weights = {}, {}
    for name, row in metric_table.METRICS.items():
        metric = row.load()
        if name not in a or name not in b or not hasattr(metric, "resample"):
            continue
        count = len(a[name]["per_video"])
        if count not in weights:
            weights[count] = rng.multinomial(count, np.full(count, 1 / count), samples)
        one, other = (metric.resample(_sorted(result[name]), weights[count]) for result in (a, b))
        tail = 50 * (1 - CONFIDENCE)
        for score in one:
            known = (other[score] - one[score])[~np.isnan(other[score] - one[score])]
            if len(known):
                intervals[score] = tuple(np.percentile(known, [tail, 100 - tail]).tolist())
    return intervals


def _sorted(numbers: Mapping) -> dict:
    """The same with its videos in one order, so that weights mean the same video in both results."""
    return {**numbers, "per_video": dict(sorted(numbers["per_video"].items()))}


def _minus(b: float | None, a: float | None) -> float | None:
    return None if a is None or b is None else b - a


def _rows(a: Mapping, b: Mapping, kind: str) -> tuple[list[tuple], str]:
    """Both results' first number of a kind of table side by side."""
    pair = [next((table for table in metric_table.tables(result) if table.kind == kind), None) for result in (a, b)]
    if None in pair:
        return [], ""
    keys = tables.KEYS.get(kind, 1)
    values = [{row[min(1, keys - 1)]: row[keys] for row in table.rows} for table in pair]
    rows = [
        (name, values[0].get(name), values[1].get(name), _minus(values[1].get(name), values[0].get(name)))
        for name in dict.fromkeys((*values[0], *values[1]))
    ]
    return sorted(rows, key=lambda row: -(row[3] or 0.0)), pair[0].columns[keys]


def as_tables(comparison: Comparison) -> list[Table]:
    """The comparison as tables; the first has the scores."""
    percent = f"{100 * CONFIDENCE:.0f} % interval"
    scores = [(one.name, one.a, one.b, one.difference, _interval(one.interval)) for one in comparison.scores]
    differences = [Table("scores", "Differences in percent", ("score", "A", "B", "B - A", percent), scores)]
    for kind, one, rows, score in (
        (CLASSES, "class", comparison.classes, comparison.class_score),
        (VIDEOS, "video", comparison.videos, comparison.video_score),
    ):
        if rows:
            differences.append(Table(kind, f"{score} of {kind}, gains first", (one, "A", "B", "B - A"), rows))
    return differences


def _interval(interval: tuple[float, float] | None) -> str | None:
    return None if interval is None else f"{interval[0]:+.2f} .. {interval[1]:+.2f}"
