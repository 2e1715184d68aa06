"""Class lists of the training data sets as far as configs need them: sizes, which classes are things, who maps to whom.

Class numbers are 0-based positions in each data set's own list (docs/reference/tarvis.md [spec 4.2, 7.8]).
"""

from vps_jax.datasets import class_table

# query group -> the data set, whose class table it has and under whose name it is prepared
TABLES = {
    "ADE20K": "ade20k_panoptic",
    "CITYSCAPES": "cityscapes_panoptic",
    "COCO": "coco_panoptic",
    "MAPILLARY": "mapillary_vistas",
    "CITYSCAPES_VPS": "cityscapes_vps",
    "KITTI_STEP": "kitti_step",
    "OVIS": "ovis",
    "VIPSEG": "vipseg",
    "YOUTUBE_VIS": "youtube_vis_2021",
}
CLASSES = {group: len(class_table(name).names) for group, name in TABLES.items()}
THINGS = {group: class_table(name).thing_ids for group, name in TABLES.items()}
VIPSEG_THINGS = THINGS["VIPSEG"]

# the Cityscapes class of each of the 19 classes that KITTI-STEP and Cityscapes-VPS share [spec 7.9]
CITYSCAPES_19 = tuple(class_table("cityscapes_panoptic").names.index(n) for n in class_table("kitti_step").names)


def groups(*names: str) -> tuple[tuple[str, int], ...]:
    """Semantic groups (name, classes), sorted by name as published."""
    return tuple((name, CLASSES[name]) for name in sorted(names))


def things_only(name: str) -> tuple[int, ...]:
    """Class map that keeps the numbers of things and drops stuff."""
    return tuple(c if c in THINGS[name] else -1 for c in range(CLASSES[name]))


def things_renumbered(name: str) -> tuple[int, ...]:
    """Class map onto a list of the things alone, in ascending order."""
    return tuple(THINGS[name].index(c) if c in THINGS[name] else -1 for c in range(CLASSES[name]))
