"""Class tables of the data sets: names, colours, which classes are things. Imports nothing of ours.

VIPSeg and VSPW share one list of 124 classes (58 things, 66 stuff) in the official order 0..123
(spec: metrics 1.3): VIPSeg's panoVIPSeg_categories.json, kept verbatim in `class_tables/vipseg.json`.
"""

import functools
import importlib.resources
import json
from typing import NamedTuple

SAME = {"vspw": "vipseg"}


class ClassTable(NamedTuple):
    """Classes of one data set in official order; index = 0-based class id.

    Attributes:
      names: one per class.
      colors: `(r, g, b)` 0..255 per class; not unique (VIPSeg's Playground_slide and car share one).
      is_thing: one bool per class.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    is_thing: tuple[bool, ...]

    @property
    def thing_ids(self) -> tuple[int, ...]:
        return tuple(i for i, thing in enumerate(self.is_thing) if thing)

    @property
    def stuff_ids(self) -> tuple[int, ...]:
        return tuple(i for i, thing in enumerate(self.is_thing) if not thing)


@functools.cache
def categories(name: str) -> tuple[dict, ...]:
    """The official category list of a data set, `{id, name, isthing, color}` each, as its json has it.

    Args:
      name: `vipseg`; `vspw` is the same list.

    Raises:
      FileNotFoundError: no table of that name is shipped.
    """
    file = importlib.resources.files("vps_jax") / "class_tables" / f"{SAME.get(name, name)}.json"
    return tuple(json.loads(file.read_text()))


@functools.cache
def class_table(name: str) -> ClassTable:
    """Table of a data set by name, see `categories`."""
    rows = categories(name)
    return ClassTable(
        names=tuple(row["name"] for row in rows),
        colors=tuple(tuple(row["color"]) for row in rows),
        is_thing=tuple(bool(row["isthing"]) for row in rows),
    )
