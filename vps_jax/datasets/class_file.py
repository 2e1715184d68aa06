"""The class file of a user's own data: which label values there are, what they are called and how they are drawn.

    name: camvid
    void: [11]
    classes:
      - {value: 0, name: sky, color: [128, 128, 128]}
      - {value: 8, name: car, thing: true}
      - {value: 9, name: pedestrian, like: person}

It is YAML or json. A list of COCO panoptic `categories`, alone or in the json that holds them, is read as it is. The
order of the classes is that of the file; a colour is for pictures only and never decides which class a pixel has.
"""

import colorsys
import dataclasses
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from vps_jax.datasets.classes import ClassTable
from vps_jax.datasets.labels import MOST_CLASSES, VALUES
from vps_jax.types import UserError

MOST = MOST_CLASSES - 1  # label values above the last class are kept for overlapping objects
HEAD = {"name", "void", "classes"}
KEYS = {"value", "name", "color", "thing", "like"}
BLACK = (0, 0, 0)  # nothing, in every panoptic picture
GOLDEN = 0.618034  # of the circle of hues, between one chosen colour and the next


@dataclass(frozen=True)
class ClassFile:
    """A class file that was read.

    Attributes:
      name: of the data set.
      classes: its table; the official ids are the values of the labels.
      void: label values that mean nothing.
      like: per class the name of the class of a published model to start from, or None.
      notes: one line for every colour that was changed.
    """

    name: str
    classes: ClassTable
    void: tuple[int, ...] = ()
    like: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = ()

    def of_labels(self) -> "ClassFile":
        """What decides the labels alone: without `like` and notes."""
        return dataclasses.replace(self, like=(None,) * len(self.like), notes=())

    def of_things(self) -> "ClassFile":
        """The same classes, all of them things."""
        return dataclasses.replace(self, classes=self.classes._replace(is_thing=(True,) * len(self.classes.names)))

    def as_mapping(self) -> dict:
        """The content as plain values, which `parse` reads again."""
        rows = []
        for row, like in zip(self.classes.rows(), self.like, strict=True):
            plain = {"value": row["id"], "name": row["name"], "color": row["color"], "thing": bool(row["isthing"])}
            rows.append(plain | ({"like": like} if like else {}))
        return {"name": self.name, "void": list(self.void), "classes": rows}


def read(path: str | pathlib.Path) -> ClassFile:
    """The class file at a path.

    Raises:
      UserError: it is missing, is neither YAML nor json, or breaks a rule of `parse`.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text()
        is_json = path.suffix.lower() == ".json"
        content = json.loads(text, object_pairs_hook=once) if is_json else yaml.load(text, OnceLoader)
    except OSError as error:
        words = error.strerror or "cannot be read"
        raise UserError(f"{path}: {words}; expected a class file: `vps-jax data classes` drafts one") from None
    except DoubledKey as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: neither YAML nor json ({reason}); expected name, void and classes") from None
    return parse(content, path)


class DoubledKey(ValueError):
    """A mapping of a file has a key twice, of which only one would count."""


def once(pairs: Iterable[tuple[Any, Any]]) -> dict:
    """A mapping of pairs.

    Raises:
      DoubledKey: a key is there twice.
    """
    mapping: dict = {}
    for key, value in pairs:
        if key in mapping:
            raise DoubledKey(f"the key {key!r} is there twice; expected every key once")
        mapping[key] = value
    return mapping


class OnceLoader(yaml.SafeLoader):
    """YAML in which no mapping has a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """The mapping of a node, as of `once`."""
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        once((self.construct_object(key, deep=True), None) for key in keys if isinstance(key, yaml.ScalarNode))
        return super().construct_mapping(node, deep)


def parse(content: Any, path: pathlib.Path) -> ClassFile:
    """The class file of plain values.

    Args:
      content: what the file holds.
      path: for messages, and its stem for a file that gives no name.

    Raises:
      UserError: a key is unknown, there is no class or too many, a name or value is missing, wrong or doubled, or a
        colour is none.
    """
    head = content if isinstance(content, dict) else {"classes": content}
    unknown = sorted(str(key) for key in head if key not in HEAD)
    if unknown and "classes" in head:  # a json of COCO has many keys, and categories in place of classes
        raise UserError(f"{path}: unknown key {unknown[0]!r}; expected name, void and classes")
    rows = head.get("classes", head.get("categories"))
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: no class at all; expected a list `classes` of value and name")
    if len(rows) > MOST:
        raise UserError(f"{path}: {len(rows)} classes; expected at most {MOST}: join some of them")
    values = tuple(number_of(row, f"{path}: classes[{i}]") for i, row in enumerate(rows))
    names = tuple(text_of(row, "name", f"{path}: classes[{i}]") for i, row in enumerate(rows))
    refuse_doubles(values, "value", path)
    refuse_doubles([name.casefold() for name in names], "name", path)
    void = void_of(head.get("void", []), values, path)
    colors, notes = colors_of(rows, names, path)
    things = tuple(thing_of(row, f"{path}: classes[{i}]") for i, row in enumerate(rows))
    like = tuple(text_of(row, "like", f"{path}: {row['name']}") if row.get("like") else None for row in rows)
    ids = () if values == tuple(range(len(values))) else values
    return ClassFile(set_name(head.get("name"), path), ClassTable(names, colors, things, ids), void, like, notes)


