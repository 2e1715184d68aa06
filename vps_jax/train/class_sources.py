"""Which class of a checkpoint each class of a model starts from: by the name of its group, or by its own name.

A group keeps its classes by its name, and a new group may say whose classes it starts from (spec: tarvis 7.9, 12.2).
With `init_from.by_name` a class starts from the class of the same name, else from the one that `like` gives it.
"""

import difflib
import re
from collections.abc import Mapping
from typing import NamedTuple

from vps_jax.config import InitFrom
from vps_jax.types import UserError

FRESH = -1
SHOWN = 2  # class names in the line of those that are taken by name


class Labels(NamedTuple):
    """The classes of a model.

    Attributes:
      groups: its semantic groups, rows (name, number of classes).
      names: names of the classes of a group, as far as they are known.
    """

    groups: tuple[tuple[str, int], ...] = ()
    names: Mapping[str, tuple[str, ...]] = {}

    @property
    def places(self) -> dict[str, range]:
        """Numbers of the classes of each group, the groups one behind the other."""
        ranges, first = {}, 0
        for name, size in self.groups:
            ranges[name] = range(first, first + size)
            first += size
        return ranges


class Named(NamedTuple):
    """Where the classes of a group come from when they are looked up by name.

    Attributes:
      group: of the model.
      same: classes that start from the class of their name.
      like: (class, class of the checkpoint) of those that start from another.
      fresh: classes that start anew.
    """

    group: str
    same: tuple[str, ...]
    like: tuple[tuple[str, str], ...]
    fresh: tuple[str, ...]


class Sources(NamedTuple):
    """For every class of the model, all groups in order, the class of the checkpoint or `FRESH`.

    Attributes:
      classes: numbers as of `Labels.places`.
      named: groups whose classes were looked up by name.
      anew: groups that the checkpoint has nothing for.
    """

    classes: tuple[int, ...]
    named: tuple[Named, ...]
    anew: tuple[str, ...]


def class_sources(source: Labels, target: Labels, settings: InitFrom) -> Sources:
    """Where the classes of a model start from.

    A group of `init_from.groups` follows its row there. With `by_name` the classes of the others are looked up by name
    among those classes of the checkpoint whose names are known; a group that the checkpoint has by name without class
    names is taken as a whole, as without `by_name`.

    Args:
      source, target: classes of the checkpoint and of the model.
      settings: `config.init_from`.

    Raises:
      UserError: a group or class that the settings name is not there, or a group does not fit.
    """
    places, chosen = source.places, {group: (origin, own) for group, origin, own in settings.groups}
    check_groups(chosen, source, target)
    classes: list[int] = []
    named: list[Named] = []
    anew: list[str] = []
    for group, size in target.groups:
        origin, own = chosen.get(group, (group, None))
        if settings.by_name and group not in chosen and (group in source.names or group not in places):
            numbers, row = looked_up(group, source, target, dict(settings.like))
            classes += numbers
            named.append(row)
        elif origin in places:
            classes += of_group(group, size, origin, places[origin], own)
        else:
            classes += [FRESH] * size
            anew.append(group)
    return Sources(tuple(classes), tuple(named), tuple(anew))


def check_groups(chosen: Mapping, source: Labels, target: Labels) -> None:
    """Raises UserError when `init_from.groups` names a group that is not there."""
    unknown = sorted(set(chosen) - set(target.places))
    unknown += sorted({origin for origin, _ in chosen.values()} - set(source.places))
    if unknown:
        raise UserError(
            f"init_from.groups names {unknown}; the model has {list(target.places)}, the checkpoint "
            f"{list(source.places)}; correct the names"
        )


def of_group(group: str, size: int, origin: str, place: range, own: tuple[int, ...] | None) -> list[int]:
    """The classes of a group of the checkpoint, all or the chosen ones, for a group of so many classes.

    Raises:
      UserError: they are more or fewer, or are not in that group.
    """
    own = range(len(place)) if own is None else own
    if len(own) != size or not all(0 <= c < len(place) for c in own):
        raise UserError(
            f"init_from.groups: {group} has {size} classes, {len(own)} of the {len(place)} of {origin} are given for "
            "it; list one class of the checkpoint per class of the model, or set init_from.by_name=True"
        )
    return [place[c] for c in own]


def looked_up(group: str, source: Labels, target: Labels, like: Mapping[str, str]) -> tuple[list[int], Named]:
    """The class of the checkpoint for every class of a group, by its name or by that which `like` gives it.

    Raises:
      UserError: the names are not known, or `like` names a class that is not there.
    """
    if group not in target.names:
        raise UserError(
            f"init_from.by_name: no data say the names of the classes of group {group}; prepare them again, or list "
            "the classes in init_from.groups"
        )
    known: dict[str, tuple[str, int]] = {}
    for origin, names in source.names.items():
        for name, number in zip(names, source.places[origin], strict=True):
            known.setdefault(simple(name), (name, number))
    rows = [(name, start_of(name, like.get(name), known)) for name in target.names[group]]
    same = tuple(name for name, _ in rows if simple(name) in known)
    liked = tuple((name, start[0]) for name, start in rows if start and name not in same)
    fresh = tuple(name for name, start in rows if not start)
    return [start[1] if start else FRESH for _, start in rows], Named(group, same, liked, fresh)


def start_of(name: str, like: str | None, known: Mapping[str, tuple[str, int]]) -> tuple[str, int] | None:
    """Name and number of the class of the checkpoint that a class starts from, or None.

    Args:
      name: of the class.
      like: name of another class to start from where none has that name.
      known: name and number of the classes of the checkpoint by their simple names.

    Raises:
      UserError: the class that `like` names is not there; says which names are nearest.
    """
    if simple(name) in known or like is None:
        return known.get(simple(name))
    if simple(like) in known:
        return known[simple(like)]
    near = difflib.get_close_matches(simple(like), known, n=3, cutoff=0.5) or list(known)[:3]
    raise UserError(
        f"init_from: class {name!r} is to start like {like!r}, which is none of the {len(known)} classes of the "
        f"checkpoint; near are {', '.join(known[one][0] for one in near)}: correct `like` in the class file"
    )


def simple(name: str) -> str:
    """A name by which classes are compared: in small letters, with a space for `_`, `-` and any run of spaces."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def describe(row: Named) -> str:
    """One line: `6 of 11 classes by name (sky, building, ...), 3 by like, fresh: fence, pole`."""
    shown = ", ".join([*row.same[:SHOWN], "..."] if len(row.same) > SHOWN else row.same)
    count = len(row.same) + len(row.like) + len(row.fresh)
    return (
        f"{len(row.same)} of {count} classes by name{f' ({shown})' if shown else ''}, {len(row.like)} by like, "
        f"fresh: {', '.join(row.fresh) or 'none'}"
    )
