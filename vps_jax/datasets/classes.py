"""Classes of a data set: names, colours, which of them are things, and their numbers in the official files."""

import functools
import importlib.resources
import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vps_jax.types import UserError

SAME = {"vspw": "vipseg", "youtube_vis_2021": "youtube_vis"}


class ClassTable(NamedTuple):
    """Classes of one data set; a class is its position, from 0.

    Attributes:
      names: one per class.
      colors: `(r, g, b)` 0..255 per class; not unique (VIPSeg's Playground_slide and car share one).
      is_thing: one bool per class.
      ids: number of each class in the official files; empty where it is the position.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    is_thing: tuple[bool, ...]
    ids: tuple[int, ...] = ()

    @property
    def thing_ids(self) -> tuple[int, ...]:
        """Classes that are things, ascending."""
        return tuple(i for i, thing in enumerate(self.is_thing) if thing)

    @property
    def stuff_ids(self) -> tuple[int, ...]:
        """Classes that are stuff, ascending."""
        return tuple(i for i, thing in enumerate(self.is_thing) if not thing)

    @property
    def official_ids(self) -> tuple[int, ...]:
        """Number of each class in the official files."""
        return self.ids or tuple(range(len(self.names)))

    def rows(self) -> list[dict]:
        """One `{id, name, isthing, color}` per class in order: the form in json files, records and checkpoints."""
        columns = zip(self.official_ids, self.names, self.is_thing, self.colors, strict=True)
        return [{"id": i, "name": n, "isthing": int(thing), "color": list(c)} for i, n, thing, c in columns]


def from_rows(rows: Iterable[Mapping]) -> ClassTable:
    """The table of `{id, name, isthing, color}` rows, whose order is that of the classes.

    Raises:
      UserError: a row lacks a key.
    """
    rows = list(rows)
    try:
        ids = tuple(int(row["id"]) for row in rows)
        return ClassTable(
            names=tuple(str(row["name"]) for row in rows),
            colors=tuple(tuple(int(level) for level in row["color"]) for row in rows),
            is_thing=tuple(bool(row["isthing"]) for row in rows),
            ids=() if ids == tuple(range(len(ids))) else ids,
        )
    except KeyError as error:
        raise UserError(f"a class list lacks the key {error}; expected id, name, isthing and color") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"a class list has a row of another form ({error}); expected id, name, isthing, color"
        ) from None


@functools.cache
def class_table(name: str) -> ClassTable:
    """Table of a data set that the package knows.

    Raises:
      UserError: no table of that name is shipped.
    """
    file = importlib.resources.files("vps_jax.datasets") / "tables" / f"{SAME.get(name, name)}.json"
    if not file.is_file():
        raise UserError(f"there is no class table {name!r}; expected the name of a data set")
    return from_rows(json.loads(file.read_text()))
