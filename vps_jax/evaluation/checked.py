"""Values of json files, looked at before they are used: the one place where a row of a truth or result file is checked.

Each function gives the value back or raises `Wrong` with the field, the value and what was expected. Who knows the
file, the video and the frame puts them in front: see `place`.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import reprlib
from collections.abc import Iterator

import numpy as np

from vps_jax.evaluation.counts import Segments
from vps_jax.types import UserError

LAST_RGB_ID = (1 << 24) - 1  # R + 256 G + 65536 B
LAST_CATEGORY = (1 << 11) - 1  # a confusion matrix of so many classes has 32 MiB
LARGEST_AREA = 1 << 48
LONGEST_SHOWN = 100
LONGEST_NAME = 255  # bytes that a file system takes

_NO_NAME = re.compile(r"[/\x00-\x1f\x7f\ud800-\udfff]")
_SHOW = reprlib.Repr()
_SHOW.maxstring = _SHOW.maxother = _SHOW.maxlong = 60


class Wrong(Exception):
    """A value that is not as expected: one line without the place where it stands."""


@contextlib.contextmanager
def place(*where: object) -> Iterator[None]:
    """Turn a `Wrong` from within into a UserError that begins with the place."""
    try:
        yield
    except Wrong as wrong:
        raise UserError(f"{': '.join(map(str, where))}: {wrong}") from None


def show(value: object) -> str:
    """The value as json-like text in one line, cut to 100 characters."""
    text = "null" if value is None else _SHOW.repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def read_json(path: pathlib.Path):
    """Content of a json file.

    Raises:
      UserError: it is missing or no json.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}; expected a json file there") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply; no truth or result file is, write it again") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid json ({error}); write it again") from None


def read_list(path: pathlib.Path) -> list[str]:
    """Names of a text file, one per line.

    Raises:
      UserError: it is missing, no UTF-8 text, or has a name that cannot be a folder's.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}; expected one video id per line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); write it again") from None
    with place(path):
        names = [name(line.strip(), f"line {i + 1}") for i, line in enumerate(lines) if line.strip()]
    double = next((one for one in names if names.count(one) > 1), None) if len(set(names)) < len(names) else None
    if double is not None:
        raise UserError(f"{path}: video {double} stands in it twice; keep one of the two")
    return names


def names_of_videos(text: str | None) -> list[str] | None:
    """Names of a text `a,b`, or of a file with one per line; None of None."""
    if text is not None and os.path.isfile(text):
        return read_list(pathlib.Path(text))
    return None if text is None else [one for one in text.split(",") if one]


def mapping(value: object, what: str) -> dict:
    """A json object."""
    if not isinstance(value, dict):
        raise Wrong(f"{what} is {show(value)}; expected an object")
    return value


def sequence(value: object, what: str) -> list:
    """A json list."""
    if not isinstance(value, list):
        raise Wrong(f"{what} is {show(value)}; expected a list")
    return value


def field(row: dict, key: str, what: str = ""):
    """A value that an object must have; `what` names the object."""
    if key not in row:
        raise Wrong(f"{what}{what and ': '}{key} is missing in {show(row)}")
    return row[key]


def whole(value: object, what: str, low: int, high: int) -> int:
    """A whole number of a range; true and false are none."""
    if type(value) is not int or not low <= value <= high:
        raise Wrong(f"{what} is {show(value)}; expected a whole number of {low}..{high}")
    return value


def number(value: object, what: str) -> float:
    """A finite number; true, false and NaN are none."""
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > 1e300:
        raise Wrong(f"{what} is {show(value)}; expected a number")
    return float(value)


def flag(value: object, what: str) -> bool:
    """0, 1, false or true."""
    if type(value) not in (int, bool) or value not in (0, 1):
        raise Wrong(f"{what} is {show(value)}; expected 0 or 1")
    return bool(value)


def name(value: object, what: str) -> str:
    """Text or a whole number that can be the name of one file or folder."""
    text = str(value) if type(value) is int and abs(value) < 10**18 else value
    if not isinstance(text, str) or text in ("", ".", "..") or _NO_NAME.search(text):
        raise Wrong(f"{what} is {show(value)}; expected a name that a folder can have")
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        raise Wrong(f"{what} is {show(value)}; expected a name of at most {LONGEST_NAME} bytes")
    return text


def area(value: object, what: str) -> int | None:
    """Pixels, or None when they are to be counted."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return whole(value, what, 0, LARGEST_AREA)


