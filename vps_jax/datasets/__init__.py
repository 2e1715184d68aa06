"""The data sets: one file each, and a user's own rows beside them.

`DATASETS[name] = spec` makes a further data set known to every command; the name is that of its builder in
`tfds_builders`, of its prepared folder and of its layout.
"""

import pathlib

from vps_jax.datasets import coco_panoptic, davis, vipseg, vspw
from vps_jax.datasets.classes import ClassTable, class_table, from_rows
from vps_jax.datasets.labels import PANOPTIC, LabelCode
from vps_jax.datasets.spec import DatasetSpec, Layout, VideoFiles
from vps_jax.types import UserError

__all__ = [
    "DATASETS", "ClassTable", "DatasetSpec", "LabelCode", "Layout", "VideoFiles", "class_table", "dataset", "from_rows",
    "label_code", "recognize",
]  # fmt: skip

DATASETS: dict[str, DatasetSpec] = {module.SPEC.name: module.SPEC for module in (vipseg, vspw, coco_panoptic, davis)}


def dataset(name: str) -> DatasetSpec:
    """The data set of a name.

    Raises:
      UserError: there is none.
    """
    if name not in DATASETS:
        raise UserError(f"data set {name!r} is unknown; expected one of {', '.join(DATASETS)}")
    return DATASETS[name]


def recognize(root: pathlib.Path) -> DatasetSpec | None:
    """The data set of which a folder is a root, or None."""
    return next((spec for spec in DATASETS.values() if spec.recognizes(root)), None)


def label_code(name: str) -> LabelCode:
    """The label code that a prepared folder names.

    Raises:
      UserError: no data set has it.
    """
    for code in (PANOPTIC, *(spec.labels for spec in DATASETS.values())):
        if code.name == name:
            return code
    raise UserError(f"label code {name!r} is unknown; prepare the data set again with this version")
