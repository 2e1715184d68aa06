"""Truth of any data set whose specification reads masks, against results in VIPSeg's form.

The labels are those that training sees: `DatasetSpec.read_label` and the label code. Frames without a mask are not
scored, though they may be predicted.
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from vps_jax import datasets
from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import images, scoring
from vps_jax.evaluation.counts import SegmentFrame, Segments
from vps_jax.evaluation.plan import Job, Plan, TruthSource, keep_videos
from vps_jax.evaluation.protocol import PANOPTIC, Settings
from vps_jax.evaluation.vipseg_folders import FrameRecord, TruthRoot, read_classes, read_predictions
from vps_jax.types import UserError

FIRST_OBJECT = 1 << 16  # segment ids: below are official ids of classes + 1, from here on objects
BGR_TO_ID = np.array([65536, 256, 1])
NOTHING = Segments(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool), None)


def plan(truth: TruthSource, predictions: pathlib.Path) -> Plan:
    """What a result folder has to be scored.

    Raises:
      UserError: no frame of a video has a mask, or results are missing.
    """
    spec, root, source = truth.spec, truth.root, truth.path
    listed = {video.name: video for video in spec.videos(root, truth.split)}
    table, categories = read_classes(spec.classes.rows())
    wanted = {name: listed[name] for name in keep_videos(list(listed), truth.videos, source)}
    records = {
        name: [FrameRecord(image.stem, image, NOTHING, source) for image in video.images]
        for name, video in wanted.items()
    }
    sizes = {name: [None] * len(rows) for name, rows in records.items()}
    results = read_predictions(predictions, TruthRoot(source, table, categories, records, sizes))
    jobs = []
    for name, video in wanted.items():
        labelled = [i for i, mask in enumerate(video.masks or ()) if mask is not None]
        if not labelled:
            raise UserError(f"{root}: no frame of video {name} has a mask; expected the masks of split {truth.split!r}")
        scanned = spec.scan(video) if spec.scan else video
        jobs.append(Job(name, len(labelled), (spec, scanned, [(i, results[name][i]) for i in labelled])))
    inputs = (root, predictions / "pred.json", predictions / "pan_pred")
    return Plan(spec.name, PANOPTIC, table, jobs, score, inputs)


def score(states: scoring.States, job: Job, settings: Settings) -> None:
    """Read one video and add it."""
    scoring.score_video(states, job.video, _frames(*job.content), settings)


def _frames(
    spec: datasets.DatasetSpec, video: datasets.VideoFiles, pairs: list[tuple[int, FrameRecord]]
) -> Iterator[tuple]:
    """Truth and prediction of the frames with a mask, one at a time."""
    size = None
    for i, result in pairs:
        labels = read_labels(spec, video, i)
        predicted = images.read_png(result.png, kind="RGB")
        size = size or labels.shape
        for path, shape in ((video.masks[i], labels.shape), (result.png, predicted.shape[:2])):
            if shape != size:
                raise UserError(f"{path}: size is {shape[1]}x{shape[0]}, but the video is {size[1]}x{size[0]}")
        ids = predicted.astype(np.int64) @ BGR_TO_ID  # [h, w]
        yield segments(labels, spec.labels, spec.classes), SegmentFrame(ids, result.segments)


def read_labels(spec: datasets.DatasetSpec, video: datasets.VideoFiles, index: int) -> np.ndarray:
    """Label values `[h, w]` of a frame.

    Raises:
      UserError: masks overlap, so that a pixel has several segments.
    """
    label = spec.read_label(video, index)
    if label.combinations:
        raise UserError(
            f"{video.masks[index]}: masks overlap; expected one segment per pixel to score them as panoptic"
        )
    return label.values


def segments(labels: np.ndarray, code: datasets.LabelCode, classes: ClassTable) -> SegmentFrame:
    """Segment ids and table of one label map `[h, w]`; all pixels of a class and of no object are one segment."""
    official = np.array(classes.official_ids, np.int64)
    known = (code.classes >= 0) & (code.classes < len(official))  # a code may have room for more classes
    category = np.where(known, official[np.where(known, code.classes, 0)], -1)  # [65536]
    ids = np.where(code.is_instance, FIRST_OBJECT + np.arange(len(category)), category + 1)
    ids = np.where(category >= 0, ids, 0)
    values = np.unique(labels)
    values = values[category[values] >= 0]
    present, first = np.unique(ids[values], return_index=True)
    table = Segments(present, category[values][first], np.zeros(len(present), bool), None)
    return SegmentFrame(ids[labels], table)
