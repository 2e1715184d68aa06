"""The command `predict`: a user's files through a checkpoint or an ensemble."""

import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vps_jax.config import EnsembleConfig
from vps_jax.evaluation import outputs
from vps_jax.infer.predict import Report
from vps_jax.media import given_objects
from vps_jax.media.selection import Selection, seconds
from vps_jax.media.submission_archive import write_archive
from vps_jax.runs import ensemble_experiment, experiment
from vps_jax.types import UserError
from vps_jax.viz.overlay import Style


def selection(start: str, end: str | None, stride: int, fps: float | None, max_frames: int | None) -> Selection:
    """Which frames are read, from options of the command line.

    Raises:
      UserError: a value is not a time, or a number is out of range.
    """
    return Selection(seconds(start), None if end is None else seconds(end), stride, fps, max_frames)


def predict(
    inputs: Sequence[str],
    output: pathlib.Path,
    *,
    checkpoint: pathlib.Path | None,
    ensemble: Callable[[], EnsembleConfig],
    weights: str,
    asked: Mapping[str, Any],
    devices: int | str,
    first_masks: pathlib.Path | None,
    points: pathlib.Path | None,
    archive: pathlib.Path | None,
    opacity: float,
    legend: bool,
    classes: Sequence[str] | None,
    **options,
) -> Report:
    """Segment a user's files. Finished videos are skipped, and unreadable ones are reported at the end.

    Args:
      inputs: see `media.sources.open_videos`.
      output: result folder.
      checkpoint: see `train.checkpoint.find_step`; None for the ensemble.
      ensemble: returns the config of an ensemble; called if there is no checkpoint.
      weights, asked, devices: see `experiment.predict_with_checkpoint`.
      first_masks, points: objects to follow, see `media.given_objects`; they ask for the task `vos`.
      archive: zip file for submission, written if no video failed; None for none.
      opacity, legend, classes: see `viz.overlay.Style`.
      options: further arguments of `infer.predict.predict`, and `resume`.

    Raises:
      UserError: nothing to read, no checkpoint, or `output` or `archive` cannot be written.
    """
    outputs.check((archive,), ())
    asked = for_objects(asked, first_masks, points)
    options = {"keep_going": True, "style": Style(opacity, True, legend, classes), **options}
    if checkpoint is None:
        report = ensemble_experiment.predict(inputs, ensemble(), output, **options)
    else:
        report = experiment.predict_with_checkpoint(
            inputs, checkpoint, output, weights=weights, asked=asked, devices=devices,
            show=shower(first_masks, points), **options,
        )  # fmt: skip
    print(report.summary(output))
    for _, reason in report.failed:
        print(f"failed: {reason}", file=sys.stderr)
    if archive is not None and not report.failed:
        print(f"{write_archive(output, archive)} files -> {archive}")
    return report


def for_objects(
    asked: Mapping[str, Any], first_masks: pathlib.Path | None, points: pathlib.Path | None
) -> Mapping[str, Any]:
    """What is asked of a checkpoint, for the task `vos` if objects are given.

    Raises:
      UserError: objects are given for another task, or masks and points at once.
    """
    given = [f"{name} {path}" for name, path in (("--first-masks", first_masks), ("--points", points)) if path]
    task = asked.get("task")
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: objects are given twice; give one of the two")
    if given and task not in (None, "vos"):
        raise UserError(f"{given[0]}: task {task!r} follows no objects; leave one of the two out")
    return {**asked, "task": "vos"} if given else asked


def shower(first_masks: pathlib.Path | None, points: pathlib.Path | None):
    """What gives videos their objects; None where none are given."""
    if first_masks is not None:
        return functools.partial(given_objects.with_masks, source=first_masks)
    return None if points is None else functools.partial(given_objects.with_points, source=points)
