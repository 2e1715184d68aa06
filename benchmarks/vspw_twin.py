"""The ViT-Adapter's tiny twin on synthetic VSPW: trains configs/vspw_tiny.py, then scores unseen videos.

Use: python -m benchmarks.vspw_twin [--workdir runs/vspw_tiny] [--seed 42] [--steps N]

Prints mIoU, mVC8 and mVC16 of the average and the raw weights beside two baselines: nearest class colour, and the
untrained model. Started again it goes on where it was.
"""

import argparse
import pathlib
import time

import cv2
import jax
import numpy as np

from configs import vspw_tiny
from vps_jax import models
from vps_jax.config import Experiment
from vps_jax.config import experiment as read_config
from vps_jax.datasets.classes import class_table
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.infer.predict import predict
from vps_jax.infer.predictor import make_predictor
from vps_jax.media.frame_maps import vspw_writer
from vps_jax.media.sources import open_videos
from vps_jax.runs import color_baseline, experiment
from vps_jax.train.checkpoint import restore_for_inference
from vps_jax.types import PanopticFrame

CLASSES = 124
METRICS = ("miou", "vc8", "vc16")


def color_table(raw: pathlib.Path) -> dict[int, np.ndarray]:
    """Mean RGB colour of every class over the first frame of each training video."""
    sums, counts = np.zeros((CLASSES, 3)), np.zeros(CLASSES)
    for video in open_videos(raw, split="train"):
        frame = next(video.frames())
        mask = cv2.imread(str(raw / "data" / video.video_id / "mask" / f"{frame.stem}.png"), cv2.IMREAD_UNCHANGED)
        known = (mask >= 1) & (mask <= CLASSES)
        classes = mask[known].astype(int) - 1
        np.add.at(sums, classes, frame.image[known])
        np.add.at(counts, classes, 1)
    return {c: sums[c] / counts[c] for c in np.flatnonzero(counts).tolist()}


def predict_by_color(raw: pathlib.Path, out: pathlib.Path, *, split: str) -> None:
    """Result folder of the colour baseline."""
    colors, writer = color_table(raw), vspw_writer(out, class_table("vspw"))
    for video in open_videos(raw, split=split):
        with writer.video(video.video_id) as result:
            for frame in video.frames():
                ((categories, tracks),) = color_baseline.label_by_color(frame.image[None], colors, ())
                result.write(PanopticFrame(frame.stem, categories, tracks))


def score(config: Experiment, out: pathlib.Path) -> dict[str, float]:
    """mIoU and VC of a result folder, percent."""
    settings = config.evaluate
    result = evaluate_folders(settings.truth, out, split=settings.split, metrics=settings.metrics)
    numbers = {"miou": result["miou"]["miou"]}
    return numbers | {f"vc{n}": result["vc"][f"mvc{n}"] for n in (8, 16)}


def compare(config: Experiment, workdir: pathlib.Path) -> dict[str, dict[str, float]]:
    """Row name -> numbers."""
    settings, raw = config.evaluate, pathlib.Path(config.evaluate.truth)
    predict_by_color(raw, workdir / "color", split=settings.split)
    rows = {"nearest class colour": score(config, workdir / "color")}
    model = models.build(config.model)
    fresh = models.init(model, jax.random.key(config.train.seed), (vspw_tiny.CROP, vspw_tiny.CROP))
    for name, label, variables in (
        ("untrained model", "untrained", fresh),
        ("trained, EMA weights", "ema", restore_for_inference(workdir, "ema")[1]),
        ("trained, raw weights", "raw", restore_for_inference(workdir, "raw")[1]),
    ):
        out = workdir / label
        predictor = make_predictor(config.model, variables, config.infer)
        predict(
            [raw], predictor, experiment.class_list(config), out, split=settings.split, overlay=False,
            progress=False, layout="vspw",
        )  # fmt: skip
        rows[name] = score(config, out)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/vspw_tiny"))
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    given = parser.parse_args()
    config = vspw_tiny.get_config()
    if given.seed is not None:
        config.train.seed = given.seed
    if given.steps is not None:
        config.train.steps = config.optim.total_steps = config.train.evaluate_every = given.steps
    config = read_config(config)
    start = time.monotonic()
    experiment.run(config, given.workdir)
    print(f"trained and evaluated in {time.monotonic() - start:.0f} s")
    for name, row in compare(config, given.workdir).items():
        print(f"{name:<24}" + "  ".join(f"{metric} {row[metric]:5.1f}" for metric in METRICS))


if __name__ == "__main__":
    main()
