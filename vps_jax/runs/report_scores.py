"""The scores of a report: an evaluation and what it is compared with, as tables and plots of the page."""

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import layouts, plots, runner, tables
from vps_jax.evaluation import metrics as metric_table
from vps_jax.evaluation.compare import as_tables, compare
from vps_jax.evaluation.protocol import CLASSES, OTHER_SCORES, SCORES, VIDEOS, other_scores
from vps_jax.types import UserError
from vps_jax.viz import run_page


class Scoring(NamedTuple):
    """What is scored, if anything.

    Attributes:
      truth: truth to score the results with.
      json: what `vps-jax evaluate --json` wrote, instead of a truth.
      before: results or such a json to compare the scores with.
      split: of the truth.
      metrics, windows, processes: of `runner.evaluate_folders`.
    """

    truth: pathlib.Path | None = None
    json: pathlib.Path | None = None
    before: pathlib.Path | None = None
    split: str = "val"
    metrics: str = "all"
    windows: str = "leaderboard"
    processes: int = 1

    def check(self) -> None:
        """Raises UserError for what cannot be scored."""
        if self.truth is not None and self.json is not None:
            raise UserError(f"both --truth {self.truth} and --scores {self.json}; give one of them")
        if self.before is not None and self.truth is None and self.json is None:
            raise UserError(f"--compare {self.before} needs scores; add --truth, or the json of evaluate with --scores")

    @property
    def inputs(self) -> list[pathlib.Path]:
        """Files and folders that are read."""
        return [path for path in (self.truth, self.json, self.before) if path is not None]

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `runner.evaluate_folders`."""
        return {name: getattr(self, name) for name in ("split", "metrics", "windows", "processes")}

    def classes(self, results: pathlib.Path) -> ClassTable | None:
        """The classes of the truth; None without one.

        Raises:
          UserError: it cannot be read.
        """
        return None if self.truth is None else layouts.read(self.truth, results, self.split).classes


class Scored(NamedTuple):
    """An evaluation as the page shows it: tables, plots, notes, and (name, value) rows by video."""

    tables: list[dict]
    plots: list[dict]
    notes: list[str]
    videos: dict[str, list]


def score(
    folder: pathlib.Path, scoring: Scoring, *, videos: Sequence[str] | None, on_page: Sequence[str], progress: bool
) -> Scored:
    """The scores of a result folder, and what they are compared with.

    Args:
      folder: of the results.
      scoring: what is scored.
      videos: names of those that were asked for; None: all.
      on_page: names of those that the page shows.
      progress: show a progress bar.

    Raises:
      UserError: the truth does not fit, the scores are of other videos, or the two were not scored alike.
    """
    truth, before = scoring.truth, scoring.before
    if truth is None and scoring.json is None:
        return Scored([], [], [], {})
    options = scoring.options | {"videos": videos, "progress": progress}
    result = runner.result_of(scoring.json or folder, truth, **options)
    if scoring.json is not None:
        check_videos(result, scoring.json, on_page, some=videos is not None)
    all_tables = metric_table.tables(result)
    others = [row for table in all_tables if table.title == OTHER_SCORES for row in table.rows]
    shown = [table for table in all_tables if table.kind == SCORES and table.title != OTHER_SCORES]
    shown += [other_scores(others)] if others else []
    by_kind = {
        kind: tables.join(all_tables, kind) for kind in (CLASSES, VIDEOS) if any(t.kind == kind for t in all_tables)
    }
    shown += [table._replace(title=f"Scores of {kind}") for kind, table in by_kind.items()]
    drawn = [run_page.table(table, "Scores") for table in shown]
    if before is not None:
        other = runner.result_of(before, truth, **options)
        drawn += [run_page.table(table, f"Compared with {before} (A)") for table in as_tables(compare(other, result))]
    names = by_kind[VIDEOS].columns[1:] if VIDEOS in by_kind else ()
    rows = by_kind[VIDEOS].rows if VIDEOS in by_kind else ()
    per_video = {row[0]: list(zip(names, row[1:], strict=True)) for row in rows}
    return Scored(drawn, *_plots(result), per_video)


def check_videos(result: Mapping, path: pathlib.Path, on_page: Sequence[str], *, some: bool) -> None:
    """Raises UserError unless a json scores the videos that are shown, and no others unless `some` were chosen."""
    scored = {video for name in metric_table.METRICS if name in result for video in result[name].get("per_video", ())}
    others = set(on_page) - scored if some else set(on_page) ^ scored
    if scored and others:
        where = "the scores" if min(others) in scored else "the results"
        raise UserError(f"{path}: its videos are others: {min(others)} is in {where} alone; score these results")


def _plots(result: Mapping) -> tuple[list[dict], list[str]]:
    """Pictures of a result and the notes that belong to it."""
    notes = list(result["notes"])
    notes += [f"not as the official scripts: {', '.join(result['quirks_off'])}"] if result["quirks_off"] else []
    if (row := tables.leaderboard_row(metric_table.headline(result))) is not None:
        notes.append(f"leaderboard row ({', '.join(tables.LEADERBOARD_COLUMNS)}): {row}")
    if importlib.util.find_spec("matplotlib") is None:
        return [], [*notes, "no plots: they need matplotlib; pip install 'vps-jax[plots]'"]
    return [run_page.plot(name.replace("_", " "), png) for name, png in plots.draw(result).items()], notes
