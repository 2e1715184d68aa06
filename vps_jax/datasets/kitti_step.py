"""KITTI-STEP: 19 Cityscapes classes, of which persons and cars have numbers (spec: data_sets 7)."""

import functools
import pathlib

import numpy as np

from vps_jax.datasets import numbering, spec
from vps_jax.datasets.classes import class_table
from vps_jax.datasets.label_files import BadFrame, read_rgb
from vps_jax.datasets.labels import panoptic_code

CLASSES = class_table("kitti_step")
VOID = 255
# images of a split, and the maps: as deeplab2 has them, and the trees of KITTI as they unpack
IMAGES = {"images/{split}": "moved", "training/image_02": "KITTI's tree"}
MAPS = ("panoptic_maps", "kitti-step/panoptic_maps")
TEST = {"images/{split}": "images/test", "training/image_02": "testing/image_02"}


def splits(root: pathlib.Path, images: str, maps: str) -> tuple[str, ...]:
    """Splits with maps, and test where its images are."""
    labelled = tuple(split for split in ("train", "val") if (root / maps / split).is_dir())
    return labelled + (("test",) if (root / TEST[images]).is_dir() else ())


def videos(root: pathlib.Path, split: str, images: str, maps: str) -> list[spec.VideoFiles]:
    """Sequences of a split: those that have a folder of maps there; the sequence number decides."""
    if split == "test":
        return [spec.paired(f.name, f, None) for f in spec.visible(root / TEST[images]) if f.is_dir()]
    folder = root / images.format(split=split)
    names = [f.name for f in spec.visible(root / maps / split) if f.is_dir()]
    return [spec.paired(name, folder / name, root / maps / split / name) for name in names]


def wide_values(path: pathlib.Path) -> np.ndarray:
    """class * 65536 + official number int64 `[h, w]`, -1 for void."""
    rgb = read_rgb(path).astype(np.int64)
    classes, numbers = rgb[..., 0], rgb[..., 1] * 256 + rgb[..., 2]
    wrong = (classes >= len(CLASSES.names)) & (classes != VOID)
    if wrong.any():
        raise BadFrame(f"{path}: class {classes[wrong][0]}; expected a train id of 0..18, or 255 for void")
    numbers = np.where(np.isin(classes, CLASSES.thing_ids), numbers, 0)
    return np.where(classes == VOID, -1, classes * numbering.WIDE + numbers)


def scan(video: spec.VideoFiles) -> spec.VideoFiles:
    """Numbers of all objects of the sequence; a map that cannot be read is named when its frame is."""
    seen: set[int] = set()
    for path in video.masks:
        try:
            seen |= set(np.unique(wide_values(path)).tolist()) if path is not None else set()
        except BadFrame:
            continue
    return video._replace(notes=numbering.renumber(seen, CLASSES.thing_ids))


def read_label(video: spec.VideoFiles, index: int) -> spec.LabelMap:
    """Labels of one frame; number 0 of a thing is a pixel of its class alone."""
    wide = wide_values(video.masks[index])
    things = np.array(CLASSES.thing_ids) * numbering.WIDE
    crowd = int(np.isin(things, wide).sum())
    return spec.LabelMap(
        numbering.look_up(wide, video.notes),
        findings={"thing classes without number in a frame": crowd} if crowd else {},
    )


def layout(images: str, name: str, maps: str) -> spec.Layout:
    """One way of putting images and maps."""
    places = dict(images=images, maps=maps)
    folder = images.format(split="train") + "|" + images.format(split="val") if "{" in images else images
    return spec.Layout(
        name, (maps, folder), functools.partial(splits, **places), functools.partial(videos, **places),
        truth=maps + "/{split}",
    )  # fmt: skip


SPEC = spec.DatasetSpec(
    name="kitti_step",
    title="KITTI-STEP",
    classes=CLASSES,
    labels=panoptic_code(CLASSES),
    layouts=tuple(layout(images, name, maps) for images, name in IMAGES.items() for maps in MAPS),
    read_label=read_label,
    scan=scan,
    truth="vps_jax.evaluation.step_folders",
    writer="vps_jax.media.frame_maps:kitti_step_writer",
    metrics=("stq", "vpq"),
    inference={"clip_frames": 6, "overlap_frames": 3, "short_side_px": None},  # native
    fps=10.0,
)
