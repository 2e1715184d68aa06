"""The metrics there are, one row each, and the choice among them.

A metric is added here, or from outside: `METRICS["mine"] = Metric("my_package.mine:Mine", (PANOPTIC,))`. Nothing else
knows a metric's name: reports, csv files, headline numbers and comparisons ask the metric.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation.protocol import INSTANCES, PANOPTIC, SEMANTIC, Settings, State, Table
from vps_jax.evaluation.vpq import window_lengths
from vps_jax.types import UserError


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
      state: `module:Class`, see `protocol.State`; it is imported when asked for, in every process.
      truths: kinds of truth that it can score.
      default: whether it is scored when no metric is named.
    """

    state: str
    truths: tuple[str, ...]
    default: bool = True

    def load(self) -> type[State]:
        """The class."""
        module, _, name = self.state.partition(":")
        return getattr(importlib.import_module(module), name)


METRICS: dict[str, Metric] = {
    "vpq": Metric("vps_jax.evaluation.vpq:VideoPQ", (PANOPTIC,)),
    "stq": Metric("vps_jax.evaluation.stq:SegmentationTrackingQuality", (PANOPTIC,)),
    "pq": Metric("vps_jax.evaluation.image_pq:ImagePQ", (PANOPTIC,)),
    "miou": Metric("vps_jax.evaluation.miou:MeanIoU", (PANOPTIC, SEMANTIC)),
    "vc": Metric("vps_jax.evaluation.vc:VideoConsistency", (PANOPTIC, SEMANTIC)),
    "anatomy": Metric("vps_jax.evaluation.anatomy:ErrorAnatomy", (PANOPTIC,), default=False),
    "hota": Metric("vps_jax.evaluation.hota:HigherOrderTrackingAccuracy", (PANOPTIC,), default=False),
    "idf1": Metric("vps_jax.evaluation.idf1:IdentityF1", (PANOPTIC,), default=False),
    "ap": Metric("vps_jax.evaluation.ap:AveragePrecision", (INSTANCES,)),
}


def split_names(metrics: str | Sequence[str]) -> list[str]:
    """Names of a text `vpq,stq` or of a sequence."""
    return [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)


def choose(metrics: str | Sequence[str] | None, truth: str | None) -> dict[str, Metric]:
    """Rows of the named metrics, in the order of the table.

    Args:
      metrics: names, a text `vpq,stq`, None for those scored by default, `all` for all that the truth allows.
      truth: kind of truth; None allows all.

    Raises:
      UserError: a name that is not known, or that this kind of truth cannot be scored with.
    """
    known = {name: row for name, row in METRICS.items() if truth is None or truth in row.truths}
    if metrics is None:
        return {name: row for name, row in known.items() if row.default}
    names = split_names(metrics)
    if names == ["all"]:
        return known
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        named = repr(unknown[0]) if unknown else "no metric"
        choices = "expected some of" if truth is None else "this truth can be scored with"
        raise UserError(f"metrics: {named}; {choices} {', '.join(known)}")
    return {name: row for name, row in known.items() if name in names}


def check_metrics(metrics: str | Sequence[str] | None, windows: str | Sequence[int], truth: str | None = None) -> None:
    """Refuse a wrong name before anything is built or read; no jax, no files.

    Args:
      metrics: see `choose`.
      windows: VPQ's windows: a name, a text `1,2,4` or lengths in frames.
      truth: kind of truth, when it is known already.

    Raises:
      UserError: a metric that is not known or windows that are none; the message names the choices.
    """
    choose(metrics, truth)
    window_lengths(windows)


def all_headlines(result: Mapping) -> dict[str, float | None]:
    """The numbers of a result that a run follows, metric by metric; None where one is not defined."""
    numbers: dict[str, float | None] = {}
    for name, row in METRICS.items():
        if name in result:
            numbers |= row.load().headline(result[name])
    return numbers


def headline(result: Mapping) -> dict[str, float]:
    """`all_headlines` that are defined."""
    return {name: float(value) for name, value in all_headlines(result).items() if value is not None}


def headline_names(metrics: str | Sequence[str] | None, windows: str | Sequence[int], classes: ClassTable) -> list[str]:
    """Names of the headline numbers of some metrics: those of a score of no videos.

    Raises:
      UserError: see `check_metrics`.
    """
    settings, names = Settings(classes, window_lengths(windows)), []
    for row in choose(metrics, None).values():
        metric = row.load()
        names += metric.headline(metric.start(settings).compute())
    return names


def tables(result: Mapping) -> list[Table]:
    """All tables of a result, metric by metric."""
    return [table for name, row in METRICS.items() if name in result for table in row.load().rows(result[name])]
