"""What there is to score: the videos of a truth, each with its frames of both sides."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from vps_jax.datasets import ClassTable, DatasetSpec
from vps_jax.types import UserError


class Job(NamedTuple):
    """One video: its name, its number of frames, and what its layout's `score` needs to read it."""

    video: str
    frames: int
    content: Any


class TruthSource(NamedTuple):
    """Where a truth lies, and what of it is asked for.

    Attributes:
      root: folder, or the json of a truth that is a file alone.
      split: of the truth.
      spec: its data set.
      path: the file or folder that says that the split's truth is there.
      videos: those wanted; None: all.
    """

    root: pathlib.Path
    split: str
    spec: DatasetSpec
    path: pathlib.Path
    videos: Sequence[str] | None = None


class Plan(NamedTuple):
    """What there is to score.

    Attributes:
      layout: name of the truth's layout.
      truth: kind of truth, see `protocol`.
      classes: the truth's class table.
      jobs: one per video.
      score: `(states, job, settings)` reads a video and adds it to the states; can be sent to another process.
      inputs: files and folders that are read, never to be written.
      notes: lines for the reader of the numbers.
      left: quirks of VIPSeg's scripts that those of this layout do not have, unless they are asked for.
    """

    layout: str
    truth: str
    classes: ClassTable
    jobs: list[Job]
    score: Callable
    inputs: tuple[pathlib.Path, ...]
    notes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def keep_videos(names: Sequence[str], wanted: Sequence[str] | None, source: pathlib.Path) -> list[str]:
    """The wanted ones of the names, in their order; all when None.

    Raises:
      UserError: a wanted video that is not there, or none is wanted.
    """
    if wanted is None:
        return list(names)
    wanted = dict.fromkeys(wanted)
    missing = [video for video in wanted if video not in set(names)]
    if missing or not wanted:
        problem = f"video {missing[0]} is not in it" if missing else "no video is asked for"
        raise UserError(f"{source}: {problem}; it has {len(names)}, {', '.join(list(names)[:3])}, ...")
    return [video for video in names if video in wanted]
