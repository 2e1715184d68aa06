"""YouTube-VIS and OVIS truth and result files (spec: metrics 3.1, 5.5)."""

import pathlib
from typing import NamedTuple

import numpy as np

from vps_jax.datasets import rle
from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import checked, scoring
from vps_jax.evaluation.ap import Track, TrackPair
from vps_jax.evaluation.checked import Wrong
from vps_jax.evaluation.plan import Job, Plan, TruthSource, keep_videos
from vps_jax.evaluation.protocol import INSTANCES, Settings
from vps_jax.types import UserError

LAST_SIDE = 1 << 15  # pixels
LAST_LENGTH = 1 << 20  # frames


class VideoTracks(NamedTuple):
    """One video's true and predicted tracks as json rows, whose masks are parsed where they are scored."""

    video: int | str
    size: tuple[int, int]  # height, width
    length: int
    truth: list[dict]
    predictions: list[dict]


def plan(truth: TruthSource, predictions: pathlib.Path) -> Plan:
    """What a result file has to be scored; `truth.path` is the truth's json.

    The json lists its classes itself.
    """
    results = results_json(predictions)
    categories, videos = read_files(truth.path, results)
    chosen = set(keep_videos([str(video.video) for video in videos], truth.videos, truth.path))
    names = tuple(categories.get(c, "") for c in range(max(categories) + 1))
    own = ClassTable(names, ((0, 0, 0),) * len(names), tuple(map(bool, names)))
    jobs = [Job(video.video, video.length, video) for video in videos if str(video.video) in chosen]
    return Plan("ytvis", INSTANCES, own, jobs, score, (truth.path, results))


def score(states: scoring.States, job: Job, settings: Settings) -> None:
    """Parse one video's masks and add it."""
    seen = TrackPair(*tracks(job.content))
    for state in states.values():
        state.update(job.video, seen)


def results_json(predictions: pathlib.Path) -> pathlib.Path:
    """A result file, or the one of a folder."""
    return predictions / "results.json" if predictions.is_dir() else predictions


def read_files(
    truth: pathlib.Path, source: pathlib.Path, *, annotated: bool = True
) -> tuple[dict[int, str], list[VideoTracks]]:
    """Class names by id, and every video of the truth with its rows.

    Args:
      truth: json with `videos`, `annotations`, `categories`.
      source: json list of `{video_id, category_id, score, segmentations}`.
      annotated: the truth must have annotations; without, they are not looked at.

    Raises:
      UserError: a file is missing or not of that form, or a prediction's video or category is not in the truth.
    """
    with checked.place(truth):
        content = checked.mapping(checked.read_json(truth), "the file")
        if annotated and not content.get("annotations"):
            raise Wrong("no annotations in it; the public valid and test files have none, use a split that has")
        rows = checked.categories(checked.field(content, "categories"))
        categories = {number: str(row.get("name") or number) for number, row in rows.items()}
        videos = _videos(checked.field(content, "videos"))
        annotations = checked.sequence(content["annotations"], "annotations") if annotated else []
    rows = checked.read_json(source)
    if not isinstance(rows, list):
        raise UserError(f"{source}: expected a list of {{video_id, category_id, score, segmentations}}")
    for i, row in enumerate(annotations):
        with checked.place(truth, f"annotation {i}"):
            video = _row(row, videos, categories, truth)
            _areas(row, video)
            checked.flag(row.get("iscrowd", 0), "iscrowd")
        video.truth.append(row)
    for i, row in enumerate(rows):
        with checked.place(source, f"prediction {i}"):
            video = _row(row, videos, categories, truth)
            checked.number(checked.field(row, "score"), f"score of video {row['video_id']}")
        video.predictions.append(row)
    return categories, [videos[video] for video in sorted(videos)]


