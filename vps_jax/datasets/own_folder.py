"""`own.json`: what a user said of his data, kept so that later commands need only the folder."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

from vps_jax import files
from vps_jax.datasets import class_file, spec
from vps_jax.datasets.own import TRACKS, Own, specification
from vps_jax.types import UserError

NAME = "own.json"
TRACKS_TRUTH = "{split}.json"  # beside it, for forms with tracks: what is scored, in the form of YouTube-VIS


def described(own: Own, source: pathlib.Path) -> dict:
    """Plain values of a description and of the folder that it describes; `unpacked` is beside the description."""
    rest = {key: value for key, value in vars(own).items() if key not in ("classes", "unpacked")}
    beside = {"unpacked": pathlib.Path(own.unpacked).name} if own.unpacked else {}
    return {"source": str(source.resolve()), **rest, **beside, "classes": own.classes.as_mapping()}


def write(folder: pathlib.Path, own: Own, source: pathlib.Path) -> None:
    """Keep a description in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / NAME, described(own, source), indent=1)


def kept(folder: pathlib.Path) -> dict | None:
    """The plain values that `write` left in a folder, or None.

    Raises:
      UserError: they cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        return content if {"source", "form", "classes"} <= content.keys() else _unreadable(path, "keys are missing")
    except (OSError, ValueError, AttributeError) as error:
        return _unreadable(path, error)


def _unreadable(path: pathlib.Path, reason: Any) -> Any:
    raise UserError(f"{path}: cannot be read ({reason}); expected what `vps-jax data prepare own` wrote: prepare again")


def opened(folder: pathlib.Path) -> spec.DatasetSpec | None:
    """The data set that a folder describes, read from where it was prepared from; None for any other folder.

    Raises:
      UserError: the description cannot be read, or the source has gone.
    """
    content = kept(folder)
    if content is None:
        return None
    content = dict(content)
    source, path = pathlib.Path(content.pop("source")), folder / NAME
    if not source.is_dir():
        raise UserError(f"{path}: its source {source} is not there; expected the data that was prepared: restore it")
    if "unpacked" in content:
        content["unpacked"] = str(folder.resolve().parent / content["unpacked"])
    try:
        own = Own(**content | {"classes": class_file.parse(content["classes"], path)})
    except TypeError as error:
        _unreadable(path, error)
    return bound(specification(own), source)


def bound(own: spec.DatasetSpec, source: pathlib.Path) -> spec.DatasetSpec:
    """The data set at one place, whatever root it is asked about."""
    (layout,) = own.layouts
    place = str(source).replace("{", "{{").replace("}", "}}")
    here = dataclasses.replace(
        layout,
        needs=(NAME,),
        splits=functools.partial(_at, function=layout.splits, source=source),
        videos=functools.partial(_at, function=layout.videos, source=source),
        strays=functools.partial(_at, function=layout.strays, source=source),
        truth=TRACKS_TRUTH if layout.name in TRACKS else f"{place}/{layout.truth}",
    )
    return dataclasses.replace(own, layouts=(here,))


def _at(root: pathlib.Path, *rest: str, function: Callable, source: pathlib.Path) -> Any:
    return function(source, *rest)
