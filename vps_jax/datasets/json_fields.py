"""Fields of jsons, looked at before they are used: a message names the file, the entry, the value and what is right."""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from vps_jax.types import UserError

LONGEST = 60  # letters of a value in a message


class Kind(NamedTuple):
    """What a field may hold: in words, and as a test of a value."""

    words: str
    fits: Callable[[Any], bool]


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; some programs write 640.0."""
    return type(value) is int or (type(value) is float and value.is_integer())


def is_file(value: Any) -> bool:
    """Whether a value is a path that stays below its folder."""
    path = pathlib.PurePosixPath(value) if isinstance(value, str) and "\0" not in value else None
    return path is not None and bool(path.name) and not path.is_absolute() and ".." not in path.parts


ID = Kind("a whole number or a text", lambda value: isinstance(value, str) or is_whole(value))
NUMBER = Kind("a number", lambda value: type(value) in (int, float))
PIXELS = Kind("a whole number of pixels, from 1", lambda value: is_whole(value) and value > 0)
FILE = Kind("the path of a file below its folder, such as v0/00001.jpg", is_file)
LIST = Kind("a list", lambda value: isinstance(value, list))
OBJECT = Kind("an object with keys", lambda value: isinstance(value, dict))
ANY = Kind("anything", lambda value: True)


def checked(value: Any, kind: Kind, where: str) -> Any:
    """The value.

    Raises:
      UserError: it is of another kind.
    """
    if not kind.fits(value):
        raise UserError(f"{where} is {shown(value)}; expected {kind.words}")
    return value


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def load_json(path: pathlib.Path) -> dict:
    """Content of a json file.

    Raises:
      UserError: it cannot be read, or is no object.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}; expected a json file there") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid json ({error}); fetch the file again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected an object with images and annotations")
    return content


def rows_of(
    content: Mapping, key: str, needs: Mapping[str, Kind], path: pathlib.Path | str, may: Mapping[str, Kind] = {}
) -> list[dict]:
    """A list of objects with some keys.

    Args:
      content: what has the list.
      key: of the list.
      needs: keys of every entry and what they hold.
      path: for messages.
      may: keys that an entry may lack or leave null.

    Raises:
      UserError: the list or a key is missing, or holds something else; names the entry.
    """
    rows = content.get(key)
    if not isinstance(rows, list):
        raise UserError(f"{path}: {key!r} is {'missing' if rows is None else 'no list'}; expected a list of {key}")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            words = f"entries with {', '.join(needs)}" if needs else OBJECT.words
            raise UserError(f"{path}: {key}[{i}] is {shown(row)}; expected {words}")
        for need, kind in needs.items():
            if need not in row:
                raise UserError(f"{path}: {key}[{i}] has no {need!r}; expected {', '.join(needs)} in every entry")
            if not kind.fits(row[need]):
                checked(row[need], kind, f"{path}: {key}[{i}]: {need}")
        for one, kind in may.items():
            if row.get(one) is not None and not kind.fits(row[one]):
                checked(row[one], kind, f"{path}: {key}[{i}]: {one}")
    return rows


def by_id(rows: list[dict], key: str, path: pathlib.Path | str, field: str = "id") -> dict[Any, dict]:
    """Rows by their `id`, or by another field.

    Raises:
      UserError: two have the same.
    """
    rows_by_id: dict[Any, dict] = {}
    for row in rows:
        if row[field] in rows_by_id:
            raise UserError(f"{path}: {key} has two entries with {field} {row[field]!r}; expected one each")
        rows_by_id[row[field]] = row
    return rows_by_id


def refuse_double_ids(rows: Iterable[Mapping], key: str, path: pathlib.Path) -> None:
    """Raises UserError when two entries have the same `id`, which an entry may lack."""
    by_id([row for row in rows if row.get("id") is not None], key, path)


def file_list(value: Any, where: str) -> list[str]:
    """Paths of images, every one once.

    Raises:
      UserError: it is no list of paths, or one is there twice.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} is {shown(value)}; expected a list of image files")
    place: dict[str, int] = {}
    for i, name in enumerate(value):
        checked(name, FILE, f"{where}[{i}]")
        if name in place:
            raise UserError(f"{where}[{place[name]}] and [{i}] are both {name!r}; expected every frame once")
        place[name] = i
    return value


def categories_of(content: Mapping, path: pathlib.Path) -> list[dict]:
    """Rows `categories`, which a json may lack.

    Raises:
      UserError: they are no list of objects, or have an id that is none.
    """
    if not content.get("categories"):
        return []
    return rows_of(content, "categories", {}, path, may={"id": ID, "name": ID})
