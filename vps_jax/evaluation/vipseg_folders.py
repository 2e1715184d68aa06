"""VIPSeg's truth root and result folder on disk (spec: metrics 1.4, 1.5, 4.1).

The official scripts pair frames by position and die with a KeyError on most mistakes; here each mistake has a message
that names file and frame. What is checked from the two json files and folder listings is checked before any scoring.
"""

import pathlib
import posixpath
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.datasets.classes import ClassTable, class_table
from vps_jax.datasets.vipseg import truth_json
from vps_jax.evaluation import checked, images, scoring
from vps_jax.evaluation.counts import SegmentFrame, Segments, Tubes, wrong_areas
from vps_jax.evaluation.plan import Job, Plan, TruthSource, keep_videos
from vps_jax.evaluation.protocol import PANOPTIC, Settings
from vps_jax.types import UserError

MAX_SIDE = 1 << 24  # pixels
SIDES = ("height", "width")
BLACK = (0, 0, 0)


class FrameRecord(NamedTuple):
    """One frame of one side: its stem, its PNG, its segments, and the json they come from."""

    stem: str
    png: pathlib.Path
    segments: Segments
    source: pathlib.Path


class TruthRoot(NamedTuple):
    """A truth: its json, its classes, the category ids that it lists, and the frames of each video in its order.

    `sizes` are (height, width) of every frame as the json tells them, None where it does not.
    """

    source: pathlib.Path
    classes: ClassTable
    categories: frozenset[int]
    videos: dict[str, list[FrameRecord]]
    sizes: dict[str, list[tuple[int, int] | None]]


def plan(truth: TruthSource, predictions: pathlib.Path) -> Plan:
    """What a result folder has to be scored.

    Args:
      truth: `path` is the truth's json, the classes of `spec` are for a json that lists none.
      predictions: result folder.

    Raises:
      UserError: a file is missing or breaks a rule of the format.
    """
    listed = read_truth(truth.root, truth.split, source=truth.path, videos=truth.videos, classes=truth.spec.classes)
    results = read_predictions(predictions, listed)
    jobs = [Job(video, len(records), (records, results[video])) for video, records in listed.videos.items()]
    empty = not any(len(record.segments.ids) for records in listed.videos.values() for record in records)
    notes = (f"{truth.path} lists no segment in any frame, so no score is defined; is it a split without truth?",)
    inputs = (truth.path, truth.root / "panomasksRGB", predictions / "pred.json", predictions / "pan_pred")
    return Plan("vipseg", PANOPTIC, listed.classes, jobs, score, inputs, notes if empty else ())


def score(states: scoring.States, job: Job, settings: Settings) -> None:
    """Read one video and add it."""
    truth, prediction = job.content
    counts = scoring.count_video(states, load_frames(truth, prediction), settings)
    if not settings.quirks.json_area:
        check_areas(truth, counts.truth, job.video)
    check_ids(prediction, counts.prediction)
    scoring.add_counts(states, job.video, counts)


