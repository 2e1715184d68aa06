"""Cityscapes-VPS' truth and results on disk (spec: data_sets 8): VIPSeg's, but flat.

Truth: `panoptic_gt_<split>_city_vps.json` with `images`, `annotations` and `categories`, PNGs in
`<split>/panoptic_video/`. Prediction: `pred.json` with one annotation per image of the truth, PNGs in `pan_pred/` named
by the image. The video is what a name begins with, up to the first underscore.
"""

import pathlib
import re
from collections.abc import Sequence

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import checked
from vps_jax.evaluation.plan import Job, Plan, keep_videos
from vps_jax.evaluation.protocol import PANOPTIC
from vps_jax.evaluation.vipseg_folders import FrameRecord, png_stems, read_classes, score
from vps_jax.types import UserError

# what the authors' scripts add to an image's name
ENDINGS = re.compile(r"(_newImg8bit|_leftImg8bit|_final_mask|_gtFine_color|_gtFine_instanceIds)?(\.png|\.jpg)?$")


def plan(
    root: pathlib.Path,
    predictions: pathlib.Path,
    split: str,
    *,
    source: pathlib.Path,
    classes: ClassTable,
    videos: Sequence[str] | None = None,
) -> Plan:
    """What a result folder has to be scored; `source` is the truth's json, the rest as of `vipseg_folders.plan`.

    Raises:
      UserError: a file is missing or breaks a rule of the format, or frames of the results are not those of the truth.
    """
    results = predictions / "pred.json"
    with checked.place(source):
        content = checked.mapping(checked.read_json(source), "the file")
        table, categories = read_classes(content.get("categories"), classes)
    truth = _records(content, source, root / split / "panoptic_video", categories, truth=True)
    content = checked.read_json(results)
    found = _records(content, results, predictions / "pan_pred", categories, truth=False)
    for name in truth:
        if name not in found:
            raise UserError(f"{results}: image {name} is missing; predict it")
    by_video: dict[str, list[str]] = {}
    for name in truth:
        by_video.setdefault(name.partition("_")[0], []).append(name)
    jobs = []
    for video in keep_videos(list(by_video), videos, source):
        names = sorted(by_video[video])
        jobs.append(Job(video, len(names), ([truth[name] for name in names], [found[name] for name in names])))
    inputs = (source, root / split / "panoptic_video", results, predictions / "pan_pred")
    return Plan("cityscapes_vps", PANOPTIC, table, jobs, score, inputs)


def _records(
    content: object, source: pathlib.Path, folder: pathlib.Path, categories: frozenset[int], *, truth: bool
) -> dict[str, FrameRecord]:
    """Image name -> its frame, every row checked."""
    with checked.place(source):
        rows = checked.sequence(checked.field(checked.mapping(content, "the file"), "annotations"), "annotations")
        if not rows:
            raise checked.Wrong("annotations is empty; expected one per image")
    stems = png_stems(folder, f"the {len(rows)} PNGs of {source.name}")
    by_name = {ENDINGS.sub("", stem): stem for stem in stems}
    records = {}
    for i, row in enumerate(rows):
        with checked.place(source, f"annotation {i}"):
            row = checked.mapping(row, "the row")
            given = row.get("image_id") or row.get("file_name")
            name = checked.name(ENDINGS.sub("", given) if isinstance(given, str) else given, "image_id")
            if name in records:
                raise checked.Wrong(f"image {name} stands in it twice; keep one of the two")
        with checked.place(source, f"image {name}"):
            segments = checked.segments(checked.field(row, "segments_info"), categories, truth=truth)
        if name not in by_name:
            raise UserError(f"{folder / name}.png: no such file; image {name} has no PNG")
        records[name] = FrameRecord(name, folder / f"{by_name[name]}.png", segments, source)
    return records
