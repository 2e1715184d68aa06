"""Members and their ensemble on videos with truth, over several seeds, and what tuning finds on the first split.

  python -m benchmarks.ensemble_table --seeds 0 1 2 --vps runs/chain/seed{}/stage_4_after_joint \\
      --vss runs/chain/seed{}/stage_3_joint --image runs/twin_seed{} \\
      --truth runs/data/tiny/converted --other runs/data/tiny_seed1/converted [--split val] [--other-split val]

Each seed's models run once per split; their scores stay in --folder, and every row is made from them. Things are the
VPS member's everywhere, also where `vss` and `image` stand alone; the mIoU of what these two make of whole frames
stands below each table. A scale is that of the image member's scores: TarViS gives logits.
"""

import argparse
import json
import logging
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from configs import ensemble
from vps_jax.ensemble import tuning
from vps_jax.ensemble.averaging import Ensemble
from vps_jax.ensemble.members import Member, kept_folder, read_members
from vps_jax.ensemble.tuning import Candidate
from vps_jax.infer.predict import predict
from vps_jax.media.sources import open_sources
from vps_jax.runs import ensemble_experiment, experiment
from vps_jax.types import UserError

SHOWN = {"VPQ": "vpq", "stuff": "vpq_stuff", "things": "vpq_things", "STQ": "stq", "mIoU": "miou"}
NAMES = ("image", "vps", "vss")  # in the order of candidates
EQUAL = (1 / 3,) * 3
Numbers = Mapping[str, float]


class Split(NamedTuple):
    """A split with truth, and the folder for what models make of it."""

    truth: pathlib.Path
    name: str
    folder: pathlib.Path


def named_candidates() -> dict[str, Candidate]:
    """Row name -> candidate, before anything is tuned."""
    logits, scores = ("logits",) * 3, ("log_scores", "logits", "logits")
    alone = {f"{n} alone": Candidate(tuple(float(n == m) for m in NAMES), logits) for n in reversed(NAMES)}
    return alone | {
        "vps + vss": Candidate((0.0, 0.5, 0.5), logits),
        "vps + image, log_scores": Candidate((0.5, 0.5, 0.0), scores),
        "all, logits (the paper)": Candidate(EQUAL, logits),
        "all, log_softmax": Candidate(EQUAL, ("log_softmax",) * 3),
        "all, log_scores": Candidate(EQUAL, scores),
    }


def config_of(args, seed: int) -> dict:
    """The shipped ensemble with a seed's checkpoints."""
    config = ensemble.get_config().to_dict()
    for name, member in config["members"].items():
        member["checkpoint"] = getattr(args, name).format(seed)
    return config


def is_whole(results: pathlib.Path, split: Split) -> bool:
    """Whether a result folder has all videos of a split."""
    file = results / "pred.json"
    found = {row["video_id"] for row in json.loads(file.read_text())["annotations"]} if file.is_file() else set()
    return {video.video_id for video in open_sources([split.truth], split=split.name)} <= found


def run_models(config: dict, members: Sequence[Member], things: Member, split: Split) -> None:
    """Result folder and kept scores of a seed's members, unless they are there."""
    whole = Ensemble(members, things, keep=split.folder / "scores", keep_things=True)
    videos = open_sources([split.truth], split=split.name)
    done = all(whole.is_done(group, video) for group in whole.groups for video in videos)
    if not (done and is_whole(split.folder / "results", split)):
        config = config | {"keep_scores": str(split.folder / "scores")}
        ensemble_experiment.predict(
            [split.truth], config, split.folder / "results", split=split.name, overlay=False, progress=False
        )


def whole_frames(member: Member, split: Split) -> float | None:
    """mIoU of all classes, things included, of a member run by itself."""
    from vps_jax.evaluation.runner import evaluate_folders

    out = kept_folder(split.folder / "alone", member)
    if not is_whole(out, split):
        predictor = member.predictor(member.module, member.load(), member.infer)
        predict([split.truth], predictor, member.classes, out, split=split.name, overlay=False, progress=False)
    return evaluate_folders(split.truth, out, split=split.name, metrics="miou")["miou"]["miou"]


