"""An experiment from data to scores: training, inference and evaluation for main.py and the demo."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from vps_jax import agreement
from vps_jax.config import TASKS, Evaluate, Experiment, Synthetic
from vps_jax.datasets import dataset
from vps_jax.datasets.classes import ClassTable, class_table
from vps_jax.datasets.spec import SPLITS
from vps_jax.evaluation.metrics import check_metrics, headline, headline_names
from vps_jax.runs import own_experiment
from vps_jax.types import UserError

MODES = ("train", "predict", "evaluate")
SHEET = {"columns": 4, "rows": 2, "cell_width": 240}  # overlay sheets in samples/ and TensorBoard


def run(config: Experiment, workdir, mode: str = "train") -> list[dict]:
    """Train, or predict or evaluate with the newest checkpoint of a workdir.

    Args:
      config: the experiment.
      workdir: folder of the run, see docs/training.md.
      mode: `train`, `predict` or `evaluate`.

    Returns:
      Rows of metrics.json, one per evaluation; none for `predict`.

    Raises:
      UserError: the config, the data or a checkpoint does not fit.
    """
    if mode not in MODES:
        raise UserError(f"mode {mode!r}; choose one of {', '.join(MODES)}")
    set_up_jax()
    from vps_jax.train import launch

    with launch.ending_together(lambda error: 2 if isinstance(error, UserError) else 1):
        return run_mode(config, workdir, mode)


def run_mode(config: Experiment, workdir, mode: str) -> list[dict]:
    """`run`, once the processes are together."""
    from vps_jax.train import loop

    config = own_experiment.filled(config)
    check(config, mode)
    if mode == "train":
        check_start(config, workdir)
    if config.synthetic.folder:
        make_synthetic(config.synthetic)
    if mode == "predict":  # needs no truth: the test split has none
        predict_newest(config, workdir)
        return []
    if mode == "evaluate" or config.train.evaluate_every:
        check_truth(config.evaluate)
    callback = functools.partial(evaluate, config, workdir)
    if mode == "evaluate":
        return loop.evaluate_newest(config, workdir, evaluate=callback)
    return loop.train(config, workdir, evaluate=callback)


def set_up_jax() -> None:
    """Join other processes and keep compiled programs between runs; call before the first computation."""
    import jax

    from vps_jax.train import launch

    if not pathlib.Path("/dev/nvidia0").exists():
        hush_xla()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "vps_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    launch.join()


def hush_xla() -> None:
    """Keep XLA's own errors off the terminal: on a CPU it doubts, at great length, programs that it has cached itself.

    The environment variable would come too late once jax is imported. Its value 1 is the one that jax sets.
    """
    import jax

    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1" and jax.config.jax_logging_level == "NOTSET":
        jax.config.update("jax_logging_level", "CRITICAL")
        jax.config.update("jax_logging_level", "NOTSET")  # Python's loggers as before; XLA keeps the level


def make_synthetic(settings: Synthetic) -> None:
    """Generate and prepare a synthetic data set in `settings.folder`, as far as it is missing.

    Writes `raw/` in the data set's own layout, `prepared/<layout>` for training, and for VIPSeg `converted/` with truth
    json for evaluation. `also` names further layouts of the same scenes, in `raw_<layout>/` and `prepared/<layout>`.
    """
    from vps_jax.data import prepare, synthetic, vipseg_convert

    root = pathlib.Path(settings.folder)
    counts = {"train": settings.train, "val": settings.val, "test": settings.test}
    for name, raw in [(settings.layout, root / "raw"), *((name, root / f"raw_{name}") for name in settings.also)]:
        if not raw.is_dir():
            synthetic.synthesize(raw, layout=name, seed=settings.seed, **counts)
        if name == "vipseg":
            vipseg_convert.convert(raw, root / "converted", height=None)
        prepare.prepare(name, raw, root / "prepared")


def check(config: Experiment, mode: str = "train") -> None:
    """Raises UserError, naming the key, for whatever can be seen to be wrong before any file is opened."""
    from vps_jax import models

    check_evaluation(config.evaluate)
    models.build(config.model)
    if mode == "predict":  # converted weights have a config without data
        return
    agreement.check(config)
    metric, settings = config.train.best_metric, config.evaluate
    names = headline_names(settings.metrics, settings.windows, dataset(settings.layout).classes)
    if config.train.evaluate_every and metric not in names:
        raise UserError(
            f"train.best_metric={metric!r} is none of the numbers of evaluate.metrics={','.join(settings.metrics)}; "
            f"choose one of {', '.join(names)}"
        )


def check_start(config: Experiment, workdir) -> None:
    """Raises UserError, before data are made or read, if a new run has nothing to start from at `init_from.path`."""
    from vps_jax.train.checkpoint import find_step, newest_step

    if config.init_from.path and newest_step(workdir) is None:
        find_step(config.init_from.path)


def check_evaluation(settings: Evaluate) -> None:
    """Raises UserError for an unknown data set, metric or window."""
    try:
        dataset(settings.layout)
        check_metrics(settings.metrics, settings.windows)
    except UserError as error:
        raise UserError(f"evaluate.{error}") from None


def check_truth(settings: Evaluate) -> None:
    """Raise UserError now rather than at the first evaluation if the truth is not there."""
    spec, root = dataset(settings.layout), pathlib.Path(settings.truth)
    if spec.truth_file(root, settings.split) is None:
        wanted = " or ".join(str(root / one.truth.format(split=settings.split)) for one in spec.layouts if one.truth)
        others = [split for split in SPLITS if spec.truth_file(root, split) is not None]
        advice = f"--config.evaluate.split={others[-1]}, or add the split" if others else "--config.evaluate.truth"
        raise UserError(
            f"evaluate.truth: {wanted} is not there; expected {spec.title} with the truth of split {settings.split!r}; "
            f"set {advice}"
        )


def evaluate(config: Experiment, workdir, variables, step: int, label: str) -> tuple[dict[str, float], dict]:
    """Predict the evaluation split with these weights and score it.

    The result folder `predictions/<label>` is replaced by every evaluation; overlay sheets go to
    `samples/step<step>_<label>_<video>.jpg`.

    Args:
      config: the experiment.
      workdir: folder of the run.
      variables: `{'params': ...}` of the model.
      step, label: name the files; `label` is `raw` or `ema`.

    Returns:
      Scores in percent by name, and overlay images `[1, h, w, 3]` by video.
    """
    from vps_jax.evaluation.runner import evaluate_folders
    from vps_jax.infer.predict import predict
    from vps_jax.infer.predictor import make_predictor
    from vps_jax.train.workdir import SAMPLES

    settings, classes = config.evaluate, class_list(config)
    out = pathlib.Path(workdir) / "predictions" / label
    predict(
        [settings.truth], make_predictor(config.model, variables, config.infer, classes=classes), classes, out,
        split=settings.split, overlay=False, progress=False, layout=settings.layout,
    )  # fmt: skip
    result = evaluate_folders(
        settings.truth, out, split=settings.split, metrics=settings.metrics, windows=settings.windows
    )
    samples = write_samples(settings, out, classes, pathlib.Path(workdir) / SAMPLES, f"step{step}_{label}")
    return headline(result), samples


def class_list(config: Experiment) -> ClassTable:
    """Classes of a model's scores during training: those of its data, or else those that the config names."""
    from vps_jax.train.setup import group_classes

    return group_classes(config) or class_table(config.infer.taxonomy)


