"""The tiny stages 2 -> 3 -> 4, VPQ after each, and joint training against VPS alone for the same number of steps.

  python -m benchmarks.stage_chain [--seeds 0 1 2] [--folder runs/chain] [--steps N] [--all-sets]

With --all-sets the chain is 1 -> 2 -> 3 -> 4, stage 1 on the twins of its four data sets, stage 2 on those of its
seven, and each stage prints what its steps were trained on.

Every stage is a run of configs/tiny_stages.py as main.py would start it, with a workdir of its own. Started again, the
script goes on where it was: what is finished is not run again. Several processes may share the folder, each with seeds
of its own, once the first of them trains, for it has drawn the data then; a last call with all seeds prints the table.
"""

import argparse
import itertools
import pathlib
import statistics
import sys

from rich.console import Console
from rich.table import Table

from configs import tiny_stages
from vps_jax.config import Experiment
from vps_jax.config import experiment as read_config
from vps_jax.data import pipeline
from vps_jax.runs import experiment
from vps_jax.train.checkpoint import find_step
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
ALL_SETS = {
    "stage 1": ("stage1", None),
    "stage 2": ("stage2_sets", "stage 1"),
    "stage 3": ("stage3", "stage 2"),
    "stage 4": ("stage4", "stage 3"),
}
PAIRS = (("stage 3, joint", "stage 3, VPS alone"), ("stage 4 after joint", "stage 4 after VPS alone"))
SHOWN = {"VPQ": "vpq", "things": "vpq_things", "stuff": "vpq_stuff"}


def workdir(folder: pathlib.Path, seed: int, run: str) -> pathlib.Path:
    """Where a run lives."""
    return folder / f"seed{seed}" / run.replace(",", "").replace(" ", "_")


def config_of(
    run: str, seed: int, folder: pathlib.Path, steps: int | None, runs: dict[str, tuple[str, str | None]] = RUNS
) -> Experiment:
    """Resolved config of a run."""
    experiment_name, before = runs[run]
    config = tiny_stages.get_config(experiment_name)
    config.train.seed = seed
    if before is not None:
        config.init_from.path = str(workdir(folder, seed, before))
    if steps is not None:
        config.train.steps = config.train.checkpoint_every = steps
        config.train.evaluate_every = min(steps, config.train.evaluate_every)
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


def run_all_sets(seed: int, folder: pathlib.Path, steps: int | None) -> None:
    """Stages 1 to 4 of a seed, each from the weights of the one before."""
    for run in ALL_SETS:
        config, place = config_of(run, seed, folder, steps, ALL_SETS), workdir(folder, seed, run)
        if not is_finished(config, place):
            experiment.run(config, place)
            import jax  # as in run_chain

            jax.clear_caches()
        print(f"seed {seed}, {run}, trained on (step, source): {', '.join(trained_on(config))}")
        for name, value in (result_of(config, place) or {}).items():
            if name in SHOWN.values():
                print(f"  {name} {value:.1f}")


def is_finished(config: Experiment, place: pathlib.Path) -> bool:
    """Whether a run has its last checkpoint, and its numbers if it is evaluated."""
    try:
        last = find_step(place).name == str(config.train.steps)
    except UserError:
        return False
    return last and (not config.train.evaluate_every or result_of(config, place) is not None)


def trained_on(config: Experiment) -> list[str]:
    """The source of each step, steps in a row together: `0 COCO_vos`, `1-3 davis`."""
    lines, first = [], 0
    for name, group in itertools.groupby(pipeline.sources_of(config.data, range(config.train.steps))):
        last = first + len(list(group)) - 1
        lines.append(f"{first} {name}" if first == last else f"{first}-{last} {name}")
        first = last + 1
    return lines


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
    parser.add_argument("--all-sets", action="store_true", help="stages 1 to 4 on the twins of all data sets")
    args = parser.parse_args()
    try:
        if args.all_sets:
            for seed in args.seeds:
                run_all_sets(seed, args.folder / "all_sets", args.steps)
            return 0
        results = {seed: run_chain(seed, args.folder, args.steps) for seed in args.seeds}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(results)
    print_comparison(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
