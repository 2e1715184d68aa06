"""VSPW, native or 480p: VIPSeg's classes at 15 frames a second, without instances (spec: metrics 2)."""

import pathlib

import numpy as np

from vps_jax.datasets import spec
from vps_jax.datasets.classes import ClassTable, class_table
from vps_jax.datasets.label_files import read_mask
from vps_jax.datasets.labels import VALUES, LabelCode
from vps_jax.files import read_lines

CLASSES = class_table("vspw")
VOID = (0, 255)


def label_code(classes: ClassTable) -> LabelCode:
    """Class + 1, with 0 and 255 for void; the stray values of real files (252, 253) are void too."""
    count = len(classes.names)
    meaning, known = np.full(VALUES, -1, np.int32), np.zeros(VALUES, bool)
    meaning[1 : count + 1] = np.arange(count)
    known[[*VOID, *range(count + 1)]] = True
    return LabelCode("vspw", meaning, np.zeros(VALUES, bool), known, VOID)


def read_label(video: spec.VideoFiles, index: int) -> spec.LabelMap:
    """The mask as it is, `[h, w]`."""
    return spec.LabelMap(read_mask(video.masks[index]))


def videos(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """Videos of the split's list; test videos have no masks, and those without a folder are left out."""
    folders = [root / "data" / name for name in read_lines(root / f"{split}.txt")]
    if split == "test":
        return [spec.paired(f.name, f / "origin", None) for f in folders if f.is_dir()]
    return [spec.paired(f.name, f / "origin", f / "mask") for f in folders]


def strays(root: pathlib.Path, split: str) -> list[str]:
    """Masks without an image, videos in no list, lists that are missing."""
    folders = [root / "data" / name for name in read_lines(root / f"{split}.txt")]
    lines = [line for folder in folders for line in spec.unpaired_masks(folder / "origin", folder / "mask")]
    return lines + (spec.unlisted(root / "data", root) if split == spec.listed_splits(root)[0] else [])


def predicted(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """All frames of the listed videos."""
    names = read_lines(root / f"{split}.txt")
    return [spec.named_frames(name, root / "data" / name / "origin") for name in names]


LAYOUT = spec.Layout(
    "as downloaded", ("data", "train.txt|val.txt|test.txt"), spec.listed_splits, videos,
    truth="{split}.txt", predicted=predicted, strays=strays,
)  # fmt: skip

SPEC = spec.DatasetSpec(
    name="vspw",
    title="VSPW",
    classes=CLASSES,
    labels=label_code(CLASSES),
    layouts=(LAYOUT,),
    read_label=read_label,
    truth="vps_jax.evaluation.vspw_folders",
    writer="vps_jax.media.frame_maps:vspw_writer",
    metrics=("miou", "vc"),
    inference={"short_side_px": 640, "max_side_px": 2048},
    fps=15.0,
)
