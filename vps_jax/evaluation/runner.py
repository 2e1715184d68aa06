"""Score results against the truth of a data set, which is told by what lies there."""

import functools
import os
import pathlib
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from vps_jax.evaluation import archives, checked, layouts, quirks, scoring, workers
from vps_jax.evaluation import metrics as metric_table
from vps_jax.evaluation.compare import check_whole
from vps_jax.evaluation.plan import Plan
from vps_jax.evaluation.protocol import Settings
from vps_jax.evaluation.reports import Reports
from vps_jax.evaluation.terminal import print_report
from vps_jax.evaluation.vpq import window_lengths
from vps_jax.types import UserError

__all__ = ["evaluate_folders", "print_report"]

PathLike = str | os.PathLike


def evaluate_folders(
    truth: PathLike,
    predictions: PathLike,
    *,
    split: str = "val",
    metrics: str | Sequence[str] | None = None,
    windows: str | Sequence[int] = "leaderboard",
    videos: Sequence[str] | None = None,
    processes: int = 1,
    quirks_on: Sequence[str] = (),
    quirks_off: Sequence[str] = (),
    per_video: PathLike | None = None,
    per_class: PathLike | None = None,
    confusion: PathLike | None = None,
    plots: PathLike | None = None,
    json_out: PathLike | None = None,
    progress: bool = False,
) -> dict:
    """Score a result folder. The numbers are the same, bit by bit, for every number of `processes`.

    Args:
      truth: root of a data set with truth, see docs/evaluation.md, or YouTube-VIS' json file.
      predictions: results in that data set's layout, or their zip file.
      split: split of the truth.
      metrics: names or a text `vpq,stq`, see `metrics.METRICS`; None is those scored by default, `all` is all of them.
      windows: VPQ's windows: `leaderboard`, `official-script`, `1,2,4` or a sequence of lengths in frames.
      videos: names of those to score; None is all.
      processes: number of processes that score videos, with this one.
      quirks_on, quirks_off: quirks of the official scripts to switch on or off, see `quirks.Quirks`.
      per_video, per_class, confusion, plots, json_out: files that get the numbers, see `reports.Reports`.
      progress: show a progress bar on standard error.

    Returns:
      What was scored (`layout`, `split`, `videos`, `frames`, ...) and one dictionary per metric, in percent; see
      docs/evaluation.md.

    Raises:
      UserError: a folder, file or frame is not as expected; the message names it.
    """
    truth, predictions = pathlib.Path(truth), pathlib.Path(predictions)
    if processes < 1:
        raise UserError(f"processes is {processes}; expected 1 or more")
    metric_table.check_metrics(metrics, windows)
    quirks.choose(on=quirks_on, off=quirks_off)
    files = Reports(json_out, per_video, per_class, confusion, plots)
    files.check()
    with archives.opened(predictions) as folder:
        with scoring.one_line(f"{truth} or {predictions}"):
            plan = layouts.read(truth, folder, split, videos)
        files.check((*plan.inputs, *([predictions] if predictions.is_file() else [])))
        chosen = metric_table.choose(metrics, plan.truth)
        left = sorted({*quirks_off, *plan.left} - {*quirks_on})
        settings = Settings(plan.classes, window_lengths(windows), quirks.choose(on=quirks_on, off=left))
        empty = scoring.compute(scoring.make_states(chosen, settings))
        files.check_tables({table.kind for table in metric_table.tables(empty)})
        numbers = _scores(plan, chosen, settings, processes=processes, progress=progress)
    result = _head(plan, truth, predictions, split) | {"quirks_on": sorted(quirks_on), "quirks_off": left} | numbers
    result["notes"] += _no_score(result)
    files.write(result)
    return result


def _no_score(result: dict) -> list[str]:
    """A note if no headline number is defined and no other note says why."""
    followed = metric_table.all_headlines(result).values()
    if result["notes"] or not followed or any(value is not None for value in followed):
        return []
    return ["no score is defined; has the truth labelled pixels, and videos as long as the windows?"]


def _head(plan: Plan, truth: pathlib.Path, predictions: pathlib.Path, split: str) -> dict:
    """What was scored."""
    return {
        "truth": str(truth),
        "predictions": str(predictions),
        "layout": plan.layout,
        "split": split,
        "videos": len(plan.jobs),
        "frames": sum(job.frames for job in plan.jobs),
        "unit": "percent",
        "notes": list(plan.notes),
    }


def result_of(path: PathLike, truth: PathLike | None, **options) -> dict:
    """A result that was written as json, or that of results which are scored now.

    Args:
      path: json of `evaluate_folders`, or results.
      truth: what results are scored against.
      options: of `evaluate_folders`, for results.

    Raises:
      UserError: a json that is no result, or results without a truth.
    """
    path = pathlib.Path(path)
    if not os.path.exists(path):  # also of a name that no file can have
        raise UserError(f"{path}: no such file or folder; expected the json of evaluate, or results and --truth")
    if path.suffix == ".json" and os.path.isfile(path):
        result = checked.read_json(path)
        if isinstance(result, dict) and result.get("unit") == "percent":
            check_whole(result, path)
            return result
        if truth is None:
            raise UserError(f"{path}: not what `vps-jax evaluate --json` writes; give that, or results and --truth")
    if truth is None:
        raise UserError(f"{path}: results are scored against a truth; add --truth, or give the json of evaluate")
    return evaluate_folders(truth, path, **options)


def _scores(plan: Plan, chosen: dict, settings: Settings, *, processes: int, progress: bool) -> dict:
    """Metric -> its numbers."""
    start = functools.partial(scoring.make_states, chosen, settings)
    score = functools.partial(scoring.score_job, plan.score, settings)
    states = start()
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("evaluate", total=len(plan.jobs))
        workers.run(
            states, plan.jobs, score, processes=processes, done=functools.partial(bar.advance, task), start=start
        )
    return scoring.compute(states)
