"""Class lists of the training data sets as far as configs need them: sizes, which classes are things, who maps to whom.

Class numbers are 0-based positions in each data set's own list (docs/reference/tarvis.md [spec 4.2, 7.8]).
"""

CLASSES = {
    "ADE20K": 150, "CITYSCAPES": 34, "COCO": 133, "MAPILLARY": 65, "CITYSCAPES_VPS": 19, "KITTI_STEP": 19, "OVIS": 25,
    "VIPSEG": 124, "YOUTUBE_VIS": 40,
}  # fmt: skip

VIPSEG_THINGS = (
    2, 4, 8, 10, 41, 43, 44, 46, 47, 48, 49, 50, 51, 52, 54, 55, 56, 60, 61, 62, 63, 64, 65, 72, 74, 76, 77, 78, 79, 82,
    83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 95, 96, 97, 99, 100, 101, 102, 106, 107, 108, 109, 114, 115, 116, 117, 118,
    122, 123,
)  # fmt: skip
ADE20K_STUFF = (
    0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59, 60, 61, 63, 68, 77, 79,
    84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122, 128, 131, 140, 141, 145,
)  # fmt: skip
THINGS = {
    "ADE20K": tuple(c for c in range(150) if c not in ADE20K_STUFF),
    "CITYSCAPES": tuple(range(24, 34)),
    "COCO": tuple(range(80)),
    "MAPILLARY": (0, 1, 8, *range(19, 24), *range(32, 43), *range(44, 58), *range(59, 63)),
    "VIPSEG": VIPSEG_THINGS,
}

# the Cityscapes class of each of the 19 classes that KITTI-STEP and Cityscapes-VPS share [spec 7.9]
CITYSCAPES_19 = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def groups(*names: str) -> tuple[tuple[str, int], ...]:
    """Semantic groups (name, classes), sorted by name as published."""
    return tuple((name, CLASSES[name]) for name in sorted(names))


def things_only(name: str) -> tuple[int, ...]:
    """Class map that keeps the numbers of things and drops stuff."""
    return tuple(c if c in THINGS[name] else -1 for c in range(CLASSES[name]))


def things_renumbered(name: str) -> tuple[int, ...]:
    """Class map onto a list of the things alone, in ascending order."""
    return tuple(THINGS[name].index(c) if c in THINGS[name] else -1 for c in range(CLASSES[name]))
