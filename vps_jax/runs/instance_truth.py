"""The objects of a panoptic truth in the form of YouTube-VIS, with which results of the instance task are scored."""

import pathlib

from vps_jax.datasets import dataset, rle
from vps_jax.datasets.spec import DatasetSpec, VideoFiles
from vps_jax.evaluation import outputs
from vps_jax.files import track, write_json
from vps_jax.media.mask_lists import identifier, segments_of, track_rows
from vps_jax.runs.own_preview import frame_of
from vps_jax.types import UserError


def write(name: str, root: pathlib.Path, split: str, out: pathlib.Path, *, progress: bool = True) -> dict[str, int]:
    """Write the objects of a split as a json with `videos`, `annotations` and `categories` (spec: data_sets 5).

    Categories are the things of the data set with their own ids, which results of `vps-jax predict --task instance
    --format ytvis` have too. Videos have the names or numbers of those results.

    Args:
      name: of the data set.
      root: of it.
      split: with labels of every frame.
      out: new json file.
      progress: show a progress bar.

    Returns:
      Counts: videos and objects.

    Raises:
      UserError: no such data, a frame without labels, or `out` cannot be written.
    """
    spec = dataset(name)
    outputs.check((out,), ())
    have = spec.splits(root)
    if split not in have:
        raise UserError(f"{root}: no split {split!r}; expected one of {', '.join(have)}: choose another split")
    videos, annotations = [], []
    for files in track(spec.videos(root, split), "instances", show=progress):
        video, rows = objects_of(files, spec)
        videos.append(video)
        annotations += [{"id": len(annotations) + i, **row} for i, row in enumerate(rows, 1)]
    if not annotations:
        raise UserError(f"{root}: split {split} has no objects; choose another, or another data set")
    rows = [{"id": row["id"], "name": row["name"]} for row in spec.classes.rows() if row["isthing"]]
    write_json(out, {"videos": videos, "annotations": annotations, "categories": rows})
    return {"videos": len(videos), "objects": len(annotations)}


def objects_of(files: VideoFiles, spec: DatasetSpec) -> tuple[dict, list[dict]]:
    """A video's row and those of its objects.

    Raises:
      UserError: a frame has no labels, or damaged ones.
    """
    files, frames, numbers = spec.scan(files) if spec.scan else files, [], {}
    for i, image in enumerate(files.images):
        if not files.labelled or (files.masks is not None and files.masks[i] is None):
            raise UserError(f"{image}: has no labels; instances are scored where every frame has some")
        values = spec.read_label(files, i).values
        frame = frame_of(image.stem, values, spec.labels, numbers)
        frames.append((image.stem, values.shape, segments_of(frame)))
    rows = [
        {
            "video_id": row["video_id"], "category_id": row["category_id"], "iscrowd": 0,
            "segmentations": row["segmentations"],
            "areas": [code and rle.area(rle.parse_counts(code["counts"])) for code in row["segmentations"]],
        }
        for row in track_rows(files.name, files.number, frames, spec.classes)
    ]  # fmt: skip
    height, width = frames[0][1]
    names = [f"{files.name}/{image.name}" for image in files.images]
    video = {"id": identifier(files.name, files.number), "width": width, "height": height, "length": len(names)}
    return {**video, "file_names": names}, rows
