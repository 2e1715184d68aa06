"""COCO instances with polygons, of single images or with tracks through a video, in the form of YouTube-VIS."""

import pathlib
from collections.abc import Mapping

from vps_jax.datasets.json_fields import ANY, ID, OBJECT, by_id, checked, refuse_double_ids, rows_of
from vps_jax.datasets.panoptic_json import IMAGE, SIZE
from vps_jax.datasets.tree_patterns import numbers
from vps_jax.types import UserError

ANNOTATION = {"image_id": ID, "category_id": ID, "segmentation": ANY}


def as_youtube_vis(content: Mapping, path: pathlib.Path) -> dict:
    """The json of YouTube-VIS' form with the same masks.

    An image's video is the folder in its file name; one without a folder is a video of its own. `track_id`, of an
    annotation or among its `attributes` as CVAT writes it, is one object through a video; an annotation without it is
    an object of its image alone.

    Raises:
      UserError: the json breaks a rule of its form; names the entry.
    """
    images = by_id(rows_of(content, "images", IMAGE | SIZE, path), "images", path)
    videos: dict[str, list[dict]] = {}
    for row in sorted(images.values(), key=lambda row: numbers(row["file_name"])):
        videos.setdefault(video_of(row["file_name"]), []).append(row)
    place = {row["id"]: (name, i) for name, rows in videos.items() for i, row in enumerate(rows)}
    tracks: dict[tuple, dict] = {}
    rows = rows_of(content, "annotations", ANNOTATION, path, may={"id": ID, "track_id": ID, "attributes": OBJECT})
    refuse_double_ids(rows, "annotations", path)
    for i, row in enumerate(rows):
        if row["image_id"] not in place:
            raise UserError(f"{path}: annotations[{i}] has image_id {row['image_id']!r}, which no image has")
        name, frame = place[row["image_id"]]
        own = track_id_of(row, f"{path}: annotations[{i}]")
        key = (name, row["category_id"], ("alone", i) if own is None else own)
        track = tracks.setdefault(key, new_track(name, row, len(videos[name])))
        if track["segmentations"][frame] is not None:
            raise UserError(
                f"{path}: annotations[{i}] has track_id {own!r}, which is on {images[row['image_id']]['file_name']} "
                "already; expected a track once on an image: join its masks"
            )
        track["segmentations"][frame] = [] if row["segmentation"] is None else row["segmentation"]
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


def track_id_of(row: Mapping, where: str) -> int | str | None:
    """The object of an annotation through its video; None: it has none.

    Raises:
      UserError: it is neither a number nor a text.
    """
    own = row.get("track_id", (row.get("attributes") or {}).get("track_id"))
    return own if own is None else checked(own, ID, f"{where}: track_id")
