"""Cityscapes-VPS' truth and results on disk (spec: data_sets 8): VIPSeg's, but flat.

Truth: `panoptic_gt_<split>_city_vps.json` with `images`, `annotations` and `categories`, PNGs in
`<split>/panoptic_video/`. Prediction: `pred.json` with one annotation per image of the truth, PNGs in `pan_pred/` named
by the image. The video is what a name begins with, up to the first underscore.
"""

import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from vps_jax.datasets.cityscapes_vps import frame_name
from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import checked
from vps_jax.evaluation.plan import Job, Plan, TruthSource, keep_videos
from vps_jax.evaluation.protocol import PANOPTIC
from vps_jax.evaluation.vipseg_folders import MAX_SIDE, SIDES, FrameRecord, png_stems, read_classes, score
from vps_jax.types import UserError


def plan(truth: TruthSource, predictions: pathlib.Path) -> Plan:
    """What a result folder has to be scored; `truth.path` is the truth's json.

    Raises:
      UserError: a file is missing or breaks a rule of the format, or frames of the results are not those of the truth.
    """
    source, maps = truth.path, truth.root / truth.split / "panoptic_video"
    listed = read_truth(source, truth.spec.classes)
    records = _records(listed.rows, source, maps, listed.categories, truth=True)
    results = predictions / "pred.json"
    predicted = _records(read_rows(results), results, predictions / "pan_pred", listed.categories, truth=False)
    for name in records:
        if name not in predicted:
            raise UserError(f"{results}: image {name} is missing; predict it")
    by_video = images_of_videos(records)
    jobs = []
    for video in keep_videos(list(by_video), truth.videos, source):
        names = sorted(by_video[video])
        jobs.append(Job(video, len(names), ([records[name] for name in names], [predicted[name] for name in names])))
    inputs = (source, maps, results, predictions / "pan_pred")
    return Plan("cityscapes_vps", PANOPTIC, listed.classes, jobs, score, inputs)


class Truth(NamedTuple):
    """The truth's json: its classes, the category ids that it lists, image name -> row, and `images` as it stands."""

    classes: ClassTable
    categories: frozenset[int]
    rows: dict[str, dict]
    images: object


def read_truth(source: pathlib.Path, classes: ClassTable) -> Truth:
    """The truth's json; `classes` are for one that lists none.

    Raises:
      UserError: the file is missing or breaks a rule of the format.
    """
    content = checked.read_json(source)
    with checked.place(source):
        table, categories = read_classes(checked.mapping(content, "the file").get("categories"), classes)
    return Truth(table, categories, _named(content, source), content.get("images"))


def sizes(truth: Truth) -> dict[str, tuple[int, int]]:
    """Image name -> (height, width), of those images of which the truth's json tells it.

    Raises:
      Wrong: an image breaks a rule of the format.
    """
    by_image = {}
    for i, row in enumerate(checked.sequence(truth.images or [], "images")):
        row = checked.mapping(row, f"images[{i}]")
        given = row.get("file_name") or row.get("id")
        if isinstance(given, str) and row.get("height") is not None and row.get("width") is not None:
            height, width = (checked.whole(row[side], f"{side} of images[{i}]", 1, MAX_SIDE) for side in SIDES)
            by_image[frame_name(given)] = height, width
    return by_image


def read_rows(source: pathlib.Path) -> dict[str, dict]:
    """Image name -> row of a json of results.

    Raises:
      UserError: the file is missing, or a row has no name or one that another row has.
    """
    return _named(checked.read_json(source), source)


def images_of_videos(names: Iterable[str]) -> dict[str, list[str]]:
    """Video -> the names of its images."""
    by_video: dict[str, list[str]] = {}
    for name in names:
        by_video.setdefault(name.partition("_")[0], []).append(name)
    return by_video


def pngs(folder: pathlib.Path, number: int, source: pathlib.Path) -> dict[str, pathlib.Path]:
    """Image name -> its PNG, of a folder that should have so many of a json."""
    stems = png_stems(folder, f"the {number} PNGs of {source.name}")
    return {frame_name(stem): folder / f"{stem}.png" for stem in stems}


def read_record(
    name: str, row: dict, png: pathlib.Path, source: pathlib.Path, categories: frozenset[int], *, truth: bool
) -> FrameRecord:
    """One frame from its row of a json and its PNG.

    Raises:
      UserError: the row breaks a rule of the format, or the PNG is not there.
    """
    with checked.place(source, f"image {name}"):
        segments = checked.segments(checked.field(row, "segments_info"), categories, truth=truth)
    if not png.is_file():
        raise UserError(f"{png}: no such file; image {name} has no PNG")
    return FrameRecord(name, png, segments, source)


def _records(
    rows: dict[str, dict], source: pathlib.Path, folder: pathlib.Path, categories: frozenset[int], *, truth: bool
) -> dict[str, FrameRecord]:
    """Image name -> its frame, every row checked and its PNG there."""
    files = pngs(folder, len(rows), source)
    return {
        name: read_record(name, row, files.get(name, folder / f"{name}.png"), source, categories, truth=truth)
        for name, row in rows.items()
    }


def _named(content: object, source: pathlib.Path) -> dict[str, dict]:
    """Image name -> its row of `annotations`."""
    with checked.place(source):
        rows = checked.sequence(checked.field(checked.mapping(content, "the file"), "annotations"), "annotations")
        if not rows:
            raise checked.Wrong("annotations is empty; expected one per image")
    named: dict[str, dict] = {}
    for i, row in enumerate(rows):
        with checked.place(source, f"annotation {i}"):
            row = checked.mapping(row, "the row")
            given = row.get("image_id") or row.get("file_name")
            name = checked.name(frame_name(given) if isinstance(given, str) else given, "image_id")
            if name in named:
                raise checked.Wrong(f"image {name} stands in it twice; keep one of the two")
            named[name] = row
    return named