def score(members: Sequence[Member], split: Split, tried: Sequence[Candidate]) -> dict[Candidate, Numbers]:
    """Numbers of all candidates, from kept scores."""
    folder = split.folder
    return dict(
        tuning.tune(
            members, folder / "scores", folder / "results", split.truth, split=split.name, tried=tried,
            progress=False,
        )
    )  # fmt: skip


def best(numbers: Sequence[Mapping[Candidate, Numbers]]) -> Candidate:
    """The candidate with the best VPQ in the mean over seeds."""
    return max(numbers[0], key=lambda candidate: statistics.mean(one[candidate]["vpq"] for one in numbers))


def describe(candidate: Candidate) -> str:
    """`image 0.25 log_scores, vps 0.75`: members with weight, and scales that are not `logits`."""
    rows = [row for row in zip(NAMES, *candidate, strict=True) if row[1]]
    return ", ".join(f"{name} {w:.2f}" + (f" {scale}" if scale != "logits" else "") for name, w, scale in rows)


def cell(values: Sequence[float | None]) -> str:
    """Mean, and the value of every seed."""
    if None in values:
        return "-"
    return f"{statistics.mean(values):.1f} ({', '.join(f'{v:.1f}' for v in values)})"


def print_table(title: str, rows: Mapping[str, Sequence[Candidate]], numbers: Sequence[Mapping]) -> None:
    """A row per name with the numbers of its candidate of every seed."""
    table = Table(title=f"{title}, percent: mean (each seed)")
    for column in ("", *SHOWN):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, chosen in rows.items():
        found = [one[candidate] for one, candidate in zip(numbers, chosen, strict=True)]
        table.add_row(name, *(cell([one[key] for one in found]) for key in SHOWN.values()))
    Console(width=170).print(table)


def measure(args, configs: Sequence[dict], split: Split) -> tuple[list[dict], list[dict]]:
    """Of every seed: numbers by candidate, and mIoU of whole frames by member."""
    numbers, frames = [], []
    for seed, config in zip(args.seeds, configs, strict=True):
        own = split._replace(folder=split.folder / f"seed{seed}")
        members, things = read_members(config, ensemble_experiment.open_checkpoint)
        run_models(config, members, things, own)
        tried = dict.fromkeys([*named_candidates().values(), *tuning.candidates(members, steps=args.parts)])
        numbers.append(score(members, own, list(tried)))
        frames.append({m.name: whole_frames(m, own) for m in members if m is not things})
        print(f"seed {seed}: {len(tried)} candidates on {split.name} of {split.truth}", file=sys.stderr)
    return numbers, frames


def compare(args) -> None:
    """Run what is missing, score every candidate on both splits, print."""
    configs = [config_of(args, seed) for seed in args.seeds]
    asked = {"first": (args.truth, args.split), "other": (args.other, args.other_split)}
    splits = [Split(truth, name, args.folder / where) for where, (truth, name) in asked.items()]
    measured = [measure(args, configs, split) for split in splits]
    first = measured[0][0]
    own, common = [best([one]) for one in first], best(first)
    rows = {name: [candidate] * len(configs) for name, candidate in named_candidates().items()}
    rows |= {"best of each seed on the first": own, "best on the first in the mean": [common] * len(configs)}
    for split, (numbers, frames) in zip(splits, measured, strict=True):
        print_table(f"{split.name} of {split.truth}", rows, numbers)
        for member in ("vss", "image"):
            print(f"{member}, its own whole frames: mIoU {cell([one[member] for one in frames])}")
    for seed, candidate in zip((*args.seeds, "all"), (*own, common), strict=True):
        print(f"best on {splits[0].name} of {splits[0].truth}, seed {seed}: {describe(candidate)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"], help="put in the place of {} in checkpoints")
    for name, where in (("vps", "of stage 4"), ("vss", "of stage 3"), ("image", "of the ViT-Adapter")):
        parser.add_argument(f"--{name}", required=True, help=f"checkpoint {where}, with {{}} for the seed")
    parser.add_argument("--truth", type=pathlib.Path, required=True, help="converted VIPSeg root to choose on")
    parser.add_argument("--split", default="val")
    parser.add_argument("--other", type=pathlib.Path, required=True, help="converted VIPSeg root to report on")
    parser.add_argument("--other-split", default="val")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/ensemble_table"))
    parser.add_argument("--parts", type=int, default=4, help="weights are multiples of one part")
    args = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax' remarks
    experiment.set_up_jax()
    try:
        compare(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
