"""Mappings to frozen dataclasses: unknown keys, wrong types and impossible values become one line each.

A field states its own bounds: `number(0.5, low=0, high=1)`, `choice("ema", "raw")`. The line names the key with its
path, the value, and what was expected.
"""

import dataclasses
import functools
import importlib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from vps_jax.types import UserError

T = TypeVar("T")


def number(
    default: Any = dataclasses.MISSING, *, low: float | None = None, high: float | None = None,
    below: float | None = None,
) -> Any:  # fmt: skip
    """A field for a number, or for a tuple of numbers: from `low` to `high`, both allowed, and less than `below`."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "below": below})


def choice(*values: str) -> Any:
    """A field for one of some words; the first is the default."""
    return dataclasses.field(default=values[0], metadata={"choices": values})


def parse(cls: type[T], given: Mapping | T, where: str = "") -> T:
    """An instance of a dataclass from a mapping.

    Args:
      cls: frozen dataclass; its annotations decide the types, its metadata the bounds.
      given: any mapping, such as a ConfigDict; an instance of `cls` is returned as it is.
      where: dotted path of the mapping, for messages.

    Raises:
      UserError: a key is unknown or missing, or a value has a wrong type or is out of bounds.
    """
    if isinstance(given, cls):
        return given
    if not isinstance(given, Mapping) and not hasattr(given, "items"):
        raise UserError(f"{where or cls.__name__}={given!r}: expected a mapping of {', '.join(field_names(cls))}")
    given, fields = dict(given.items()), {field.name: field for field in dataclasses.fields(cls)}
    prefix = f"{where}." if where else ""
    for key in given:
        if key not in fields:
            raise UserError(f"{prefix}{key}: no such key; expected one of {', '.join(fields)}")
    hints, values = type_hints(cls), {}
    for name, field in fields.items():
        if name in given:
            values[name] = convert(given[name], hints[name], prefix + name)
            check_bounds(values[name], field.metadata, prefix + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{prefix}{name} is missing; expected a value: set it in the config")
    try:
        return cls(**values)
    except UserError as error:  # a rule between fields, which the class's __post_init__ holds
        raise UserError(f"{prefix}{error}") from None


def field_names(cls: type) -> list[str]:
    """Names of the fields of a dataclass, in order."""
    return [field.name for field in dataclasses.fields(cls)]


@functools.cache
def type_hints(cls: type) -> dict[str, Any]:
    """Annotations of a dataclass as types."""
    return typing.get_type_hints(cls)


def convert(value: Any, hint: Any, where: str) -> Any:
    """A value as the annotation has it: lists become tuples, whole numbers become floats where floats are asked for."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value if dataclasses.is_dataclass(value) else plain(value)
    if origin in (typing.Union, types.UnionType):
        return convert_union(value, inner, where)
    if dataclasses.is_dataclass(hint):
        return parse(hint, value, where)
    if origin is tuple:
        return convert_tuple(value, inner, where)
    if origin is dict:
        if not hasattr(value, "items"):
            raise UserError(f"{where}={value!r}: expected a mapping")
        return {str(key): convert(one, inner[1], f"{where}.{key}") for key, one in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where}={value!r}: expected {describe(hint)}")
    return value


def convert_union(value: Any, hints: tuple, where: str) -> Any:
    """A value of one of several types; the first that takes it counts."""
    if value is None and type(None) in hints:
        return None
    hints = tuple(hint for hint in hints if hint is not type(None))
    if len(hints) == 1:
        return convert(value, hints[0], where)
    for hint in hints:
        try:
            return convert(value, hint, where)
        except UserError:
            continue
    raise UserError(f"{where}={value!r}: expected {' or '.join(map(describe, hints))}")


def convert_tuple(value: Any, inner: tuple, where: str) -> tuple:
    """A list or tuple whose entries have the annotated types."""
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{where}={value!r}: expected a list")
    if inner[-1:] == (Ellipsis,):
        inner = inner[:1] * len(value)
    if len(inner) != len(value):
        raise UserError(f"{where}={value!r}: expected {len(inner)} entries, found {len(value)}")
    return tuple(convert(one, hint, f"{where}[{i}]") for i, (one, hint) in enumerate(zip(value, inner, strict=True)))


def describe(hint: Any) -> str:
    """A type in words."""
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
    return words.get(hint, "a list" if typing.get_origin(hint) is tuple else str(hint))


def check_bounds(value: Any, metadata: Mapping, where: str) -> None:
    """Raises UserError for a word that is no choice, or a number that is out of bounds or not finite."""
    if metadata.get("choices") and value is not None and value not in metadata["choices"]:
        raise UserError(f"{where}={value!r}: expected one of {', '.join(metadata['choices'])}")
    low, high, below = (metadata.get(name) for name in ("low", "high", "below"))
    for one in value if isinstance(value, tuple) else (value,):
        if not isinstance(one, (int, float)) or isinstance(one, bool):
            continue
        outside = (low is not None and one < low) or (high is not None and one > high)
        if outside or not math.isfinite(one) or (below is not None and one >= below):
            raise UserError(f"{where}={value!r}: expected {bounds(low, high, below)}")


def check_rules(config: Any, rules: Iterable[tuple[bool, str, str]], where: str) -> None:
    """Raises UserError for the first of the rules, (holds, key, what is expected), that does not hold."""
    for holds, key, expected in rules:
        if not holds:
            raise UserError(f"{where}.{key}={getattr(config, key)!r}: expected {expected}; change it in the config")


def bounds(low: float | None, high: float | None, below: float | None = None) -> str:
    """Bounds in words."""
    if below is not None:
        return f"a number from {low} to below {below}"
    if low is not None and high is not None:
        return f"a number from {low} to {high}"
    if low is None and high is None:
        return "a finite number"
    return f"a number of at least {low}" if high is None else f"a number of at most {high}"


def plain(value: Any) -> Any:
    """Dataclasses and config containers as dicts and tuples, so that they can be written, hashed and compared."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {key: plain(one) for key, one in value.items()}
    return tuple(plain(one) for one in value) if isinstance(value, (list, tuple)) else value


def resolve(reference: str) -> Any:
    """What `module:name` names: rows of tables name functions of higher layers this way, and import them when asked.

    Raises:
      UserError: no such module or name.
    """
    module, _, name = reference.partition(":")
    try:
        imported = importlib.import_module(module)
        return getattr(imported, name) if name else imported
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"{reference!r} cannot be imported ({error}); expected module:name") from error
