"""VIPSeg: 124 classes; as downloaded or as `vps-jax data convert` leaves it (spec: metrics 1)."""

import functools
import json
import pathlib

import numpy as np

from vps_jax.datasets import spec
from vps_jax.datasets.classes import ClassTable, class_table
from vps_jax.datasets.label_files import read_mask
from vps_jax.datasets.labels import VALUES, LabelCode
from vps_jax.files import read_lines
from vps_jax.types import UserError

CLASSES = class_table("vipseg")
PER_CLASS = 100
FIRST_THING_VALUE = 125  # the official converter's border between plain class numbers and things


def value_of(category: int, instance: int) -> int:
    """Value of an instance of a thing class, which count from 0."""
    return (category + 1) * PER_CLASS + instance


def class_of(values: np.ndarray | int) -> np.ndarray:
    """Class of label values as the official converter reads them, -1 for void; it takes the wrong value 200 for 1."""
    values = np.asarray(values).astype(np.int32)
    return np.where(values < FIRST_THING_VALUE, values, values // PER_CLASS) - 1


def label_code(classes: ClassTable) -> LabelCode:
    """0 void, class + 1 for stuff, (class + 1) * 100 + instance for things; the rest, 200 among it, is void.

    The number of a thing class alone is against the rules; it is reported, and trained as a pixel of the class.
    """
    count = len(classes.names)
    meaning, is_instance, known = np.full(VALUES, -1, np.int32), np.zeros(VALUES, bool), np.zeros(VALUES, bool)
    meaning[1 : count + 1] = np.arange(count)
    known[[0, *(c + 1 for c in classes.stuff_ids)]] = True
    for c in classes.thing_ids:
        own = np.s_[max(value_of(c, 0), count + 1) : value_of(c, PER_CLASS)]
        meaning[own], is_instance[own], known[own] = c, True, True
    return LabelCode("vipseg", meaning, is_instance, known)


def read_label(video: spec.VideoFiles, index: int) -> spec.LabelMap:
    """The raw values of the mask, `[h, w]`."""
    return spec.LabelMap(read_mask(video.masks[index]))


def raw_videos(root: pathlib.Path, split: str, images: str = "imgs") -> list[spec.VideoFiles]:
    """Videos of the split's list; test videos have no masks, and those without a folder are left out."""
    names = read_lines(root / f"{split}.txt")
    if split == "test":
        return [spec.paired(n, root / images / n, None) for n in names if (root / images / n).is_dir()]
    return [spec.paired(n, root / images / n, root / "panomasks" / n) for n in names]


def strays(root: pathlib.Path, split: str, images: str) -> list[str]:
    """Masks without an image, videos in no list, lists that are missing."""
    own = root / "panomasks"
    lines = [
        line for n in read_lines(root / f"{split}.txt") for line in spec.unpaired_masks(root / images / n, own / n)
    ]
    return lines + (spec.unlisted(root / images, root) if split == spec.listed_splits(root)[0] else [])


def raw_predicted(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """All frames of the listed videos."""
    return [spec.named_frames(n, root / "imgs" / n) for n in read_lines(root / f"{split}.txt")]


def converted_splits(root: pathlib.Path) -> tuple[str, ...]:
    """Splits with a list or a truth json."""
    return tuple(s for s in spec.SPLITS if (root / f"{s}.txt").is_file() or truth_json(root, s).is_file())


def converted_videos(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """As `raw_videos`, from `images/`."""
    return raw_videos(root, split, "images")


def converted_predicted(root: pathlib.Path, split: str) -> list[spec.VideoFiles]:
    """Videos and frames in the order of the truth json, else of the list."""
    source = truth_json(root, split)
    if not source.is_file():
        return [spec.named_frames(n, root / "images" / n) for n in read_lines(root / f"{split}.txt")]
    try:
        rows = json.loads(source.read_bytes())["videos"]
        listed = {row["video_id"]: [pathlib.Path(i["file_name"]).stem for i in row["images"]] for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: cannot be read ({error!r}); expected a list of videos: convert again") from None
    return [spec.named_frames(name, root / "images" / name, stems) for name, stems in listed.items()]


def truth_json(root: pathlib.Path, split: str) -> pathlib.Path:
    """Where a split's truth is."""
    return root / CONVERTED.truth.format(split=split)


LISTS = "train.txt|val.txt|test.txt"
CONVERTED = spec.Layout(
    "converted", ("images", f"{LISTS}|panoptic_gt_VIPSeg_*.json"), converted_splits, converted_videos,
    truth="panoptic_gt_VIPSeg_{split}.json", predicted=converted_predicted,
    strays=functools.partial(strays, images="images"),
)  # fmt: skip
RAW = spec.Layout(
    "raw", ("imgs", LISTS), spec.listed_splits, raw_videos,
    predicted=raw_predicted, strays=functools.partial(strays, images="imgs"),
)  # fmt: skip


SPEC = spec.DatasetSpec(
    name="vipseg",
    title="VIPSeg",
    classes=CLASSES,
    labels=label_code(CLASSES),
    layouts=(RAW, CONVERTED),
    read_label=read_label,
    truth="vps_jax.evaluation.vipseg_folders",
    writer="vps_jax.media.result_folders:VipsegWriter",
    metrics=("vpq", "stq", "pq", "miou", "vc", "anatomy"),
    inference={"clip_frames": 12, "overlap_frames": 6, "short_side_px": 576, "max_side_px": 1333},
    fps=6.0,
)