def number_of(row: Any, where: str) -> int:
    """The label value of a class; COCO's categories call it `id` and may have keys of their own.

    Raises:
      UserError: it is missing or no value of a label map, or the class has an unknown key.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where} is {row!r}; expected value and name, such as {{value: 0, name: sky}}")
    unknown = sorted(str(key) for key in row if key not in KEYS) if "id" not in row else []
    if unknown:
        raise UserError(f"{where}: unknown key {unknown[0]!r}; expected value, name, color, thing or like")
    value = row.get("value", row.get("id"))
    if type(value) is not int or not 0 <= value < VALUES:
        raise UserError(
            f"{where}: value {value!r}; expected the whole number, 0 to {VALUES - 1}, that labels show for the class"
        )
    return value


def text_of(row: Mapping, key: str, where: str) -> str:
    """A text of a class.

    Raises:
      UserError: it is missing, empty, no text, or of several lines.
    """
    text = row.get(key)
    if not isinstance(text, str) or not text.strip():
        quotes = "; put it between quotes" if isinstance(text, bool | int | float) else ""
        raise UserError(f"{where}: {key} {text!r}; expected a text{quotes}")
    if len(text.splitlines()) > 1:
        raise UserError(f"{where}: {key} {text!r}; expected a text in one line")
    return text.strip()


def thing_of(row: Mapping, where: str) -> bool:
    """Whether a class has objects.

    Raises:
      UserError: it is neither true nor false.
    """
    thing = row.get("thing", row.get("isthing", False))
    if thing not in (True, False):
        raise UserError(f"{where}: thing {thing!r}; expected true or false")
    return bool(thing)


def refuse_doubles(given: list | tuple, words: str, path: pathlib.Path) -> None:
    """Raises UserError when two classes have the same value or name."""
    for i, one in enumerate(given):
        if one in given[:i]:
            raise UserError(
                f"{path}: classes[{given.index(one)}] and classes[{i}] both have the {words} {one!r}; expected one each"
            )


def void_of(void: Any, values: tuple[int, ...], path: pathlib.Path) -> tuple[int, ...]:
    """Label values that mean nothing.

    Raises:
      UserError: they are no whole numbers, or one is a class too.
    """
    numbers = [void] if type(void) is int else void
    if not isinstance(numbers, list) or any(type(number) is not int or number < 0 for number in numbers):
        raise UserError(f"{path}: void is {void!r}; expected a list of label values, such as [255]")
    for number in numbers:
        if number in values:
            raise UserError(f"{path}: value {number} is void and a class; expected one of the two")
    return tuple(numbers)


def set_name(name: Any, path: pathlib.Path) -> str:
    """Name of the data set.

    Raises:
      UserError: it cannot name a folder.
    """
    if name is None:
        return re.sub(r"\W+", "_", path.stem.lower())
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise UserError(f"{path}: name {name!r}; expected a letter, then letters, digits and _, such as camvid")
    return name


def colors_of(
    rows: list[Mapping], names: tuple[str, ...], path: pathlib.Path
) -> tuple[tuple[tuple[int, int, int], ...], tuple[str, ...]]:
    """A colour for every class, all different and none black, and a line for each that is not the file's.

    Raises:
      UserError: a colour is not three levels of 0..255.
    """
    given = [color_of(row, f"{path}: {name}") for row, name in zip(rows, names, strict=True)]
    free = (color for color in chosen() if color not in given)
    colors, notes = [], []
    for name, color in zip(names, given, strict=True):
        taken = color in colors
        if color is None or color == BLACK or taken:
            colors.append(next(free))
        else:
            colors.append(color)
        if taken or color == BLACK:
            why = f"the colour of {names[colors.index(color)]!r}" if taken else "black, the colour of nothing"
            notes.append(f"{path}: {name!r} has {why}; it is drawn in {list(colors[-1])}")
    return tuple(colors), tuple(notes)


def color_of(row: Mapping, where: str) -> tuple[int, int, int] | None:
    """The colour that a row gives, or None.

    Raises:
      UserError: it is not three levels of 0..255.
    """
    color = row.get("color")
    if color is None:
        return None
    if not isinstance(color, list) or len(color) != 3 or any(type(v) is not int or not 0 <= v <= 255 for v in color):
        raise UserError(f"{where}: color {color!r}; expected red, green and blue of 0..255, such as [128, 64, 0]")
    return tuple(color)


def chosen() -> Iterator[tuple[int, int, int]]:
    """Colours that are far from each other, always the same ones."""
    seen = {BLACK}
    for i in itertools.count():
        shade = colorsys.hsv_to_rgb(i * GOLDEN % 1, (0.85, 0.55)[i % 2], (0.95, 0.7, 0.5)[i % 3])
        color = tuple(round(255 * level) for level in shade)
        if color not in seen:
            seen.add(color)
            yield color
