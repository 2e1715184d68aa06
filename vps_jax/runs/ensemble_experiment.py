"""An ensemble from its config to scores: checkpoints, inference, tuning and evaluation."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vps_jax.config import EnsembleConfig
from vps_jax.config import ensemble_experiment as read_ensemble
from vps_jax.datasets.classes import class_table
from vps_jax.runs import experiment
from vps_jax.types import UserError

MODES = ("predict", "evaluate")


def run(config: EnsembleConfig | Mapping, workdir, mode: str) -> dict[str, float]:
    """Predict the evaluation split with an ensemble, and score it.

    The workdir receives the result folder `predictions` and, with `evaluate`, `metrics.json` and overlays in `samples`.

    Args:
      config: config of the ensemble, see configs/ensemble.py.
      workdir: folder of the run.
      mode: `predict` or `evaluate`.

    Returns:
      Scores in percent by name, see `experiment.headline`; empty for `predict`.

    Raises:
      UserError: another mode, members that do not fit, no truth, or a folder that cannot be written.
    """
    if mode not in MODES:
        raise UserError(f"mode {mode!r}: an ensemble has nothing to train; choose --mode predict or --mode evaluate")
    from vps_jax.evaluation.runner import evaluate_folders, print_report

    config = read_ensemble(config)
    settings, workdir = config.evaluate, pathlib.Path(workdir)
    experiment.check_evaluation(settings)
    if mode == "evaluate":
        experiment.check_truth(settings)
    out = workdir / "predictions"
    report = predict([settings.truth], config, out, split=settings.split, overlay=False, layout=settings.layout)
    print(report.summary(out))
    if mode == "predict":
        return {}
    result = evaluate_folders(
        settings.truth, out, split=settings.split, metrics=settings.metrics, windows=settings.windows,
        json_out=workdir / "metrics.json",
    )  # fmt: skip
    print_report(result)
    experiment.write_samples(settings, out, class_table(settings.layout), workdir / "samples", "ensemble")
    return experiment.headline(result)


def predict(
    sources: Sequence, config: EnsembleConfig | Mapping, out, *, split: str | None = None, overlay: bool,
    layout: str = "vipseg", progress: bool = True, **options,
):  # fmt: skip
    """Segment videos with the ensemble of a config; see `ensemble.predict_ensemble.predict_ensemble`."""
    experiment.set_up_jax()
    from vps_jax.ensemble.predict_ensemble import predict_ensemble

    return predict_ensemble(
        list(sources), config, open_checkpoint, out, split=split, overlay=overlay, layout=layout, progress=progress,
        **options,
    )  # fmt: skip


def open_checkpoint(path, weights: str):
    """A member's checkpoint, whose weights have not been read yet.

    Args:
      path: see `train.checkpoint.find_step`.
      weights: `ema` or `raw`.

    Returns:
      `ensemble.members.Checkpoint`; training again in the same folder gives another identity.

    Raises:
      UserError: no checkpoint there, or parameters of another architecture than its config says.
    """
    from vps_jax import convert
    from vps_jax.ensemble.members import Checkpoint
    from vps_jax.train.checkpoint import (
        check_same_tree,
        find_step,
        read_classes,
        read_experiment,
        read_tree,
        tree_shapes,
        weights_item,
    )

    folder = find_step(path)
    config, item = read_experiment(folder), weights_item(folder, weights)
    check_same_tree(tree_shapes(item), convert.expected(config.model), folder)
    identity = f"{item} of {item.stat().st_mtime_ns}"
    return Checkpoint(config.model, config.infer, read_classes(folder), identity, lambda: read_tree(item))


class Tuned(NamedTuple):
    """What was tried, the best VPQ first each.

    Attributes:
      trials: `ensemble.tuning.Trial`s of scales and weights.
      matching: `ensemble.tube_tuning.MatchingTrial`s with the best of these; none unless the config matches things.
    """

    trials: list
    matching: list


def tune(
    config: EnsembleConfig | Mapping, out, *, predictions, keep_scores=None, truth=None, split: str | None = None,
    windows=None, parts: int = 4, progress: bool = True,
) -> Tuned:  # fmt: skip
    """Choose scales and weights from kept scores, and write the config with the best VPQ. No model runs.

    If the config matches things, weight and least IoU of the matching are chosen next, with these scales and weights.

    Args:
      config: config of the ensemble.
      out: new config file.
      predictions: result folder of a run that kept its scores.
      keep_scores: folder of the kept scores; by default that of the config.
      truth, split, windows: by default those of the config's `evaluate`.
      parts: weights are multiples of `1 / parts`.
      progress: show a progress bar on stderr.

    Raises:
      UserError: `out` exists, scores or results are missing, or there is no truth.
    """
    config = read_ensemble(config)
    keep_scores = keep_scores or config.keep_scores
    if not keep_scores:
        raise UserError("no folder of kept scores; predict with --keep-scores DIR, then name it here")
    if parts < 1:
        raise UserError(f"--parts {parts}: expected at least 1, such as 4 for weights of quarters")
    if pathlib.Path(out).exists():
        raise UserError(f"{out} exists; choose a new file")
    experiment.set_up_jax()
    from vps_jax.ensemble import members, tube_tuning, tuning

    settings = config.evaluate
    truth, split = truth or settings.truth, split or settings.split
    found, things = members.read_members(config, open_checkpoint)
    options = {"split": split, "windows": windows or settings.windows, "progress": progress}
    tried = tuning.candidates(found, steps=parts)
    trials, matching = tuning.tune(found, keep_scores, predictions, truth, tried=tried, **options), []
    if config.matching.member:
        tried = tube_tuning.settings_of(config.matching.member, steps=parts)
        best = trials[0].candidate
        matching = tube_tuning.tune_matching(found, things, best, keep_scores, truth, tried=tried, **options)
    tuning.write_tuned(out, config, trials, truth=str(truth), split=split, matching=matching)
    return Tuned(trials, matching)
