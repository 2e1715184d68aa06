"""VidEoMT's tiny twin beside TarViS's, trained on the same drawn videos, alone and as members of ensembles.

  python -m benchmarks.videomt_twin [--seeds 0 1 2] [--folder runs/videomt_twin] [--steps N]

A seed trains the model of configs/tiny.py with its schedule `stepwise`, and both stages of configs/videomt_tiny.py, the
second from the average of the first. What training took is printed: arithmetic by count of the traced steps, and
processor time. Then each model and four ensembles of the two are scored on the validation videos, and on videos of
another data seed. All members have the same weight; nothing is chosen. Started again, the script goes on where it was.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import time

import jax
from rich.console import Console
from rich.table import Table

from configs import tiny, videomt_tiny
from vps_jax.config import EnsembleConfig, Experiment, Matching, MemberConfig
from vps_jax.config import experiment as read_config
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.runs import ensemble_experiment, experiment
from vps_jax.train.plan import make_plan

SHOWN = {"VPQ": "vpq", "things": "vpq_things", "stuff": "vpq_stuff", "STQ": "stq"}
TERA = 1e12
TARVIS_STEPS = 1_300  # with about the arithmetic of both stages of the other model
OTHER_SEED = 1  # of the videos that no weight was trained on and nothing was chosen on


def configs_of(seed: int, folder: pathlib.Path, steps: int | None) -> dict[str, Experiment]:
    """Run name -> experiment, in their order."""
    found, tarvis = {}, tiny.get_config()
    tiny.stepwise(tarvis, TARVIS_STEPS)
    for name, config in (
        ("tarvis", tarvis),
        ("segmenter", videomt_tiny.get_config("segmenter")),
        ("videomt", videomt_tiny.get_config("video")),
    ):
        config.synthetic.folder = str(folder / "data")
        config.train.seed = seed
        if name == "videomt":
            config.init_from.path = str(folder / f"seed{seed}" / "segmenter")
        config.train.evaluate_every = 0  # what is scored is scored below
        if steps is not None:
            config.train.steps = config.train.checkpoint_every = steps
        found[name] = read_config(config)
    return found


def train(configs: dict[str, Experiment], place: pathlib.Path) -> dict[str, dict[str, float]]:
    """Train what is missing; run name -> TFLOP and seconds of processor time of its steps."""
    spent = {}
    for name, config in configs.items():
        file = place / name / "spent.json"
        if not file.is_file():
            start = time.process_time()
            experiment.run(config, place / name)
            seconds = time.process_time() - start
            jax.clear_caches()  # the next run has other programs
            flop = sum(make_plan(config, 1, "cpu").flop.values()) * config.train.steps
            file.write_text(json.dumps({"tflop": flop / TERA, "cpu_seconds": seconds}))
        spent[name] = json.loads(file.read_text())
        print(f"{name}: {spent[name]['tflop']:.1f} TFLOP, {spent[name]['cpu_seconds']:.0f} s of CPU", flush=True)
    return spent


def ensembles(place: pathlib.Path) -> dict[str, EnsembleConfig]:
    """Row name -> the models alone and together."""
    members = {
        "tarvis": MemberConfig(checkpoint=str(place / "tarvis"), task="panoptic", group="VIPSEG"),
        "videomt": MemberConfig(checkpoint=str(place / "videomt"), task="panoptic", group="VIPSEG", scale="log_scores"),
    }
    found = {}
    for things, other in (("tarvis", "videomt"), ("videomt", "tarvis")):
        both = EnsembleConfig(members, things=things)
        found[f"things of {things}, mean stuff"] = both
        found[f"things of {things} matched, mean stuff"] = dataclasses.replace(both, matching=Matching(member=other))
    return found


def score(truth: str, out: pathlib.Path, split: str) -> dict[str, float]:
    """Numbers of a result folder, percent."""
    return experiment.headline(evaluate_folders(truth, out, split=split, metrics="vpq,stq"))


def predict_and_score(place: pathlib.Path, truth: str, split: str, out: pathlib.Path) -> dict[str, dict[str, float]]:
    """Row name -> numbers on the videos of a truth."""
    rows = {}
    for name in ("tarvis", "videomt"):
        experiment.predict_with_checkpoint([truth], place / name, out / name, split=split, overlay=False)
        rows[f"{name} alone"] = score(truth, out / name, split)
    for name, config in ensembles(place).items():
        results = out / name.replace(",", "").replace(" ", "_")
        ensemble_experiment.predict([truth], config, results, split=split, overlay=False, progress=False)
        rows[name] = score(truth, results, split)
    return rows


def run_seed(seed: int, folder: pathlib.Path, steps: int | None) -> dict[str, dict]:
    """Title of a table -> row name -> numbers."""
    configs, place = configs_of(seed, folder, steps), folder / f"seed{seed}"
    train(configs, place)
    config, file = configs["tarvis"], place / "rows.json"
    if not file.is_file():
        drawn = dataclasses.replace(
            config.synthetic, folder=str(folder / "other"), seed=OTHER_SEED, train=1, test=1
        )  # fmt: skip
        experiment.make_synthetic(drawn)
        truths = {"validation videos": config.evaluate.truth, "videos of another seed": str(folder / "other/converted")}
        rows = {
            title: predict_and_score(place, truth, config.evaluate.split, place / title.replace(" ", "_"))
            for title, truth in truths.items()
        }
        file.write_text(json.dumps(rows))
    return json.loads(file.read_text())


def print_tables(results: list[dict[str, dict]]) -> None:
    """A table for each set of videos: the mean, and the VPQ of every seed."""
    for title in results[0]:
        table = Table(title=f"{title}, percent: mean (VPQ of each seed)")
        for column in ("", *SHOWN):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        for name in results[0][title]:
            numbers = [result[title][name] for result in results]
            means = [f"{statistics.mean(one[key] for one in numbers):.1f}" for key in SHOWN.values()]
            means[0] += f" ({', '.join(format(one['vpq'], '.1f') for one in numbers)})"
            table.add_row(name, *means)
        Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/videomt_twin"))
    parser.add_argument("--steps", type=int, default=None, help="of every run, to try it out")
    args = parser.parse_args()
    print_tables([run_seed(seed, args.folder, args.steps) for seed in args.seeds])


if __name__ == "__main__":
    main()
