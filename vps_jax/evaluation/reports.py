"""Files that a result is written to."""

import json
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from vps_jax.evaluation import metrics as metric_table
from vps_jax.evaluation import outputs, plots, tables
from vps_jax.evaluation.protocol import CLASSES, MATRIX, VIDEOS
from vps_jax.types import UserError

PathLike = str | os.PathLike


class Reports(NamedTuple):
    """Where to; what is None is not written.

    Attributes:
      json: all numbers.
      per_video, per_class: one row per video or class, all that the metrics say; markdown if the name ends in `.md`,
        else csv.
      confusion: pixels of every true and predicted class, csv or markdown.
      plots: folder of pictures, see `plots.draw`.
    """

    json: PathLike | None = None
    per_video: PathLike | None = None
    per_class: PathLike | None = None
    confusion: PathLike | None = None
    plots: PathLike | None = None

    def check(self, inputs: Iterable[pathlib.Path] = ()) -> None:
        """Raises UserError for a file that cannot be written, or that is one of the inputs."""
        picture = None if self.plots is None else pathlib.Path(self.plots) / "anatomy.png"
        outputs.check((self.json, self.per_video, self.per_class, self.confusion, picture), inputs)
        if self.plots is not None:
            plots.check_installed()

    def check_tables(self, kinds: set[str]) -> None:
        """Raises UserError for a table that no metric has, of those kinds that they have."""
        for path, kind in ((self.per_video, VIDEOS), (self.per_class, CLASSES), (self.confusion, MATRIX)):
            if path is not None and kind not in kinds:
                raise UserError(f"{path}: none of the metrics has a table of {kind}; score more, or leave it out")

    def to_stdout(self) -> bool:
        """Whether one of them is this process' standard output."""
        return any(outputs.goes_to_stdout(path) for path in self)

    def write(self, result: dict) -> None:
        """Write them all.

        Raises:
          UserError: one cannot be written.
        """
        if self.json is not None:
            outputs.write(self.json, json.dumps(result, indent=1, allow_nan=False) + "\n")
        for path, kind in ((self.per_video, VIDEOS), (self.per_class, CLASSES), (self.confusion, MATRIX)):
            if path is not None:
                outputs.write(path, _text(result, kind, markdown=str(path).endswith(".md")))
        if self.plots is not None:
            for name, picture in plots.draw(result).items():
                outputs.write(pathlib.Path(self.plots) / f"{name}.png", picture)


def _text(result: dict, kind: str, *, markdown: bool) -> str:
    of_kind = [table for table in metric_table.tables(result) if table.kind == kind]
    table = of_kind[0] if kind == MATRIX else tables.join(of_kind, kind)
    return tables.as_markdown(table) if markdown else tables.as_csv(table)
