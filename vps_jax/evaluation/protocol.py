"""What a metric is: a state that takes videos, merges with other states, and gives numbers, headlines and tables.

A metric of one's own is a class with these members and one row of `metrics.METRICS`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation.quirks import OFFICIAL, Quirks

# kinds of truth, and what `update` gets of one video
PANOPTIC = "panoptic"  # counts.VideoCounts
SEMANTIC = "semantic"  # counts.VideoCounts; a class is one segment, its id is class + 1
INSTANCES = "instances"  # ap.TrackPair: true and predicted tracks with their masks

LEADERBOARD = (1, 2, 4, 6)


class Settings(NamedTuple):
    """What a metric needs to know before the first video.

    Attributes:
      classes: the truth's class table; a class without name is a gap in the ids and never occurs.
      windows: window lengths of VPQ in frames.
      quirks: quirks of the official scripts that are on.
    """

    classes: ClassTable
    windows: tuple[int, ...] = LEADERBOARD
    quirks: Quirks = OFFICIAL


SCORES, CLASSES, VIDEOS, MATRIX = "scores", "classes", "videos", "matrix"
OTHER_SCORES = "Other scores"  # tables of this title become one


class Table(NamedTuple):
    """Numbers to be shown or written: on the terminal, as csv, as markdown.

    Attributes:
      kind: SCORES; CLASSES, whose rows begin with class id, name and `thing` or `stuff`; VIDEOS, with the video;
        MATRIX, with a name.
      title: one line.
      columns: one name per cell; of CLASSES and VIDEOS they are unique among all metrics, and the first number is the
        one by which rows are ranked.
      rows: cells are text, numbers in percent, counts, or None where nothing is defined.
    """

    kind: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple]


class State(Protocol):
    """The state of one metric."""

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """The empty state."""

    def update(self, video: str, seen: Any) -> None:
        """Add one video; `seen` depends on the kind of truth, see above. ValueError when it was added before."""

    def merge(self, other: Self) -> None:
        """Take in the videos of another state; any order and grouping gives the same bits."""

    def compute(self) -> dict:
        """All numbers as json can hold them, in percent, None where nothing is defined; of no videos too."""

    @staticmethod
    def headline(numbers: Mapping) -> dict[str, float | None]:
        """The few numbers of `compute` that a training run follows."""

    @staticmethod
    def rows(numbers: Mapping) -> list[Table]:
        """The numbers of `compute` as tables."""


class Resampled(State, Protocol):
    """A metric whose numbers can be had of other sets of the same videos, for intervals over videos."""

    @staticmethod
    def resample(numbers: Mapping, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Some headline numbers of sets of the videos of `numbers['per_video']`.

        Args:
          numbers: of `compute`.
          weights: `[b, v]`, how often each video is in a set.

        Returns:
          Name -> float64 `[b]` in percent, nan where nothing is defined.
        """


class Watcher(State, Protocol):
    """A metric that also wants to see the pixels."""

    def watch(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """The next frame of the video that `update` will end.

        Args:
          truth: unsigned `[h, w]`, class + 1; other values are void.
          prediction: unsigned `[h, w]`, class; other values are no class.
        """


def other_scores(rows: list[tuple]) -> Table:
    """A SCORES table of single numbers, (name, percent) each, to stand among those of other metrics."""
    return Table(SCORES, OTHER_SCORES, ("score", "percent"), rows)


def per_class(numbers: Mapping, columns: Sequence[str], cells: Callable[[Mapping], Iterable]) -> Table:
    """The CLASSES table of `numbers['per_class']`; `cells` gives the columns' values of one class."""
    kinds = {True: "thing", False: "stuff"}
    rows = [(c, row["name"], kinds.get(row.get("isthing"), ""), *cells(row)) for c, row in numbers["per_class"].items()]
    return Table(CLASSES, f"{columns[0]} of classes", ("id", "class", "kind", *columns), rows)


def per_video(numbers: Mapping, columns: Sequence[str], cells: Callable[[Mapping], Iterable] | None = None) -> Table:
    """The VIDEOS table of `numbers['per_video']`; without `cells` the columns are the names of the values."""
    cells = cells or (lambda row: (row.get(name) for name in columns))
    rows = [(video, *cells(row)) for video, row in numbers["per_video"].items()]
    return Table(VIDEOS, f"{columns[0]} of videos", ("video", *columns), rows)


def merge_videos(videos: dict, others: Mapping) -> None:
    """Add what another state knows of its videos; ValueError when both have one."""
    both = sorted(videos.keys() & others.keys(), key=str)
    if both:
        raise ValueError(f"video {both[0]} is scored twice")
    videos.update(others)
