"""The whole system at small scale: generate videos, prepare, train, predict, evaluate, ensemble, pictures.

`make demo` runs it. It writes into one folder; started again, it continues where it was.
"""

import dataclasses
import pathlib
import time
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from vps_jax.config import Experiment
from vps_jax.config import ensemble_experiment as read_ensemble
from vps_jax.config import experiment as read_config
from vps_jax.runs import color_baseline, config_files, ensemble_experiment, experiment

PICTURED = 2  # videos on the sheet of pictures


def run(folder="runs/demo", *, seed: int | None = None, data_seeds: tuple[int, ...] = (), steps: int | None = None):
    """Run the demo and print its table.

    Args:
      folder: receives data, checkpoints, results and pictures.
      seed: seed of the training; None for that of the config.
      data_seeds: also score the trained model on validation videos of these seeds.
      steps: number of training steps of both models; None for those of the configs.

    Returns:
      Row name -> scores in percent, see `experiment.headline`.
    """
    start = time.monotonic()
    folder = pathlib.Path(folder)
    config = tiny_config(folder, seed, steps)
    history = experiment.run(config, folder / "train")
    results = compare(config, folder, history)
    results["ensemble with a ViT-Adapter"] = run_ensemble(config, folder, steps)
    for data_seed in data_seeds:
        results[f"EMA, videos of seed {data_seed}"] = score_other_seed(config, folder, data_seed)
    print_table(results)
    picture = draw(config, folder)
    console = Console()
    console.print(f"Pictures: {picture}; overlay videos: {folder / 'ema' / 'overlay'}; TensorBoard: {folder / 'train'}")
    console.print(f"{time.monotonic() - start:.0f} s since the environment was ready", highlight=False)
    return results


def tiny_config(folder: pathlib.Path, seed: int | None, steps: int | None) -> Experiment:
    """configs/tiny.py with the data below `folder`."""
    config = config_files.load_module("tiny")[0].get_config()
    config.synthetic.folder = str(folder / "data")  # the paths of the config follow it
    if seed is not None:
        config.train.seed = seed
    if steps is not None:
        config.train.steps = steps
        config.train.evaluate_every = min(steps, config.train.evaluate_every)
    return read_config(config)


def compare(config: Experiment, folder: pathlib.Path, history: list[dict]) -> dict[str, dict[str, float]]:
    """Score the trained model and two baselines on the validation videos; `history` has the row of the raw weights."""
    import jax

    from vps_jax import models
    from vps_jax.train.checkpoint import restore_for_inference

    model = models.build(config.model)
    untrained = models.init(model, jax.random.key(config.train.seed), (64, 64))
    trained = restore_for_inference(folder / "train", "ema")[1]
    predict(untrained, config, folder / "untrained", overlay=False)
    predict(trained, config, folder / "ema", overlay=True)
    color_baseline.predict(
        pathlib.Path(config.synthetic.folder) / "raw", config.evaluate.truth, folder / "color",
        split=config.evaluate.split,
    )  # fmt: skip
    return {
        "nearest class colour": score(config, folder / "color"),
        "untrained model": score(config, folder / "untrained"),
        "trained, raw weights": next(row for row in reversed(history) if row["weights"] == "raw"),
        "trained, EMA weights": score(config, folder / "ema"),
    }


def run_ensemble(config: Experiment, folder: pathlib.Path, steps: int | None) -> dict[str, float]:
    """Train the image model on the same scenes in VSPW's layout, and score it together with the trained model.

    Both are trained on the same videos, so the validation videos stay unseen.
    """
    module, _ = config_files.load_module("tiny_ensemble")
    image, ensemble = module.image_experiment(), read_ensemble(module.get_config())
    image.synthetic.update(folder=str(folder / "data_vspw"), seed=config.synthetic.seed)
    image.train.seed = config.train.seed
    if steps is not None:
        image.train.steps = image.optim.total_steps = image.train.checkpoint_every = steps
    experiment.run(read_config(image), folder / "image")
    places = {"vps": str(folder / "train"), "image": str(folder / "image")}
    members = {name: dataclasses.replace(row, checkpoint=places[name]) for name, row in ensemble.members.items()}
    ensemble = dataclasses.replace(ensemble, members=members)
    settings = config.evaluate
    ensemble_experiment.predict([settings.truth], ensemble, folder / "ensemble", split=settings.split, overlay=False)
    return score(config, folder / "ensemble")


def predict(variables, config: Experiment, out: pathlib.Path, *, overlay: bool) -> None:
    """Write a result folder of the validation videos."""
    from vps_jax.infer.predict import predict as run_model
    from vps_jax.infer.predictor import make_predictor

    settings, predictor = config.evaluate, make_predictor(config.model, variables, config.infer)
    classes = experiment.class_list(config)
    run_model([settings.truth], predictor, classes, out, split=settings.split, overlay=overlay)


def score(config: Experiment, predictions: pathlib.Path) -> dict[str, float]:
    """Scores of a result folder in percent, by name; also written to its `metrics.json`."""
    from vps_jax.evaluation.runner import evaluate_folders

    settings = config.evaluate
    result = evaluate_folders(
        settings.truth, predictions, split=settings.split, metrics=settings.metrics,
        windows=settings.windows, json_out=predictions / "metrics.json",
    )  # fmt: skip
    return experiment.headline(result)


def score_other_seed(config: Experiment, folder: pathlib.Path, data_seed: int) -> dict[str, float]:
    """Score the EMA weights on validation videos of another data seed."""
    from vps_jax.train.checkpoint import restore_for_inference

    data = folder / f"data_seed{data_seed}"
    drawn = dataclasses.replace(config.synthetic, folder=str(data), seed=data_seed, train=1, test=1)
    experiment.make_synthetic(drawn)
    truth = config.evaluate.truth.replace(config.synthetic.folder, str(data))
    moved = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, truth=truth))
    out = folder / f"ema_seed{data_seed}"
    variables = restore_for_inference(folder / "train", "ema")[1]
    predict(variables, moved, out, overlay=False)
    return score(moved, out)


def print_table(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print VPQ for each window, its mean, things and stuff."""
    windows = sorted({k for row in results.values() for k in row if k[3:].isdigit()}, key=lambda k: int(k[3:]))
    table = Table(title="unseen videos, VPQ in percent (leaderboard windows 1, 2, 4, 6 frames)")
    for column in ("", *windows, "mean", "things", "stuff"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in results.items():
        cells = (*windows, "vpq", "vpq_things", "vpq_stuff")
        table.add_row(name, *(f"{row[c]:.1f}" if c in row else "-" for c in cells))
    Console(width=110).print(table)


def draw(config: Experiment, folder: pathlib.Path) -> pathlib.Path:
    """Draw a sheet of the first validation videos with their predictions; returns its path."""
    import cv2
    import numpy as np

    from vps_jax.media.result_folders import read_video
    from vps_jax.media.sources import open_videos
    from vps_jax.viz.sheets import contact_sheet

    table = experiment.class_list(config)
    rows = []
    for video in open_videos(config.evaluate.truth, split=config.evaluate.split)[:PICTURED]:
        frames = list(read_video(folder / "ema", video.video_id, table))
        rows.append(contact_sheet((f.image for f in video.frames()), frames, table, **experiment.SHEET))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    path = folder / "demo.png"
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])
    return path
