"""COCO instances with polygons, of single images or with tracks through a video, in the form of YouTube-VIS."""

import pathlib
from collections.abc import Mapping
from typing import Any

from vps_jax.datasets.panoptic_json import by_id, rows_of
from vps_jax.datasets.tree_patterns import numbers
from vps_jax.types import UserError


def as_youtube_vis(content: Mapping, path: pathlib.Path) -> dict:
    """The json of YouTube-VIS' form with the same masks.

    An image's video is the folder in its file name; one without a folder is a video of its own. `track_id`, of an
    annotation or among its `attributes` as CVAT writes it, is one object through a video; an annotation without it is
    an object of its image alone.

    Raises:
      UserError: the json breaks a rule of its form; names the entry.
    """
    images = by_id(rows_of(content, "images", ("id", "file_name", "height", "width"), path), "images", path)
    videos: dict[str, list[dict]] = {}
    for row in sorted(images.values(), key=lambda row: numbers(row["file_name"])):
        videos.setdefault(video_of(row["file_name"]), []).append(row)
    place = {row["id"]: (name, i) for name, rows in videos.items() for i, row in enumerate(rows)}
    tracks: dict[tuple, dict] = {}
    for i, row in enumerate(rows_of(content, "annotations", ("image_id", "category_id", "segmentation"), path)):
        if row["image_id"] not in place:
            raise UserError(f"{path}: annotations[{i}] has image_id {row['image_id']!r}, which no image has")
        name, frame = place[row["image_id"]]
        own = row.get("track_id", (row.get("attributes") or {}).get("track_id"))
        key = (name, row["category_id"], ("alone", i) if own is None else own)
        track = tracks.setdefault(key, new_track(name, row, len(videos[name])))
        track["segmentations"][frame] = joined(track["segmentations"][frame], row["segmentation"], f"annotations[{i}]")
    heads = [
        {"id": name, "file_names": [row["file_name"] for row in rows]} | {k: rows[0][k] for k in ("height", "width")}
        for name, rows in videos.items()
    ]
    return {"videos": heads, "annotations": list(tracks.values()), "categories": content.get("categories")}


def video_of(file_name: str) -> str:
    """The folder of an image, or the image itself."""
    name = pathlib.PurePosixPath(file_name)
    return str(name.parent) if name.parent.name else file_name


def new_track(video: str, row: Mapping, frames: int) -> dict:
    """A track without masks."""
    return {"video_id": video, "category_id": row["category_id"], "segmentations": [None] * frames}


def joined(before: Any, code: Any, where: str) -> Any:
    """One mask of two annotations of a track in one image, which polygons allow.

    Raises:
      UserError: one of the two is no list of polygons.
    """
    if before is None or code == before:
        return code
    if not (isinstance(before, list) and isinstance(code, list)):
        raise UserError(f"{where}: its track has another mask in the same image; expected one, or polygons")
    return before + code
