"""Who reads the truth of a root: the data set that has its file there, by `vps_jax.datasets`."""

import importlib
import pathlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

from vps_jax.datasets import DATASETS, DatasetSpec
from vps_jax.evaluation import cityscapes_vps_files, step_folders, ytvis_folders
from vps_jax.evaluation.plan import Plan
from vps_jax.types import UserError


class Format(NamedTuple):
    """A form of truth that several data sets share, or that no row of `DATASETS` tells.

    Attributes:
      found: `(root, split)` whether it lies there.
      reader: module with `plan`.
      expected: what would lie there, for the message.
    """

    found: Callable[[pathlib.Path, str], bool]
    reader: ModuleType
    expected: str


FORMATS = (
    Format(
        lambda root, split: cityscapes_vps_files.truth_json(root, split).is_file(),
        cityscapes_vps_files, "panoptic_gt_{split}_city_vps.json (Cityscapes-VPS)",
    ),
    Format(
        lambda root, split: step_folders.maps_of(root, split).is_dir(),
        step_folders, "panoptic_maps/{split}/ (KITTI-STEP)",
    ),
    Format(
        lambda root, split: ytvis_folders.truth_json(root, split) is not None,
        ytvis_folders, "{split}/instances.json (YouTube-VIS)",
    ),
)  # fmt: skip


def read(truth: pathlib.Path, predictions: pathlib.Path, split: str, videos: Sequence[str] | None = None) -> Plan:
    """What there is to score.

    Raises:
      UserError: no truth of the split, or its reader's own complaint.
    """
    if (spec := recognize(truth, split)) is not None:
        reader = importlib.import_module(spec.truth)
        return reader.plan(truth, predictions, split, videos=videos, classes=spec.classes)
    for form in FORMATS:
        if form.found(truth, split):
            return form.reader.plan(truth, predictions, split, videos=videos)
    files = [
        f"{layout.truth} ({spec.title})" for spec in DATASETS.values() for layout in spec.layouts if layout.truth
    ]  # fmt: skip
    expected = ", ".join(one.format(split=split) for one in (*files, *(form.expected for form in FORMATS)))
    raise UserError(f"{truth}: no truth of split {split!r} there; expected one of {expected}")


def recognize(root: pathlib.Path, split: str) -> DatasetSpec | None:
    """The data set whose truth of a split lies in a root; images need not be there."""
    scored = [spec for spec in DATASETS.values() if spec.truth]
    whole = next((spec for spec in scored if spec.truth_file(root, split) is not None), None)
    if whole is not None:
        return whole
    for spec in scored:
        for layout in spec.layouts:
            # the name of a json tells the data set, that of a list does not
            if layout.truth.endswith(".json") and (root / layout.truth.format(split=split)).is_file():
                return spec
    return None