def _videos(rows: object) -> dict[int | str, VideoTracks]:
    by_id = {}
    for i, row in enumerate(checked.sequence(rows, "videos")):
        row = checked.mapping(row, f"video {i}")
        video = _identifier(checked.field(row, "id", f"video {i}"), f"id of video {i}")
        if video in by_id:
            raise Wrong(f"video {video!r} stands in videos twice")
        size = tuple(
            checked.whole(checked.field(row, side), f"{side} of video {video}", 1, LAST_SIDE)
            for side in ("height", "width")
        )
        if row.get("file_names") is None:
            length = checked.whole(checked.field(row, "length"), f"length of video {video}", 0, LAST_LENGTH)
        else:
            length = len(checked.sequence(row["file_names"], f"file_names of video {video}"))
        by_id[video] = VideoTracks(video, size, length, [], [])
    if len({type(video) for video in by_id}) > 1:
        raise Wrong("ids of videos are numbers and texts; expected one of the two")
    return by_id


def _identifier(value: object, what: str) -> int | str:
    if type(value) not in (int, str):
        raise Wrong(f"{what} is {checked.show(value)}; expected a whole number or text")
    return value


def _row(row: object, videos: dict, categories: dict[int, str], truth: pathlib.Path) -> VideoTracks:
    """The video that a row of either side belongs to; everything that both sides use is checked, masks excepted."""
    row = checked.mapping(row, "the row")
    number = _identifier(checked.field(row, "video_id"), "video_id")
    if number not in videos:
        raise Wrong(f"video {checked.show(number)} is not in {truth.name}")
    category = checked.field(row, "category_id")
    if type(category) is not int or category not in categories:
        raise Wrong(
            f"category {checked.show(category)} in video {number}; "
            f"expected one of {min(categories)}..{max(categories)} of {truth.name}"
        )
    masks = checked.sequence(checked.field(row, "segmentations"), f"segmentations of video {number}")
    if len(masks) != videos[number].length:
        raise Wrong(
            f"{len(masks)} masks in video {number}, which has {videos[number].length} frames; "
            "write null where an instance is absent"
        )
    return videos[number]


def _areas(row: dict, video: VideoTracks) -> None:
    """Areas of a true track, which choose its size range."""
    if row.get("areas") is None:
        return
    areas = checked.sequence(row["areas"], f"areas of video {video.video}")
    if len(areas) != video.length:
        raise Wrong(f"{len(areas)} areas in video {video.video}, which has {video.length} frames")
    for t, value in enumerate(areas):
        if value is not None and checked.number(value, f"area of video {video.video}, frame {t}") < 0:
            raise Wrong(f"area of video {video.video}, frame {t} is {value}; expected 0 or more")


def tracks(video: VideoTracks) -> tuple[list[Track], list[Track]]:
    """True and predicted tracks of one video.

    Raises:
      UserError: a mask that is no run-length code of the video's size.
    """
    ids = [checked.show(row.get("id", i)) for i, row in enumerate(video.truth)]
    return (
        [_track(row, video, f"truth {name}", truth=True) for name, row in zip(ids, video.truth, strict=True)],
        [_track(row, video, f"prediction {i}", truth=False) for i, row in enumerate(video.predictions)],
    )


def _track(row: dict, video: VideoTracks, what: str, *, truth: bool) -> Track:
    frames = []
    for t, mask in enumerate(row["segmentations"]):
        with checked.place(f"video {video.video}", f"{what} of it, frame {t}"):
            frames.append(None if mask is None else _runs(mask, video.size))
    if truth:
        return Track(row["category_id"], frames, crowd=bool(row.get("iscrowd", 0)), areas=row.get("areas"))
    return Track(row["category_id"], frames, score=float(row["score"]))


def _runs(mask: object, size: tuple[int, int]) -> np.ndarray:
    mask = checked.mapping(mask, "the mask")
    if checked.field(mask, "size") != list(size):
        raise Wrong(f"size {checked.show(mask['size'])}, but the video is {list(size)}")
    try:
        runs = rle.parse_counts(checked.field(mask, "counts"))
    except (TypeError, ValueError, OverflowError) as error:
        raise Wrong(f"not a run-length mask ({error})") from None
    if runs.sum() != size[0] * size[1]:
        raise Wrong(f"runs of {runs.sum()} pixels, but the video's size {list(size)} has {size[0] * size[1]}")
    return runs