def predict_newest(config: Experiment, workdir) -> None:
    """Predict the evaluation split with the EMA weights of the newest checkpoint, into `predictions/ema` of `workdir`.

    Raises:
      UserError: no checkpoint, not of this config's architecture, or no such split.
    """
    from vps_jax import convert
    from vps_jax.infer.predict import predict
    from vps_jax.infer.predictor import make_predictor
    from vps_jax.train.checkpoint import check_same_tree, classes_of_step, find_step, read_tree, weights_item
    from vps_jax.train.workdir import locked

    settings, out = config.evaluate, pathlib.Path(workdir) / "predictions" / "ema"
    folder = find_step(workdir)
    variables, classes = read_tree(weights_item(folder, "ema")), classes_of_step(folder)
    check_same_tree(variables, convert.expected(config.model), workdir)
    with locked(pathlib.Path(workdir)):  # a run that trains writes its own predictions there
        report = predict(
            [settings.truth], make_predictor(config.model, variables, config.infer, classes=classes), classes, out,
            split=settings.split, overlay=False, layout=settings.layout,
        )  # fmt: skip
    print(report.summary(out))


def predict_with_checkpoint(
    sources, checkpoint, out, *, split: str | None, weights: str = "ema", asked: Mapping[str, Any] | None = None,
    overlay: bool, resume: bool = False, devices: int | str = 1, **options,
):  # fmt: skip
    """Segment videos with the weights and settings of a checkpoint; see `infer.predict.predict`.

    Args:
      sources: see `media.sources.open_videos`.
      checkpoint: see `train.checkpoint.find_step`.
      out: result folder.
      split: split of a data-set root.
      weights: `ema` or `raw`.
      asked: further arguments of `segmenter.load`, such as `task`.
      overlay: also write overlay videos.
      resume: skip videos that these weights and settings have finished.
      devices: how many work on a video each, or `all`.
      options: more of `infer.predict.predict`.

    Raises:
      UserError: no checkpoint, nothing to read, or `out` cannot be written.
    """
    from vps_jax.infer.predict import predict
    from vps_jax.infer.process_memory import one_heap
    from vps_jax.media.result_folders import check_has_tracks
    from vps_jax.runs.segmenter import load

    if options.get("keep_going"):  # the process is the run's own
        one_heap()
    asked = asked or {}
    segmenter = load(checkpoint, weights=weights, **asked)
    task = getattr(segmenter.infer, "task", None)
    if task in TASKS and not TASKS[task].has_tracks:
        check_has_tracks(TASKS[task].asked_as or task, options.get("layout", "vipseg"))
    if asked.get("task") == "vos" and options.get("show") is None:
        raise UserError("--task vos: no objects to follow; give --first-masks or --points")
    return predict(
        list(sources), segmenter.predictors(devices), segmenter.classes, out, split=split, overlay=overlay,
        made_by=segmenter.identity if resume else "", **options,
    )  # fmt: skip


