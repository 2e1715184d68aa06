"""`vps-jax data`: commands that make, convert, prepare and check data sets."""

import os
import pathlib
import tempfile
from typing import Annotated

import typer

from vps_jax.types import UserError

data = typer.Typer(rich_markup_mode=None, help="Make, convert, prepare and check data sets.")

Folder = pathlib.Path
Text = typer.Option
Out = Annotated[Folder, Text("--out", help="Folder to write.")]
Source = Annotated[Folder, Text("--source", help="Folder in the official layout.")]
Name = Annotated[str, typer.Argument(help="Data set: vipseg, coco_panoptic, ..., or own; see docs/data.md.")]
# what says how a user's own data lie, see docs/own_data.md
Classes = Annotated[Folder | None, Text("--classes", help="own: the class file.")]
Form = Annotated[str | None, Text("--format", help="own: index (default), palette, panoptic-video, ytvis, coco.")]
Frames = Annotated[str | None, Text("--frames", help="own: pattern of the images, with {split}, {video}, {frame}.")]
Labels = Annotated[str | None, Text("--labels", help="own: pattern of the label PNGs.")]
Instances = Annotated[str | None, Text("--instances", help="own: pattern of the object PNGs.")]
Annotations = Annotated[str | None, Text("--annotations", help="own: pattern of the json of a split.")]
MaxGap = Annotated[int | None, Text("--max-gap", help="own: a larger step of frame numbers cuts a video.")]

# of the numbers that options take; in frames of fewer pixels nothing can be seen
LEAST = {"short_side": 16, "workers": 1, "max_gap": 1}


@data.command()
def synthesize(
    out: Out,
    seed: Annotated[int, Text("--seed", help="Another seed gives other videos.")] = 0,
    train: Annotated[int, Text("--train", help="Training videos.", min=0)] = 132,
    val: Annotated[int, Text("--val", help="Validation videos.", min=0)] = 24,
    test: Annotated[int, Text("--test", help="Test videos, without masks.", min=0)] = 6,
    layout: Annotated[str, Text("--layout", help="Data set whose layout is written.")] = "vipseg",
):
    """Generate a synthetic data set in the official layout of VIPSeg or of another set.

    Example: vps-jax data synthesize --seed 0 --out runs/data/raw
    """
    from vps_jax.data import synthetic

    counts = synthetic.synthesize(out, layout=layout, seed=seed, train=train, val=val, test=test)
    print(f"{counts['videos']} videos, {counts['frames']} frames -> {out}")


@data.command("convert")
def convert_data(
    name: Annotated[str, typer.Argument(help="Data set: vipseg.")],
    source: Source,
    out: Out,
    height: Annotated[str, Text("--height", help="Frame height in pixels, or native.")] = "720",
):
    """Convert a data set as its authors do: resized frames, RGB panoptic PNGs, json files of the truth.

    Example: vps-jax data convert vipseg --source VIPSeg --out data/VIPSeg_720P
    """
    from vps_jax.data import vipseg_convert

    if name != "vipseg":
        raise UserError(f"data set {name!r} has no conversion; expected vipseg")
    if height != "native" and not height.isdigit():
        raise UserError(f"--height {height!r}; expected a number of pixels or native")
    counts = vipseg_convert.convert(source, out, height=None if height == "native" else int(height))
    print(f"{counts['videos']} videos, {counts['frames']} frames -> {out}")


@data.command("instances")
def write_instances(
    name: Annotated[str, typer.Argument(help="Data set with things: vipseg, ...")],
    source: Source,
    out: Annotated[Folder, Text("--out", help="Json file to write.")],
    split: Annotated[str, Text("--split", help="Split with labels.")] = "val",
):
    """Write the objects of a panoptic truth as YouTube-VIS does, to score the instance task with.

    Example: vps-jax data instances vipseg --source data/VIPSeg_720P --out data/vipseg_instances.json
    """
    from vps_jax.runs import instance_truth

    counts = instance_truth.write(name, source, split, out)
    print(f"{counts['videos']} videos, {counts['objects']} objects -> {out}")