def read_truth(
    root: pathlib.Path,
    split: str,
    *,
    videos: Sequence[str] | None = None,
    pixels: bool = True,
    source: pathlib.Path | None = None,
    classes: ClassTable | None = None,
) -> TruthRoot:
    """Index of a VIPSeg truth root: `panoptic_gt_VIPSeg_<split>.json` and `panomasksRGB/`.

    Args:
      root: the folder.
      split: which json.
      videos: those wanted; None: all that the json lists.
      pixels: the PNGs must be there.
      source: the json; None: where VIPSeg has it.
      classes: for a json that lists none; None: VIPSeg's.

    Raises:
      UserError: a file is missing, or the json breaks a rule of the format.
    """
    source = source or truth_json(root, split)
    with checked.place(source):
        content = checked.mapping(checked.read_json(source), "the file")
        classes, categories = read_classes(content.get("categories"), classes)
        listed = None if content.get("videos") is None else _listed(content["videos"])
        annotated = annotations(content if pixels else {"annotations": []} | content, source)
    if not pixels:  # a split without truth may list its frames alone
        for video, frames in (listed or {}).items():
            unlabelled = [{"file_name": f"{stem}.png", "segments_info": []} for stem, _ in frames or ()]
            annotated.setdefault(video, unlabelled)
    missing = [video for video in listed or () if video not in annotated]
    if missing:
        raise UserError(f"{source}: video {missing[0]} stands in videos but without annotations; take it out")
    if not annotated or listed == {}:
        raise UserError(f"{source}: no video in it; expected the annotations of split {split!r}")
    records, sizes = {}, {}
    for video in keep_videos(list(annotated if listed is None else listed), videos, source):
        records[video] = _records(
            annotated[video], video, root / "panomasksRGB" / video, source, categories, truth=True
        )
        sizes[video] = [None] * len(records[video])
        if listed is not None and listed[video] is not None:
            stems, sizes[video] = zip(*listed[video], strict=True) if listed[video] else ((), ())
            _check_frames([record.stem for record in records[video]], list(stems), video, f"{source}: annotations")
        if pixels:
            check_files(records[video], video, root / "panomasksRGB" / video, extra_is_wrong=False)
    return TruthRoot(source, classes, categories, records, sizes)


def read_predictions(folder: pathlib.Path, truth: TruthRoot) -> dict[str, list[FrameRecord]]:
    """Index of a result folder (`pred.json`, `pan_pred/`), in the order of the truth; other videos are left out.

    Raises:
      UserError: a video or frame is missing or too many or out of order, a category is none, a file is missing.
    """
    source = folder / "pred.json"
    with checked.place(source):
        annotated = annotations(checked.mapping(checked.read_json(source), "the file"), source)
    videos = {}
    for video in truth.videos:
        if video not in annotated:
            raise UserError(f"{source}: video {video} is missing; predict it or evaluate a split without it")
        videos[video] = read_video(annotated[video], video, folder, truth)
    return videos


def read_video(frames: list, video: str, folder: pathlib.Path, truth: TruthRoot) -> list[FrameRecord]:
    """Index of one video of a result folder, from its frames in `pred.json`.

    Raises:
      UserError: see `read_predictions`.
    """
    source, pngs = folder / "pred.json", folder / "pan_pred" / video
    records = _records(frames, video, pngs, source, truth.categories, truth=False)
    _check_frames([record.stem for record in records], [record.stem for record in truth.videos[video]], video, source)
    check_files(records, video, pngs, extra_is_wrong=True)
    return records


def read_classes(rows: object, classes: ClassTable | None = None) -> tuple[ClassTable, frozenset[int]]:
    """A json's own classes, or the given ones (VIPSeg's) when it lists none, and the category ids that it lists.

    Ids may have gaps: the table is as long as the greatest, and a class that is not listed has no name.

    Raises:
      Wrong: a row breaks a rule of the format.
    """
    if rows is None or rows == []:
        rows = (classes or class_table("vipseg")).rows()
    by_id = {}
    for number, row in checked.categories(rows).items():
        what = f"category {number}"
        is_thing = checked.flag(checked.field(row, "isthing", what), f"isthing of {what}")
        by_id[number] = str(row.get("name") or number), color_of(row), is_thing
    classes = [by_id.get(c, ("", BLACK, False)) for c in range(max(by_id) + 1)]
    names, colors, things = (tuple(column) for column in zip(*classes, strict=True))
    return ClassTable(names, colors, things), frozenset(by_id)


def color_of(row: dict) -> tuple[int, int, int]:
    """The colour of a category, which no score depends on; black where it has none that can be shown."""
    color = row.get("color")
    levels = color if isinstance(color, list) and len(color) == 3 else ()
    return tuple(levels) if levels and all(type(c) is int and 0 <= c <= 255 for c in levels) else BLACK


