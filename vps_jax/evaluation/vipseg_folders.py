"""VIPSeg's truth root and result folder on disk (spec: data_and_metrics 1.4, 1.5, 4.1).

The official scripts pair frames by position and die with a KeyError on most mistakes; here each mistake has a message
that names file and frame. What is checked from the two json files and folder listings is checked before any scoring.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vps_jax.evaluation import images
from vps_jax.evaluation.counts import SegmentFrame, Tubes, make_segments
from vps_jax.taxonomy import ClassTable, class_table
from vps_jax.types import UserError


class FrameRecord(NamedTuple):
    """One frame of one side: its stem, its PNG, its rows of `segments_info`, and the json they come from."""

    stem: str
    png: pathlib.Path
    rows: list[dict]
    source: pathlib.Path


class TruthRoot(NamedTuple):
    """A truth root: its classes, and the frames of each video in the json's order."""

    classes: ClassTable
    videos: dict[str, list[FrameRecord]]


def read_json(path: pathlib.Path):
    """Content of a json file.

    Raises:
      UserError: it is missing or no json.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}; expected a json file there") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid json ({error}); write it again") from None


def truth_json(root: pathlib.Path, split: str) -> pathlib.Path:
    """Where a split's truth is."""
    return root / f"panoptic_gt_VIPSeg_{split}.json"


def read_truth(root: pathlib.Path, split: str) -> TruthRoot:
    """Index of a VIPSeg truth root: `panoptic_gt_VIPSeg_<split>.json` and `panomasksRGB/`.

    Raises:
      UserError: a file is missing, or the json breaks a rule of the format.
    """
    source = truth_json(root, split)
    content = read_json(source)
    classes = _classes(content, source)
    videos = {}
    for video, entries in _videos(content, source).items():
        folder = root / "panomasksRGB" / video
        records = [FrameRecord(stem, folder / f"{stem}.png", rows, source) for stem, rows in entries]
        for record in records:
            _check_rows(record, video, len(classes.names))
        _check_files(records, video, folder, extra_is_wrong=False)
        videos[video] = records
    if not videos:
        raise UserError(f"{source}: no video in it; expected the annotations of split {split!r}")
    return TruthRoot(classes, videos)


def read_predictions(folder: pathlib.Path, truth: TruthRoot) -> dict[str, list[FrameRecord]]:
    """Index of a result folder (`pred.json`, `pan_pred/`), in the order of the truth; other videos are left out.

    Raises:
      UserError: a video or frame is missing or too many or out of order, a category is none, a file is missing.
    """
    source = folder / "pred.json"
    found = _videos(read_json(source), source)
    videos = {}
    for video, expected in truth.videos.items():
        if video not in found:
            raise UserError(f"{source}: video {video} is missing; predict it or evaluate a split without it")
        _check_frames([stem for stem, _ in found[video]], [record.stem for record in expected], video, source)
        pngs = folder / "pan_pred" / video
        records = [
            FrameRecord(record.stem, pngs / f"{record.stem}.png", rows, source)
            for record, (_, rows) in zip(expected, found[video], strict=True)
        ]
        for record in records:
            _check_rows(record, video, len(truth.classes.names))
        _check_files(records, video, pngs, extra_is_wrong=True)
        videos[video] = records
    return videos


def _classes(content: dict, source: pathlib.Path) -> ClassTable:
    """The json's own classes, or VIPSeg's when it lists none."""
    rows = sorted(content.get("categories") or (), key=lambda row: row["id"])
    if not rows:
        return class_table("vipseg")
    if [row["id"] for row in rows] != list(range(len(rows))):
        raise UserError(f"{source}: category ids are {[row['id'] for row in rows][:5]}...; expected 0, 1, 2, ...")
    return ClassTable(
        names=tuple(str(row.get("name", row["id"])) for row in rows),
        colors=tuple(tuple(row.get("color", (0, 0, 0))) for row in rows),
        is_thing=tuple(bool(row["isthing"]) for row in rows),
    )


