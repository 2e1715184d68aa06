"""What tracks of a user's own data are scored against: a json of YouTube-VIS' form, whatever form they came in."""

import pathlib
from collections.abc import Sequence

from vps_jax import files
from vps_jax.datasets import instance_json, rle
from vps_jax.datasets.labels import class_of
from vps_jax.datasets.own_folder import TRACKS_TRUTH
from vps_jax.datasets.spec import DatasetSpec, VideoFiles


def write(spec: DatasetSpec, source: pathlib.Path, out: pathlib.Path) -> None:
    """Write `<split>.json` for every split with tracks: run-length codes of the images that are there.

    Args:
      spec: of a form with tracks, see `own.TRACKS`.
      source: folder of the data.
      out: folder to write.

    Raises:
      UserError: a mask cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    categories = zip(spec.classes.official_ids, spec.classes.names, strict=True)
    categories = [{"id": number, "name": name} for number, name in categories]
    for split in spec.splits(source):
        videos = [video for video in spec.videos(source, split) if video.notes is not None]
        if videos:
            content = {
                "videos": [head_of(video) for video in videos],
                "annotations": annotations_of(videos, spec.classes.official_ids),
                "categories": categories,
            }
            files.write_json(out / TRACKS_TRUTH.format(split=split), content)


def head_of(video: VideoFiles) -> dict:
    """Row of a video."""
    height, width = video.notes.size
    names = [f"{video.name}/{image.name}" for image in video.images]
    return {"id": video.number, "file_names": names, "length": len(names), "height": height, "width": width}


def annotations_of(videos: Sequence[VideoFiles], official: Sequence[int]) -> list[dict]:
    """Rows of all tracks that are seen."""
    rows = []
    for video in videos:
        tracks: instance_json.Tracks = video.notes
        for value, codes in zip(tracks.values, tracks.codes, strict=True):
            runs = [runs_of(code, video, i) for i, code in enumerate(codes)]
            if any(one is not None for one in runs):
                masks = [one and {"size": list(tracks.size), "counts": one} for one in runs]
                row = {"id": len(rows) + 1, "video_id": video.number, "category_id": official[class_of(value)]}
                rows.append(row | {"iscrowd": 0, "segmentations": masks})
    return rows


def runs_of(code, video: VideoFiles, i: int) -> str | None:
    """The run-length text of a mask in frame i, of a run-length code or of polygons.

    Raises:
      UserError: it cannot be read.
    """
    if code is None:
        return None
    where = f"{video.notes.source}: {video.notes.video}, {video.images[i].name}"
    return rle.to_text(rle.of_mask(instance_json.decode(code, video.notes.size, where)))