def _listed(rows: object) -> dict[str, list[tuple[str, tuple[int, int] | None]] | None]:
    """Video -> stem and size of its images, None when they are not listed; from the json's `videos`."""
    videos = {}
    for i, row in enumerate(checked.sequence(rows, "videos")):
        row = checked.mapping(row, f"videos[{i}]")
        video = checked.name(checked.field(row, "video_id", f"videos[{i}]"), f"video_id of videos[{i}]")
        if video in videos:
            raise checked.Wrong(f"video {video} stands in videos twice; keep one of the two")
        images_ = row.get("images")
        videos[video] = None
        if images_ is not None:
            what = f"images of video {video}"
            videos[video] = [_image(one, what) for one in checked.sequence(images_, what)]
    return videos


def _image(row: object, what: str) -> tuple[str, tuple[int, int] | None]:
    row = checked.mapping(row, f"one of the {what}")
    stem = stem_of(row.get("file_name") or row.get("id"), f"file_name of one of the {what}")
    if row.get("height") is None or row.get("width") is None:
        return stem, None
    height, width = (checked.whole(row[side], f"{side} of {stem} in {what}", 1, MAX_SIDE) for side in SIDES)
    return stem, (height, width)


def annotations(content: dict, source: pathlib.Path) -> dict[str, list]:
    """Video -> its frames as they stand in the json's `annotations`."""
    videos: dict[str, list] = {}
    if "annotations" not in content:
        raise checked.Wrong(
            "annotations is missing; expected "
            '{"annotations": [{"video_id", "annotations": [{"file_name", "segments_info"}]}]}'
        )
    for i, entry in enumerate(checked.sequence(content["annotations"], "annotations")):
        entry = checked.mapping(entry, f"annotations[{i}]")
        video = checked.name(checked.field(entry, "video_id", f"annotations[{i}]"), f"video_id of annotations[{i}]")
        if video in videos:
            raise checked.Wrong(f"video {video} stands in it twice; keep one of the two")
        with checked.place(source, f"video {video}"):
            videos[video] = checked.sequence(checked.field(entry, "annotations"), "annotations")
    return videos


def _records(
    frames: list, video: str, folder: pathlib.Path, source: pathlib.Path, categories: frozenset[int], *, truth: bool
) -> list[FrameRecord]:
    """The frames of one video, every row of them checked."""
    records, seen = [], set()
    for t, row in enumerate(frames):
        with checked.place(source, f"video {video}, frame number {t}"):
            row = checked.mapping(row, "the frame")
            stem = stem_of(row.get("file_name") or row.get("image_id"), "file_name")
        with checked.place(source, f"video {video}, frame {stem}"):
            segments = checked.segments(checked.field(row, "segments_info"), categories, truth=truth)
        if truth and stem in seen:
            raise UserError(f"{source}: video {video}: frame {stem} stands in it twice; keep one of the two")
        seen.add(stem)
        records.append(FrameRecord(stem, folder / f"{stem}.png", segments, source))
    return records


def stem_of(value: object, what: str) -> str:
    """A file's name without folders and suffix."""
    if not isinstance(value, str):
        raise checked.Wrong(f"{what} is {checked.show(value)}; expected the name of the frame's file")
    return checked.name(posixpath.splitext(posixpath.basename(value))[0], what)


def _check_frames(given: list[str], expected: list[str], video: str, source) -> None:
    """Raises UserError unless the frames are the expected ones, in their order."""
    if given == expected:
        return
    missing = [stem for stem in expected if stem not in set(given)]
    if missing:
        raise UserError(f"{source}: video {video}: frame {missing[0]} is missing ({len(missing)} of {len(expected)})")
    extra = [stem for stem in given if stem not in set(expected)]
    if extra:
        raise UserError(f"{source}: video {video}: frame {extra[0]} is not in the truth; leave it out")
    if len(given) != len(expected):
        longer = max(given, expected, key=len)
        double = next(stem for stem in longer if longer.count(stem) > 1)
        raise UserError(f"{source}: video {video}: frame {double} stands in it twice; keep one of the two")
    for place, (one, other) in enumerate(zip(given, expected, strict=True)):
        if one != other:
            raise UserError(
                f"{source}: video {video}: frame {one} at place {place}, where the truth has {other}; "
                "the official scripts pair frames by place, so write them in its order"
            )


