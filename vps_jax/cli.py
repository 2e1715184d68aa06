"""Commands on files: `python -m vps_jax COMMAND`, installed as `vps-jax`. Each module is imported by its command.

Exit codes: 0 when the work was done; 1 when `data check` or `evaluate --check` found faults or `predict` could not read
some videos; 2 when something that was given cannot work. One line on stderr then names the value, what was expected and
the next step.
"""

import importlib.metadata
import logging
import os
import pathlib
import sys
import warnings
from enum import StrEnum
from typing import Annotated

import typer

from vps_jax import command_line
from vps_jax.app_commands import app as show_page
from vps_jax.config import EnsembleConfig
from vps_jax.config import ensemble_experiment as read_ensemble
from vps_jax.data_commands import data
from vps_jax.report_commands import report
from vps_jax.types import UserError
from vps_jax.weights_commands import weights as published_weights

BAD_INPUT = 2
INTERRUPTED = 130
# modules that the core does without -> the extra that brings them
EXTRAS = dict.fromkeys(("grain", "tensorflow_datasets", "array_record", "clu", "tensorboard", "optax", "absl"), "train")
EXTRAS |= dict.fromkeys(("gradio", "fastapi", "starlette", "uvicorn"), "app")


class Interrupted(Exception):
    """A KeyboardInterrupt on its way through typer, which would end the program without a word."""