def _videos(content, source: pathlib.Path) -> dict[str, list[tuple[str, list[dict]]]]:
    """Video -> its frames' (stem, segments_info), in the file's order."""
    videos: dict[str, list[tuple[str, list[dict]]]] = {}
    try:
        for entry in content["annotations"]:
            video = str(entry["video_id"])
            if video in videos:
                raise UserError(f"{source}: video {video} stands in it twice; keep one of the two")
            videos[video] = [
                (pathlib.PurePosixPath(frame.get("file_name") or frame["image_id"]).stem, frame["segments_info"])
                for frame in entry["annotations"]
            ]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{source}: {error!r} while reading annotations; expected "
            '{"annotations": [{"video_id", "annotations": [{"file_name", "segments_info"}]}]}'
        ) from None
    return videos


def _check_frames(found: list[str], expected: list[str], video: str, source: pathlib.Path) -> None:
    missing = [stem for stem in expected if stem not in set(found)]
    if missing:
        raise UserError(f"{source}: video {video}: frame {missing[0]} is missing ({len(missing)} of {len(expected)})")
    extra = [stem for stem in found if stem not in set(expected)]
    if extra:
        raise UserError(f"{source}: video {video}: frame {extra[0]} is not in the truth; leave it out")
    if len(found) > len(expected):
        double = next(stem for stem in found if found.count(stem) > 1)
        raise UserError(f"{source}: video {video}: frame {double} stands in it twice; keep one of the two")
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        if one != other:
            raise UserError(
                f"{source}: video {video}: frame {one} at place {place}, where the truth has {other}; "
                "the official scripts pair frames by place, so write them in its order"
            )


def _check_files(records: list[FrameRecord], video: str, folder: pathlib.Path, *, extra_is_wrong: bool) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the {len(records)} PNGs of video {video} there")
    stems = {path.stem for path in folder.iterdir() if path.suffix == ".png" and not path.name.startswith(".")}
    for record in records:
        if record.stem not in stems:
            raise UserError(f"{record.png}: no such file; frame {record.stem} of video {video} has no PNG")
    extra = sorted(stems - {record.stem for record in records})
    if extra and extra_is_wrong:
        raise UserError(f"{folder / extra[0]}.png: frame {extra[0]} of video {video} is not in the truth; remove it")


def _check_rows(record: FrameRecord, video: str, num_classes: int) -> None:
    where = f"{record.source}: video {video}, frame {record.stem}"
    seen = set()
    for row in record.rows:
        try:
            number, category = row["id"], row["category_id"]
        except (KeyError, TypeError):
            raise UserError(f"{where}: segment {row!r} lacks id or category_id") from None
        if not isinstance(number, int) or not 0 < number < 1 << 24:
            raise UserError(f"{where}: segment id {number!r}; expected R + 256 G + 65536 B, 1..16777215 (0 is void)")
        if not isinstance(category, int) or not 0 <= category < num_classes:
            raise UserError(f"{where}: segment {number} has category {category!r}; expected 0..{num_classes - 1}")
        if number in seen:
            raise UserError(f"{where}: segment {number} stands in segments_info twice")
        seen.add(number)


def load_frames(truth: list[FrameRecord], prediction: list[FrameRecord]) -> Iterator[tuple[SegmentFrame, SegmentFrame]]:
    """Decode one video frame by frame.

    Raises:
      UserError: a PNG is not an 8-bit RGB image, or two sizes differ (nothing is resized, as officially).
    """
    size = None
    for one, other in zip(truth, prediction, strict=True):
        pixels, predicted = images.read_png(one.png, kind="RGB"), images.read_png(other.png, kind="RGB")
        (h, w), (ph, pw) = pixels.shape[:2], predicted.shape[:2]
        if (h, w) != (ph, pw):
            raise UserError(f"{other.png}: size is {pw}x{ph}, but frame {one.stem} of the truth is {w}x{h}")
        if size not in (None, (h, w)):
            raise UserError(f"{one.png}: size is {w}x{h}, but the frames before are {size[1]}x{size[0]}")
        size = h, w
        yield SegmentFrame(pixels, make_segments(one.rows)), SegmentFrame(predicted, make_segments(other.rows))


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