def categories(rows: object) -> dict[int, dict]:
    """The rows of a json's `categories` by id; ids may have gaps.

    Raises:
      Wrong: not a list of objects with different ids, or an empty one.
    """
    by_id = {}
    for i, row in enumerate(sequence(rows, "categories")):
        row = mapping(row, f"category {i}")
        number_ = whole(field(row, "id", f"category {i}"), f"id of category {i}", 0, LAST_CATEGORY)
        if number_ in by_id:
            raise Wrong(f"category {number_} stands in categories twice")
        by_id[number_] = row
    if not by_id:
        raise Wrong("categories is empty; expected the classes of the truth")
    return by_id


def segments(rows: object, allowed: frozenset[int], *, truth: bool) -> Segments:
    """The table of one frame from its `segments_info`.

    Of a prediction only `id` and `category_id` are looked at; of the truth also `iscrowd` and `area`, both optional.

    Args:
      rows: the json value.
      allowed: category ids that there are.
      truth: which side.

    Raises:
      Wrong: a row breaks a rule of the format.
    """
    rows = sequence(rows, "segments_info")
    # columns are looked at as a whole; only when one is wrong are the rows gone through for the one to name
    try:
        ids, classes = ([row[key] for row in rows] for key in ("id", "category_id"))
        sound = _all_whole(ids, 1, LAST_RGB_ID) and _all_whole(classes, 0, LAST_CATEGORY)
        sound = sound and allowed.issuperset(classes)
    except (KeyError, TypeError):
        sound = False
    if not sound:
        for row in rows:
            _segment(row, allowed)
    if len(set(ids)) < len(ids):
        double = next(one for one in ids if ids.count(one) > 1)
        raise Wrong(f"segment {double} stands in segments_info twice")
    crowd, areas = _crowd_and_areas(rows) if truth else ([False] * len(ids), None)
    return Segments(np.array(ids, np.int64), np.array(classes, np.int64), np.array(crowd, bool), areas)


def _all_whole(values: list, low: int, high: int) -> bool:
    return not values or set(map(type, values)) == {int} and low <= min(values) and max(values) <= high


def _crowd_and_areas(rows: list[dict]) -> tuple[list, np.ndarray | None]:
    """What only the truth has: `iscrowd` and `area` of rows whose id is sound."""
    crowd, areas = ([row.get(key, default) for row in rows] for key, default in (("iscrowd", 0), ("area", None)))
    if not _all_whole(crowd, 0, 1):
        crowd = [flag(one, f"iscrowd of segment {row['id']}") for one, row in zip(crowd, rows, strict=True)]
    if not _all_whole(areas, 0, LARGEST_AREA):
        areas = [area(one, f"area of segment {row['id']}") for one, row in zip(areas, rows, strict=True)]
    return crowd, None if None in areas else np.array(areas, np.int64)


def _segment(row: object, allowed: frozenset[int]) -> None:
    """Raises Wrong unless id and category of a row are as expected."""
    if type(row) is not dict:
        raise Wrong(f"segment {show(row)}; expected an object with id and category_id")
    try:
        number_, category = row["id"], row["category_id"]
    except KeyError:
        raise Wrong(f"segment {show(row)} lacks id or category_id") from None
    if type(number_) is not int or not 0 < number_ <= LAST_RGB_ID:
        raise Wrong(f"segment id {show(number_)}; expected 1..{LAST_RGB_ID} (R + 256 G + 65536 B; 0 is void)")
    if type(category) is not int or category not in allowed:
        low, high = min(allowed), max(allowed)
        gaps = "" if len(allowed) == high - low + 1 else " without those that the truth does not list"
        raise Wrong(f"segment {number_} has category {show(category)}; expected {low}..{high}{gaps}")