def check_files(records: list[FrameRecord], video: str, folder: pathlib.Path, *, extra_is_wrong: bool) -> None:
    """Raises UserError unless the folder has the PNG of every frame, and no other where that is wrong."""
    stems = png_stems(folder, f"the {len(records)} PNGs of video {video}")
    for record in records:
        if record.stem not in stems:
            raise UserError(f"{record.png}: no such file; frame {record.stem} of video {video} has no PNG")
    extra = sorted(stems - {record.stem for record in records})
    if extra and extra_is_wrong:
        raise UserError(f"{folder / extra[0]}.png: frame {extra[0]} of video {video} is not in the truth; remove it")


def png_stems(folder: pathlib.Path, what: str) -> set[str]:
    """Names of the PNGs of a folder, without suffix; hidden files are left out.

    Raises:
      UserError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected {what} there")
    try:
        return {path.stem for path in folder.iterdir() if path.suffix == ".png" and not path.name.startswith(".")}
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or 'cannot be read'}; expected {what} there") from None


def load_frames(truth: list[FrameRecord], prediction: list[FrameRecord]) -> Iterator[tuple[SegmentFrame, SegmentFrame]]:
    """Decode one video frame by frame.

    Raises:
      UserError: a PNG is not an 8-bit RGB image, or two sizes differ (nothing is resized, as officially).
    """
    size = None
    for one, other in zip(truth, prediction, strict=True):
        pixels = images.read_png(one.png, kind="RGB")
        (h, w) = pixels.shape[:2]
        if size not in (None, (h, w)):
            raise UserError(f"{one.png}: size is {w}x{h}, but the frames before are {size[1]}x{size[0]}")
        size = h, w
        predicted = images.read_png(other.png, kind="RGB", size=size)
        yield SegmentFrame(pixels, one.segments), SegmentFrame(predicted, other.segments)


def check_areas(records: list[FrameRecord], tubes: Tubes, video: str) -> None:
    """Raises UserError unless every area of the truth's json is the number of pixels in the PNG, above 0."""
    wrong = wrong_areas(tubes)
    if not len(wrong):
        wrong = np.argwhere((tubes.categories >= 0) & (tubes.pixels == 0))
    for t, i in wrong[:1]:
        record, number = records[t], tubes.ids[i]
        raise UserError(
            f"{record.source}: video {video}, frame {record.stem}: segment {number} has area "
            f"{tubes.areas[t, i]}, but {tubes.pixels[t, i]} pixels in {record.png}; mend the truth, or ask for the "
            "quirk of the official script, --quirks-on json_area"
        )


def check_ids(records: list[FrameRecord], tubes: Tubes) -> None:
    """Raises UserError unless in every frame the ids that the json lists are those in the PNG, void left out."""
    listed, painted = tubes.categories >= 0, tubes.pixels > 0  # [t, p]
    painted[:, 0] = False  # void
    wrong = np.argwhere(listed != painted)
    if not len(wrong):
        return
    t, p = wrong[0]
    record, number = records[t], int(tubes.ids[p])
    where = f"{record.png}: frame {record.stem}: id {number} (RGB {tuple(number >> s & 255 for s in (0, 8, 16))})"
    name = record.source.name
    if listed[t, p]:
        raise UserError(f"{where} is listed in {name} but has no pixel in the PNG; leave it out of {name}")
    raise UserError(f"{where} is in the PNG but not in {name}; list it there or paint it 0")
