"""The tiny stages 2 -> 3 -> 4, VPQ after each, and joint training against VPS alone for the same number of steps.

  python -m benchmarks.stage_chain [--seeds 0 1 2] [--folder runs/chain] [--steps N]

Every stage is a run of configs/tiny_stages.py as main.py would start it, with a workdir of its own. Started again, the
script goes on where it was: what is finished is not run again. Several processes may share the folder, each with seeds
of its own, once the first of them trains, for it has drawn the data then; a last call with all seeds prints the table.
"""

import argparse
import pathlib
import statistics
import sys

from rich.console import Console
from rich.table import Table

from configs import tiny_stages
from vps_jax.config import Experiment
from vps_jax.config import experiment as read_config
from vps_jax.runs import experiment
from vps_jax.train.report import read_history
from vps_jax.types import UserError

# run -> (experiment, run whose average it starts from)
RUNS = {
    "stage 2": ("stage2", None),
    "stage 3, joint": ("stage3", "stage 2"),
    "stage 3, VPS alone": ("vps_alone", "stage 2"),
    "stage 4 after joint": ("stage4", "stage 3, joint"),
    "stage 4 after VPS alone": ("stage4", "stage 3, VPS alone"),
}
PAIRS = (("stage 3, joint", "stage 3, VPS alone"), ("stage 4 after joint", "stage 4 after VPS alone"))
SHOWN = {"VPQ": "vpq", "things": "vpq_things", "stuff": "vpq_stuff"}


def workdir(folder: pathlib.Path, seed: int, run: str) -> pathlib.Path:
    """Where a run lives."""
    return folder / f"seed{seed}" / run.replace(",", "").replace(" ", "_")


def config_of(run: str, seed: int, folder: pathlib.Path, steps: int | None) -> Experiment:
    """Resolved config of a run."""
    experiment_name, before = RUNS[run]
    config = tiny_stages.get_config(experiment_name)
    config.train.seed = seed
    if before is not None:
        config.init_from.path = str(workdir(folder, seed, before))
    if steps is not None:
        config.train.steps = config.train.evaluate_every = config.train.checkpoint_every = steps
    return read_config(config)


def result_of(config: Experiment, folder: pathlib.Path) -> dict[str, float] | None:
    """Numbers of the average after the last step, None while there are none."""
    wanted = {"step": config.train.steps, "weights": "ema"}.items()
    return next((row for row in read_history(folder / "metrics.json") if wanted <= row.items()), None)


def run_chain(seed: int, folder: pathlib.Path, steps: int | None) -> dict[str, dict[str, float]]:
    """All runs of a seed; run name -> numbers of the average."""
    results = {}
    for run in RUNS:
        config, place = config_of(run, seed, folder, steps), workdir(folder, seed, run)
        if result_of(config, place) is None:
            experiment.run(config, place)
            import jax  # after set_up_jax, which quiets it

            jax.clear_caches()  # the next stage has other programs
        results[run] = result_of(config, place)
        print_table({seed: results})
    return results


def print_table(results: dict[int, dict[str, dict[str, float]]]) -> None:
    """VPQ, things and stuff after each run, of every seed and in the mean."""
    print("VPQ (things, stuff) of the averaged weights on unseen videos, percent, mean of windows of 1, 2, 4, 6 frames")
    table = Table()
    table.add_column("")
    for name in (*(f"seed {seed}" for seed in results), "mean VPQ"):
        table.add_column(name, justify="right")
    for run in next(iter(results.values())):
        rows = [result[run] for result in results.values()]
        cells = ["{:.1f} ({:.1f}, {:.1f})".format(*(row[key] for key in SHOWN.values())) for row in rows]
        table.add_row(run, *cells, f"{statistics.mean(row['vpq'] for row in rows):.1f}")
    Console(width=120).print(table)


def print_comparison(results: dict[int, dict[str, dict[str, float]]]) -> None:
    """By how much joint training is above VPS alone."""
    for joint, alone in PAIRS:
        for shown, key in SHOWN.items():
            gains = [result[joint][key] - result[alone][key] for result in results.values()]
            line = ", ".join(f"{gain:+.1f}" for gain in gains)
            print(f"{joint} - {alone}: {shown} {line}; mean {statistics.mean(gains):+.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/chain"))
    parser.add_argument("--steps", type=int, default=None, help="steps of every stage, to try it out")
    args = parser.parse_args()
    try:
        results = {seed: run_chain(seed, args.folder, args.steps) for seed in args.seeds}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(results)
    print_comparison(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