def convert_weights(source, config: Experiment, out) -> dict:
    """Turn a published file into a checkpoint with this config. Parameters that the file lacks are initialised.

    Returns:
      The report of `convert.convert_file`: `parameters`, `from_file`, `notes`, `model`.

    Raises:
      UserError: the file cannot be read safely, does not fit `config.model`, or `out` exists.
    """
    set_up_jax()
    from vps_jax.convert import convert_file
    from vps_jax.train.checkpoint import save_converted

    variables, report = convert_file(source, config.model)
    config = dataclasses.replace(config, model=report["model"])  # sizes that only the file knows
    save_converted(out, config, variables)
    return report


def export_torch(checkpoint, out, *, weights: str = "ema") -> int:
    """Write a checkpoint as the `.pth` state dict of the published code.

    Args:
      checkpoint: see `train.checkpoint.find_step`.
      out: new file.
      weights: `ema` or `raw`.

    Returns:
      The number of entries.

    Raises:
      UserError: no checkpoint, parameters of another architecture than its config says, or `out` exists.
    """
    set_up_jax()
    from vps_jax import convert
    from vps_jax.train.checkpoint import check_same_tree, restore_for_inference

    config, variables = restore_for_inference(checkpoint, weights)
    check_same_tree(variables, convert.expected(config.model), checkpoint)
    arrays = convert.to_arrays(variables, config.model)
    convert.save_torch(out, arrays)
    return len(arrays)


def write_samples(
    settings: Evaluate, predictions, classes: ClassTable, folder: pathlib.Path, name: str
) -> dict[str, np.ndarray]:
    """Write overlay sheets of the first videos, and return them for TensorBoard; class maps have none.

    Args:
      settings: `config.evaluate`.
      predictions: result folder of its split.
      classes: class table of the predictions.
      folder: receives `<name>_<video>.jpg`.
      name: first part of the file names.

    Returns:
      Video id -> RGB uint8 `[1, h, w, 3]`.
    """
    if dataset(settings.layout).writer != dataset("vipseg").writer:
        return {}
    from vps_jax.media.result_folders import read_video
    from vps_jax.media.sources import open_videos
    from vps_jax.viz.sheets import contact_sheet

    sheets = {}
    for video in open_videos(settings.truth, split=settings.split)[: settings.samples]:
        frames = list(read_video(predictions, video.video_id, classes))
        sheet = contact_sheet((frame.image for frame in video.frames()), frames, classes, **SHEET)
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{name}_{video.video_id}.jpg"), sheet[..., ::-1])
        sheets[video.video_id] = sheet[None]
    return sheets
