"""YouTube-VIS and OVIS truth and result files (spec: data_and_metrics 3.1, 5.5)."""

import pathlib
from typing import NamedTuple

import numpy as np

from vps_jax.evaluation import rle
from vps_jax.evaluation.ap import Track
from vps_jax.evaluation.vipseg_folders import read_json
from vps_jax.types import UserError


class VideoTracks(NamedTuple):
    """One video's true and predicted tracks as json rows, parsed where they are scored."""

    video: int | str
    size: tuple[int, int]  # height, width
    length: int
    truth: list[dict]
    predictions: list[dict]


def truth_json(root: pathlib.Path, split: str) -> pathlib.Path | None:
    """The truth of a split, or None: `root` itself when it is a json file, else where the data sets keep it."""
    if root.suffix == ".json":
        return root
    places = (root / split / "instances.json", root / f"{split}.json", root / f"annotations_{split}.json")
    return next((place for place in places if place.is_file()), None)


def read_files(truth: pathlib.Path, predictions: pathlib.Path) -> tuple[dict[int, str], list[VideoTracks]]:
    """Class names by id, and every video of the truth with its rows.

    Args:
      truth: json with `videos`, `annotations`, `categories`.
      predictions: json list of `{video_id, category_id, score, segmentations}`, or a folder with it as results.json.

    Raises:
      UserError: a file is missing or not of that form, or a prediction's video or category is not in the truth.
    """
    content = read_json(truth)
    source = predictions / "results.json" if predictions.is_dir() else predictions
    rows = read_json(source)
    if not isinstance(content, dict) or not content.get("annotations"):
        raise UserError(
            f"{truth}: no annotations in it; the public valid and test files have none, use a split that has"
        )
    if not isinstance(rows, list):
        raise UserError(f"{source}: expected a list of {{video_id, category_id, score, segmentations}}")
    categories = {row["id"]: str(row["name"]) for row in content["categories"]}
    videos = {
        row["id"]: VideoTracks(row["id"], (row["height"], row["width"]), len(row["file_names"]), [], [])
        for row in content["videos"]
    }
    for row in content["annotations"]:
        videos[row["video_id"]].truth.append(row)
    for i, row in enumerate(rows):
        for key in ("video_id", "category_id", "score", "segmentations"):
            if key not in row:
                raise UserError(f"{source}: prediction {i} has no {key}")
        if row["video_id"] not in videos:
            raise UserError(f"{source}: prediction {i}: video {row['video_id']!r} is not in {truth.name}")
        if row["category_id"] not in categories:
            raise UserError(
                f"{source}: prediction {i} of video {row['video_id']}: category {row['category_id']!r}; "
                f"expected one of {min(categories)}..{max(categories)} of {truth.name}"
            )
        videos[row["video_id"]].predictions.append(row)
    return categories, [videos[video] for video in sorted(videos)]


def tracks(video: VideoTracks) -> tuple[list[Track], list[Track]]:
    """True and predicted tracks of one video.

    Raises:
      UserError: a track of another length or size than the video, or a mask that is no run-length code.
    """
    return (
        [_track(row, video, f"truth {row.get('id', i)}") for i, row in enumerate(video.truth)],
        [_track(row, video, f"prediction {i}") for i, row in enumerate(video.predictions)],
    )


def _track(row: dict, video: VideoTracks, what: str) -> Track:
    masks = row["segmentations"]
    if len(masks) != video.length:
        raise UserError(
            f"video {video.video}: {what} has {len(masks)} masks, the video has {video.length} frames; "
            "write null where an instance is absent"
        )
    return Track(
        category=row["category_id"],
        frames=[_runs(mask, video, f"{what}, frame {t}") for t, mask in enumerate(masks)],
        score=float(row.get("score", 0.0)),
        crowd=bool(row.get("iscrowd", 0)),
        areas=row.get("areas") if "score" not in row else None,
    )


def _runs(mask: dict | None, video: VideoTracks, what: str) -> np.ndarray | None:
    if not mask:
        return None
    try:
        runs = rle.parse_counts(mask["counts"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"video {video.video}: {what}: not a run-length mask ({error!r})") from None
    if tuple(mask["size"]) != video.size or runs.sum() != video.size[0] * video.size[1]:
        raise UserError(f"video {video.video}: {what}: size {mask['size']}, but the video is {list(video.size)}")
    return runs