class Commands(typer.core.TyperGroup):
    """The commands; what a KeyboardInterrupt says is kept."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Interrupted(str(stop)) from stop


app = typer.Typer(
    name="vps-jax", cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Video panoptic segmentation in JAX. Experiments are trained with main.py.",
)  # fmt: skip
app.add_typer(data, name="data")
app.add_typer(published_weights, name="weights")
app.command()(report)
app.command("app")(show_page)

Folder = pathlib.Path
Text = typer.Option


class Weights(StrEnum):
    """Which weights of a checkpoint."""

    ema = "ema"
    raw = "raw"


class Form(StrEnum):
    """What `convert` writes."""

    checkpoint = "checkpoint"
    torch = "torch"


def print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        print(f"vps-jax {importlib.metadata.version('vps-jax')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, Text("--version", callback=print_version, is_eager=True, help="Print the version and end.")
    ] = False,
):
    """Video panoptic segmentation in JAX. Experiments are trained with main.py."""


@app.command()
def configs(
    name: Annotated[str | None, typer.Argument(help="Name of an experiment, with :ARGUMENT if it takes one.")] = None,
):
    """List the experiments, or print one with every key resolved.

    Example: vps-jax configs

    Example: vps-jax configs stage2:swin_tiny
    """
    from vps_jax.runs import config_files

    if name is None:
        rows = config_files.names()
        width = max(map(len, rows))
        print("\n".join(f"{row:{width}}  {line}" for row, line in rows.items()))
        return
    config = config_files.load(name)
    config_files.check(config)
    module, _ = config_files.load_module(name)
    print(f"{(module.__doc__ or '').strip()}\n")
    print("\n".join(config_files.lines(config)))


@app.command()
def predict(
    inputs: Annotated[
        list[str], typer.Argument(help="Videos, images, folders of them, globs, data-set roots, URLs, camera:N, or -.")
    ],
    output: Annotated[Folder, Text("--output", help="Folder for pan_pred/, pred.json, tracks/ and overlay/.")],
    checkpoint: Annotated[Folder | None, Text("--checkpoint", help="Workdir, or one step in its checkpoints/.")] = None,
    ensemble: Annotated[str | None, Text("--ensemble", help="Ensemble config, instead of --checkpoint.")] = None,
    split: Annotated[str | None, Text("--split", help="Split of a data-set root.")] = None,
    weights: Annotated[str | None, Text("--weights", help="ema or raw of --checkpoint, or a published name.")] = None,
    short_side: Annotated[int | None, Text("--short-side", help="Pixels; default: the checkpoint's own.")] = None,
    task: Annotated[str | None, Text("--task", help="panoptic, semantic, instance or vos.")] = None,
    settings: Annotated[str | None, Text("--settings", help="Use the published settings of a data set.")] = None,
    tta: Annotated[str | None, Text("--tta", help="Average views: flip, and factors as in flip,0.75,1.25.")] = None,
    first_masks: Annotated[Folder | None, Text("--first-masks", help="PNG or folder of objects to follow.")] = None,
    points: Annotated[Folder | None, Text("--points", help="Json of clicks on objects to follow.")] = None,
    keep_scores: Annotated[Folder | None, Text("--keep-scores", help="Folder for the members' scores.")] = None,
    overlay: Annotated[bool, Text("--overlay/--no-overlay", help="Also write overlay videos.")] = True,
    opacity: Annotated[float, Text("--opacity", help="Opacity of the overlay, 0 to 1.")] = 0.5,
    legend: Annotated[bool, Text("--legend", help="Show a legend in the overlay.")] = False,
    classes: Annotated[str | None, Text("--classes", help="Draw only these: person,car.")] = None,
    layout: Annotated[str, Text("--format", help="vipseg, or another one: see docs/inference.md.")] = "vipseg",
    archive: Annotated[Folder | None, Text("--archive", help="Zip file for submission.")] = None,
    tracks: Annotated[bool, Text("--tracks/--no-tracks", help="Also write tables of the tracks.")] = True,
    devices: Annotated[str | None, Text("--devices", help="Devices with a video each: a number, or all.")] = None,
    overwrite: Annotated[bool, Text("--overwrite", help="Predict finished videos again.")] = False,
    start: Annotated[str, Text("--start", help="Start in each video: seconds, or 1:30.")] = "0",
    end: Annotated[str | None, Text("--end", help="End in each video, exclusive.")] = None,
    stride: Annotated[int, Text("--stride", help="Read every n-th frame.")] = 1,
    fps: Annotated[float | None, Text("--fps", help="Upper bound of frames per second.")] = None,
    max_frames: Annotated[int | None, Text("--max-frames", help="Upper bound of frames per video.")] = None,
    strict: Annotated[bool, Text("--strict", help="Refuse videos with damaged frames.")] = False,
):
    """Segment videos: panoptic PNGs, pred.json, tables of the tracks and overlay videos.

    Run it again to resume. Several processes may share one output. The exit code is 1 if some videos could not be read.

    Example: vps-jax predict clip.mp4 --checkpoint runs/tiny --output results

    Example: vps-jax predict 'day1/*.mp4' --checkpoint runs/tiny --output results --start 1:30 --fps 5
    """
    from vps_jax.runs import predict_files, published

    asked = {"short_side": short_side, "task": task, "settings": settings, "tta": split_names(tta) or ()}
    if ensemble is None:
        refuse_beside("--checkpoint", keep_scores=keep_scores)
        checkpoint, weights = published.chosen(weights, checkpoint)
    else:
        given = asked | {"tta": tta, "first_masks": first_masks, "points": points, "devices": devices}
        refuse_beside("--ensemble", weights=weights, **given)
    if (checkpoint is None) == (ensemble is None):
        raise UserError(f"{'neither' if ensemble is None else 'both'} of --checkpoint and --ensemble; give one of them")
    report = predict_files.predict(
        inputs, output, checkpoint=checkpoint, ensemble=lambda: load_ensemble(ensemble, keep_scores),
        weights=weights or Weights.ema.value, first_masks=first_masks, points=points, devices=devices or 1,
        asked=asked, archive=archive, split=split, layout=layout,
        selection=predict_files.selection(start, end, stride, fps, max_frames), strict=strict, overlay=overlay,
        tracks=tracks, resume=not overwrite, opacity=opacity, legend=legend, classes=split_names(classes),
    )  # fmt: skip
    if report.failed:
        raise typer.Exit(1)


def refuse_beside(option: str, **others) -> None:
    """Raises UserError if one of the other options was given, so is not None, beside this one."""
    for name, value in others.items():
        if value is not None:
            raise UserError(f"--{name.replace('_', '-')} {value} means nothing with {option}; leave it out")


@app.command("tune-ensemble")
def tune_ensemble(
    ensemble: Annotated[str, Text("--ensemble", help="Config of the ensemble to tune.")],
    predictions: Annotated[Folder, Text("--predictions", help="Result folder of a split with truth.")],
    output: Annotated[Folder, Text("--output", help="New config file.")],
    keep_scores: Annotated[Folder | None, Text("--keep-scores", help="Folder that predict was given.")] = None,
    truth: Annotated[Folder | None, Text("--truth", help="Converted VIPSeg; default: the config's.")] = None,
    split: Annotated[str | None, Text("--split", help="Split of the truth; default: the config's.")] = None,
    windows: Annotated[str | None, Text("--windows", help="Windows of VPQ; default: the config's.")] = None,
    parts: Annotated[int, Text("--parts", help="Weights are multiples of 1/PARTS.")] = 4,
):
    """Choose the scales and weights of an ensemble by VPQ, from scores that predict has kept. No model runs.

    Example: vps-jax tune-ensemble --ensemble configs/ensemble.py --keep-scores scores --predictions out --output new.py
    """
    from vps_jax.ensemble.tuning import matching_table, table
    from vps_jax.runs import ensemble_experiment

    config = load_ensemble(ensemble)
    trials, matching = ensemble_experiment.tune(
        config, output, predictions=predictions, keep_scores=keep_scores, truth=truth, split=split, windows=windows,
        parts=parts,
    )  # fmt: skip
    print("\n".join([*table(sorted(config.members), trials), *matching_table(matching)]))
    print(f"best of {len(trials) + len(matching)} candidates -> {output}")


@app.command()
def evaluate(
    truth: Annotated[Folder, Text("--truth", help="Root of a data set, or a json of YouTube-VIS.")],
    predictions: Annotated[Folder, Text("--predictions", help="Results in the official layout, or a zip of them.")],
    split: Annotated[str, Text("--split", help="Split of the truth.")] = "val",
    metrics: Annotated[
        str | None, Text("--metrics", help="Some of vpq,stq,pq,miou,vc,anatomy,hota,idf1,ap; or all.")
    ] = None,
    windows: Annotated[
        str, Text("--windows", help="leaderboard, official-script, or lengths such as 1,2,4.")
    ] = "leaderboard",
    videos: Annotated[str | None, Text("--videos", help="Only these: a,b or a file with one per line.")] = None,
    check: Annotated[bool, Text("--check", help="Check a submission; score nothing.")] = False,
    json_out: Annotated[Folder | None, Text("--json", help="File for all numbers.")] = None,
    per_video: Annotated[Folder | None, Text("--per-video", help="File for one row per video, .csv or .md.")] = None,
    per_class: Annotated[Folder | None, Text("--per-class", help="File for one row per class, .csv or .md.")] = None,
    confusion: Annotated[Folder | None, Text("--confusion", help="File for the confusion matrix, .csv or .md.")] = None,
    plots: Annotated[Folder | None, Text("--plots", help="Folder for pictures.")] = None,
    classes: Annotated[int, Text("--classes", min=0, help="Number of best and worst classes shown; 0: all.")] = 5,
    processes: Annotated[int, Text("--processes", help="Number of processes that score videos.")] = 1,
    quirks_on: Annotated[str | None, Text("--quirks-on", help="Official quirks to switch on.")] = None,
    quirks_off: Annotated[str | None, Text("--quirks-off", help="Official quirks to switch off.")] = None,
):
    """Score a result folder against a truth folder.

    Example: vps-jax evaluate --truth data/VIPSeg_720P --predictions results --json scores.json

    Example: vps-jax evaluate --truth data/VIPSeg_720P --split test --predictions submission.zip --check
    """
    from rich.console import Console

    from vps_jax.evaluation import checked, process, runner, submission
    from vps_jax.evaluation.reports import Reports

    chosen = checked.names_of_videos(videos)
    files = Reports(json_out, per_video, per_class, confusion, plots)
    with process.tidy():
        if check:
            if any(files):
                raise UserError("--check scores nothing, so it has nothing to write; leave out --json and its like")
            count, faults = submission.check(truth, predictions, split=split, videos=chosen)
        else:
            files.check([Folder(videos)] if videos and os.path.isfile(videos) else ())
            result = runner.evaluate_folders(
                truth, predictions, split=split, metrics=split_names(metrics), windows=windows, videos=chosen,
                processes=processes, quirks_on=split_names(quirks_on) or (), quirks_off=split_names(quirks_off) or (),
                per_video=per_video, per_class=per_class, confusion=confusion, plots=plots, json_out=json_out,
                progress=process.watched(),
            )  # fmt: skip
    if check:
        print("\n".join([*faults, f"{count} videos, {len(faults)} faults"]), flush=True)
        raise typer.Exit(1 if faults else 0)
    taken = files.to_stdout()  # for `--json /dev/stdout | jq`
    runner.print_report(result, console=Console(stderr=taken), classes=classes or None)


@app.command()
def compare(
    a: Annotated[Folder, typer.Argument(help="Json of evaluate, or results with --truth.")],
    b: Annotated[Folder, typer.Argument(help="The other one; differences are B - A.")],
    truth: Annotated[Folder | None, Text("--truth", help="Truth to score result folders with.")] = None,
    split: Annotated[str, Text("--split", help="Split of the truth.")] = "val",
    metrics: Annotated[str | None, Text("--metrics", help="As in evaluate.")] = None,
    windows: Annotated[str, Text("--windows", help="As in evaluate.")] = "leaderboard",
    processes: Annotated[int, Text("--processes", help="As in evaluate.")] = 1,
    rows: Annotated[int, Text("--rows", min=0, help="Number of gains and losses shown.")] = 5,
    samples: Annotated[int, Text("--samples", help="Number of resampled sets of videos.")] = 1000,
    seed: Annotated[int, Text("--seed", help="Seed of the resampling.")] = 0,
):
    """Compare two results of one truth: scores, classes and videos, with intervals over videos.

    Example: vps-jax compare before.json after.json

    Example: vps-jax compare results_a results_b --truth data/VIPSeg_720P
    """
    from vps_jax.evaluation import process, runner, scoring
    from vps_jax.evaluation.compare import compare as compared
    from vps_jax.evaluation.terminal import print_comparison

    with process.tidy():
        both = [
            runner.result_of(
                path, truth, split=split, metrics=split_names(metrics), windows=windows, processes=processes,
                progress=process.watched(),
            )
            for path in (a, b)
        ]  # fmt: skip
        with scoring.one_line(f"{a} and {b}"):  # a json may be of another version
            comparison = compared(*both, samples=samples, seed=seed)
    print_comparison(comparison, rows=rows)


@app.command()
def convert(
    source: Annotated[Folder, typer.Argument(help="Published .pth, .pkl, .safetensors or .npz, or our checkpoint.")],
    output: Annotated[Folder, Text("--output", help="New folder for use as --checkpoint, or new .pth file.")],
    config: Annotated[str | None, Text("--config", help="Experiment with the model of the file.")] = None,
    to: Annotated[Form, Text("--to", help="Our checkpoint, or a file for PyTorch.")] = Form.checkpoint,
    weights: Annotated[Weights, Text("--weights", help="Weights that go to PyTorch.")] = Weights.ema,
):
    """Turn published PyTorch weights into a checkpoint, or a checkpoint into a state dict with the published names.

    Example: vps-jax convert tarvis_swin_large.pth --config configs/stage2.py --output runs/published

    Example: vps-jax convert runs/stage4_swin_large --to torch --output stage4.pth
    """
    from vps_jax.config import experiment as read_config
    from vps_jax.runs import config_files, experiment

    if to is Form.torch:
        if config is not None:
            raise UserError(f"--config {config}: a checkpoint carries its own config; leave it out with --to torch")
        count = experiment.export_torch(source, output, weights=weights.value)
        print(f"{count} entries of {source} -> {output}")
        return
    if config is None:
        raise UserError("--config is missing; expected the experiment file with the architecture of the weights")
    loaded = config_files.load(config)
    if "members" in loaded:
        raise UserError(f"--config {config} is an ensemble; expected the experiment of one model")
    report = experiment.convert_weights(source, read_config(loaded), output)
    print("\n".join(report["notes"]))
    print(f"{report['from_file']} of {report['parameters']} parameters from {source} -> {output}")


@app.command("export")
def export_model(
    checkpoint: Annotated[Folder, typer.Argument(help="Workdir, or one step in its checkpoints/.")],
    output: Annotated[Folder, Text("--output", help="New folder for the program, the weights and the runner.")],
    size: Annotated[str, Text("--size", help="Width and height of the videos, as 1280x720.")],
    platforms: Annotated[str, Text("--platforms", help="Some of cpu,cuda,rocm,tpu.")] = "cpu,cuda",
    weights: Annotated[Weights, Text("--weights", help="Which weights.")] = Weights.ema,
    short_side: Annotated[int | None, Text("--short-side", help="Pixels; default: the checkpoint's own.")] = None,
    task: Annotated[str | None, Text("--task", help="As in predict.")] = None,
    settings: Annotated[str | None, Text("--settings", help="As in predict.")] = None,
):
    """Export the network of a checkpoint as StableHLO, with a runner that needs jax and flatbuffers alone.

    Example: vps-jax export runs/stage4 --output exported --size 1280x720
    """
    from vps_jax.runs import export

    done = export.export(
        checkpoint, output, size=size, platforms=split_names(platforms), weights=weights.value, short_side=short_side,
        task=task, settings=settings,
    )  # fmt: skip
    for kind, shapes in (("in ", done.inputs), ("out", done.outputs)):
        print("\n".join(f"{kind} {name} {list(shape)}" for name, shape in shapes.items()))
    print(f"program {done.program / 1e6:.1f} MB, weights {done.weights / 1e6:.1f} MB -> {output}")


@app.command()
def replay(
    run: Annotated[Folder, typer.Argument(help="Workdir of a run of main.py.")],
    step: Annotated[int | None, Text("--step", help="Step; default: the first not finite one.")] = None,
):
    """Repeat one training step, and print its clips, its losses and what it did to the weights.

    Example: vps-jax replay runs/stage3
    """
    from vps_jax.runs import replay as again

    print("\n".join(again.lines(again.replay(run, step))))


@app.command()
def demo(
    workdir: Annotated[str, Text("--workdir", help="Folder for everything the demo makes.")] = "runs/demo",
    seed: Annotated[int | None, Text("--seed", help="Seed of the training; default: the config's.")] = None,
    data_seed: Annotated[list[int], Text("--data-seed", help="Also score videos of this seed.")] = [],  # noqa: B006
):
    """Run everything at small scale: generate data, train, predict, evaluate, draw pictures.

    Example: vps-jax demo --workdir runs/seed1 --seed 1 --data-seed 11 --data-seed 12
    """
    from vps_jax.runs import demo as demonstration

    demonstration.run(Folder(workdir), seed=seed, data_seeds=tuple(data_seed))


def split_names(text: str | None) -> list[str] | None:
    """`a,b` -> `['a', 'b']`."""
    return None if text is None else [name for name in text.split(",") if name]


def load_ensemble(path: str, keep_scores: Folder | None = None) -> EnsembleConfig:
    """The config of a file that describes an ensemble, see `config_files.load`; another folder for its scores."""
    from vps_jax.runs import config_files

    config = config_files.load(path)
    if "members" not in config:
        raise UserError(f"{path} has no members; expected an ensemble such as configs/ensemble.py")
    return read_ensemble(config | ({} if keep_scores is None else {"keep_scores": str(keep_scores)}))


def main(arguments: list[str] | None = None) -> None:
    """Entry point; turns errors of the user into one line and exit code 2."""
    if arguments is None and sys.argv[1:2] == ["demo"]:  # the one command that trains
        command_line.with_huge_pages()
    logging.getLogger("absl").setLevel(logging.ERROR)  # remarks of the libraries; our own errors are exceptions
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    sys.unraisablehook = command_line.interrupt_again(sys.unraisablehook)
    command_line.collect_seldom()
    arguments = sys.argv[1:] if arguments is None else arguments
    code = 0
    try:
        with command_line.standard_output():
            code = app(arguments or ["--help"], standalone_mode=False)
    except UserError as error:
        code = complain(str(error))
    except typer.exceptions.TyperException as error:
        code = complain(f"{' '.join(error.format_message().split()).rstrip('.')}; try --help")
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        code = complain(f"this needs {error.name}, which is not installed; pip install 'vps-jax[{extra}]'")
    except MemoryError as error:
        code = complain(f"out of memory ({error}); choose smaller frames, or a machine with more")
    except (Interrupted, typer.Abort, KeyboardInterrupt) as stop:
        code = INTERRUPTED
        print(f"interrupted: {stop}".rstrip(": "), file=sys.stderr)
    sys.exit(code or 0)


def complain(line: str) -> int:
    """One line on stderr."""
    print(f"error: {line}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    main()
