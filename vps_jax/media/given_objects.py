"""Objects that a user shows for video object segmentation: masks or clicks, beside the videos that they belong to."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vps_jax.datasets import burst
from vps_jax.datasets.label_files import read_mask
from vps_jax.files import visible
from vps_jax.media.video import Video, fingerprint_of
from vps_jax.types import GivenObject, UserError

VOID = 255  # of a mask
FORM = '{"video": [{"object": 1, "x": 100, "y": 50}]}, in pixels, with "frame" where it is not the first'


def with_masks(videos: Sequence[Video], source: str | pathlib.Path | np.ndarray) -> list[Video]:
    """Videos with the objects of PNGs of object ids; 0 is background and 255 void.

    Args:
      videos: in which the objects are followed.
      source: for one video, a PNG of its first frame, or a folder of PNGs named as its frames; for several, a folder
        with such a folder for each; or the ids `[h, w]` of the first frame. An object is taken from the first PNG that
        shows it.

    Raises:
      UserError: nothing is there for a video; when its objects are asked for, a PNG that is none or of another size.
    """
    if isinstance(source, np.ndarray):
        return [_shown(video, (), lambda v=video: _of_ids(v, {v.stems[0]: source}, "first_masks")) for video in videos]
    source = pathlib.Path(source)
    if not source.exists():
        raise UserError(f"{source}: does not exist; expected a PNG of object ids, or a folder of them")
    return [_shown(video, *_masks_of(video, source, alone=len(videos) == 1)) for video in videos]


def with_points(videos: Sequence[Video], source: str | pathlib.Path | Mapping[int, tuple[float, float]]) -> list[Video]:
    """Videos with the objects of a json of clicks, or of BURST's `first_frame_annotations.json`.

    A mapping, object id -> (x, y) in pixels of the first frame, is for one video.

    Raises:
      UserError: the file is not of that form, or has nothing for a video; when its objects are asked for, a click
        outside of the frame.
    """
    if isinstance(source, Mapping):
        rows = [{"object": number, "x": point[0], "y": point[1]} for number, point in source.items()]
        return [_shown(video, (), _points_of(video, rows, "points")) for video in videos]
    source = pathlib.Path(source)
    try:
        content = json.loads(source.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: cannot be read as json ({error}); expected {FORM}") from None
    if isinstance(content, Mapping) and "sequences" in content:
        content = burst.first_points(content, source)
    if isinstance(content, list) and len(videos) == 1:
        content = {videos[0].video_id: content}
    if not isinstance(content, Mapping):
        raise UserError(f"{source}: is no list by video; expected {FORM}")
    return [_shown(video, [source], _points_of(video, content.get(video.video_id), source)) for video in videos]


def _shown(video: Video, files: Sequence[pathlib.Path], objects: Callable[[], list[GivenObject]]) -> Video:
    """The video with its objects, which are part of what makes its results."""

    def fingerprint() -> str:
        whole = video.fingerprint()
        return whole and f"{whole} {fingerprint_of(files)}"

    return video._replace(objects=objects, fingerprint=fingerprint)


def _masks_of(video: Video, source: pathlib.Path, *, alone: bool):
    """The PNGs of a video, and a function that reads its objects."""
    files = {video.stems[0]: source} if source.is_file() and alone and video.stems else {}
    if source.is_dir():
        folder = source / video.video_id
        folder = source if alone and not folder.is_dir() else folder
        there = {path.stem: path for path in visible(folder, ".png")} if folder.is_dir() else {}
        files = {stem: there[stem] for stem in video.stems if stem in there}
    if not files:
        raise UserError(f"{source}: no masks for video {video.video_id}; expected PNGs named as frames that are read")

    return list(files.values()), lambda: _of_ids(video, files, source)


def _of_ids(video: Video, masks: Mapping[str, Any], source: Any) -> list[GivenObject]:
    """Objects of maps of ids `[h, w]`, or the PNGs of such, by frame."""
    objects: dict[int, GivenObject] = {}
    for stem, ids in masks.items():
        name, ids = (ids, read_mask(ids)) if isinstance(ids, pathlib.Path) else (source, ids)
        if ids.shape != tuple(video.size()):
            raise UserError(f"{name}: has size {ids.shape}; expected {tuple(video.size())} as the video, resize it")
        for number in sorted(set(np.unique(ids).tolist()) - {0, VOID} - set(objects)):
            objects[number] = GivenObject(number, stem, mask=ids == number)
    return list(objects.values())


def _points_of(video: Video, rows: Any, source: Any) -> Callable[[], list[GivenObject]]:
    """A function that gives the objects of the clicks of a video; their form is checked now."""
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{source}: no clicks for video {video.video_id}; expected {FORM}")
    clicks: dict[int, tuple[str, tuple[float, float]]] = {}
    for row in rows:
        where = f"{source}: video {video.video_id}: click {row}"
        try:
            number, x, y = int(row["object"]), float(row["x"]), float(row["y"])
            stem = str(row.get("frame", video.stems[0] if video.stems else ""))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{where}: expected {FORM}") from None
        if number < 1 or number in clicks:
            raise UserError(f"{where}: object {number} comes twice, or is below 1; expected one click for each, from 1")
        if stem not in video.stems:
            raise UserError(f"{where}: frame {stem!r} is not among those that are read; expected its name")
        clicks[number] = stem, (x, y)

    def objects() -> list[GivenObject]:
        height, width = video.size()
        for number, (_, (x, y)) in clicks.items():
            if not (0 <= x < width and 0 <= y < height):
                raise UserError(f"{source}: video {video.video_id}: object {number} at ({x:g}, {y:g}) is not in "
                                f"{width}x{height} pixels; expected x and y in pixels")  # fmt: skip
        # a pixel's centre
        return [
            GivenObject(number, stem, point=np.array([(y + 0.5) / height, (x + 0.5) / width]))
            for number, (stem, (x, y)) in clicks.items()
        ]

    return objects