@data.command()
def prepare(
    name: Name,
    source: Source,
    out: Out,
    skip_bad: Annotated[bool, Text("--skip-bad", help="Leave out and list unreadable frames.")] = False,
    short_side: Annotated[int | None, Text("--short-side", help="Store larger frames with this short side.")] = None,
    workers: Annotated[int | None, Text("--workers", help="Number of processes; default: one per processor.")] = None,
    classes: Classes = None,
    form: Form = None,
    frames: Frames = None,
    labels: Labels = None,
    instances: Instances = None,
    annotations: Annotations = None,
    max_gap: MaxGap = None,
    again: Annotated[bool, Text("--again", help="own: replace what was prepared from other files.")] = False,
):
    """Write the records that training reads. Run it again to resume; a finished set is only reported.

    Example: vps-jax data prepare vipseg --source data/VIPSeg_720P --out data/prepared --short-side 512
    """
    from vps_jax.data import decoders, prepare_lock
    from vps_jax.data import prepare as preparation
    from vps_jax.runs import own_set

    decoders.quieten()
    refuse_small(short_side=short_side, workers=workers, max_gap=max_gap)
    own = own_data(name, source, classes, form, frames, labels, instances, annotations, max_gap)
    if again and own is None:
        raise UserError(f"--again means nothing with {name}; expected it with own: leave it out")
    options = {"skip_bad": skip_bad, "short_side": short_side, "workers": workers or os.cpu_count() or 1}
    with prepare_lock.held(out, name):
        if own is None:
            print("\n".join(preparation.describe_report(preparation.prepare(name, source, out, **options))))
            return
        report, preview = own_set.prepare(own, source, out, again=again, **options)
    print("\n".join(preparation.describe_report(report)))
    print(f"names on labels -> {preview or 'no picture, since no frame has a pixel of a class'}")


@data.command()
def check(
    name: Name,
    source: Source,
    json_out: Annotated[Folder | None, Text("--json", help="File for counts and problems.")] = None,
    classes: Classes = None,
    form: Form = None,
    frames: Frames = None,
    labels: Labels = None,
    instances: Instances = None,
    annotations: Annotations = None,
    max_gap: MaxGap = None,
):
    """Decode every image and mask, and report every fault.

    Example: vps-jax data check vipseg --source VIPSeg --json check.json
    """
    from vps_jax import files
    from vps_jax.data import check as checking
    from vps_jax.data import decoders
    from vps_jax.datasets.own import specification
    from vps_jax.runs import own_videos

    decoders.quieten()
    refuse_small(max_gap=max_gap)
    if json_out is not None:
        files.require_target(json_out)
    own = own_data(name, source, classes, form, frames, labels, instances, annotations, max_gap)
    with tempfile.TemporaryDirectory() as folder:  # of the frames of video files
        if own is not None:
            own = own_videos.unpacked(own, source, pathlib.Path(folder))
        report = checking.check(name if own is None else specification(own), source)
    if json_out is not None:
        files.write_json(json_out, report.as_json())
    print("\n".join((*report.problems, *checking.table(report))))
    print(f"{report.videos} videos, {report.frames} frames, {len(report.problems)} problems")
    if report.problems:
        raise typer.Exit(1)


@data.command("classes")
def draft_classes(
    labels: Annotated[str, Text("--labels", help="Pattern of label PNGs, between quotes.")],
    out: Annotated[Folder, Text("--out", help="Class file to write.")],
):
    """Draft a class file from label PNGs: their values, shares of the pixels, and a picture of each beside it.

    Example: vps-jax data classes --labels 'labels/train/*/*.png' --out classes.yaml
    """
    from vps_jax.data import class_draft, decoders

    decoders.quieten()
    values = class_draft.draft(labels, out)
    for one in values:
        print(f"value {one.value}: {one.share:7.2%} of the pixels, most in {one.example}")
    print(
        f"{len(values)} values -> {out}; give the classes their names there, from the pictures in {out.stem}_pictures"
    )


def refuse_small(**given: int | None) -> None:
    """Raises UserError for a number of an option that is below the least."""
    for key, value in given.items():
        if value is not None and value < LEAST[key]:
            raise UserError(f"--{key.replace('_', '-')} {value}; expected {LEAST[key]} or more, or leave it out")


def own_data(name: str, source: Folder, classes: Folder | None, form: str | None, *patterns: str | int | None):
    """What the options say of a user's own data, `datasets.own.Own`; None for a data set that is known by name.

    Raises:
      UserError: there is no class file or no source, a given pattern of object PNGs fits none, or an option of own
        data stands beside another name.
    """
    from vps_jax.datasets import class_file
    from vps_jax.datasets.own import Own, require_objects

    keys = ("form", "frames", "labels", "instances", "annotations", "max_gap")
    given = {key: value for key, value in zip(keys, (form, *patterns), strict=True) if value is not None}
    if name != "own":
        if classes is not None or given:
            raise UserError(f"data set {name!r} takes no options of own data; expected the name own: leave them out")
        return None
    if classes is None:
        raise UserError("own data need --classes, a class file; `vps-jax data classes` drafts one from the labels")
    if not source.is_dir():
        raise UserError(f"--source {source}: no such folder; expected the folder of your data")
    read = class_file.read(classes)
    print("\n".join(read.notes), end="\n" if read.notes else "")
    own = Own(read, **given)
    if "instances" in given:
        require_objects(own, source)
    return own
