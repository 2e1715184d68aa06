"""The data sets: one file each, and a user's own rows beside them.

`DATASETS[name] = spec` makes a further data set known to every command; the name is that of its builder in
`tfds_builders`, of its prepared folder and of its layout.
"""

import pathlib

from vps_jax.datasets import (
    ade20k_panoptic,
    burst,
    cityscapes_panoptic,
    cityscapes_vps,
    coco_panoptic,
    davis,
    kitti_step,
    mapillary_vistas,
    ovis,
    own_folder,
    vipseg,
    vspw,
    youtube_vis,
)  # fmt: skip
from vps_jax.datasets.classes import ClassTable, class_table, from_rows
from vps_jax.datasets.labels import PANOPTIC, LabelCode, panoptic_code
from vps_jax.datasets.spec import DatasetSpec, Layout, VideoFiles
from vps_jax.types import UserError

__all__ = [
    "DATASETS", "ClassTable", "DatasetSpec", "LabelCode", "Layout", "VideoFiles", "class_table", "dataset", "from_rows",
    "label_code", "recognize",
]  # fmt: skip

DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        vipseg.SPEC, vspw.SPEC, coco_panoptic.SPEC, ade20k_panoptic.SPEC, cityscapes_panoptic.SPEC,
        mapillary_vistas.SPEC, youtube_vis.SPEC, youtube_vis.SPEC_2019, ovis.SPEC, kitti_step.SPEC,
        cityscapes_vps.SPEC, burst.SPEC, davis.SPEC,
    )
}  # fmt: skip


def dataset(name: str) -> DatasetSpec:
    """The data set of a name, or that of a user's own data by the folder that `vps-jax data prepare own` wrote.

    Raises:
      UserError: there is none.
    """
    if name not in DATASETS and name and (own := own_folder.opened(pathlib.Path(name))) is not None:
        return own
    if name not in DATASETS:
        raise UserError(f"data set {name!r} is unknown; expected one of {', '.join(DATASETS)}")
    return DATASETS[name]


def recognize(root: pathlib.Path) -> DatasetSpec | None:
    """The data set of which a folder is a root, or None."""
    known = next((spec for spec in DATASETS.values() if spec.recognizes(root)), None)
    return known or own_folder.opened(root)


def label_code(name: str, classes: ClassTable | None = None) -> LabelCode:
    """The label code that a prepared folder names, for its classes.

    Raises:
      UserError: no data set has it.
    """
    if name == PANOPTIC.name:
        return panoptic_code(classes)
    for spec in DATASETS.values():
        if spec.labels.name == name:
            return spec.labels
    raise UserError(f"label code {name!r} is unknown; prepare the data set again with this version")
