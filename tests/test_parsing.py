"""Mappings to dataclasses: what is taken, what is refused, and the words of the refusal."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import ml_collections
import pytest

from vps_jax.parsing import choice, number, parse, plain, resolve
from vps_jax.types import UserError


@dataclass(frozen=True)
class Inner:
    low: int = number(1, low=1)
    high: int = number(2, low=1)

    def __post_init__(self):
        if self.low > self.high:
            raise UserError(f"low={self.low}: expected at most high={self.high}")


@dataclass(frozen=True)
class Outer:
    name: str
    rate: float = number(0.5, low=0, high=1)
    mode: str = choice("fast", "slow")
    scales: tuple[float, ...] = number((1.0,), low=0)
    size: tuple[int, int] = (1, 2)
    side: int | tuple[int, ...] = number(3, low=1)
    scale: float | tuple[float, ...] = 1.0
    rows: tuple[tuple[str, float | tuple[float, ...]], ...] = ()
    inner: Inner | None = Inner()
    table: dict[str, Inner] = dataclasses.field(default_factory=dict)
    anything: Any = None
    on: bool = False
    maybe: int | None = number(None, low=1)


def test_defaults_fill_what_is_left_out():
    assert parse(Outer, {"name": "a"}) == Outer("a")
    given = Outer("b", rate=0.25)
    assert parse(Outer, given) is given


@pytest.mark.parametrize("wrap", [dict, ml_collections.ConfigDict])
def test_any_mapping_is_taken_and_lists_become_tuples(wrap):
    given = {"name": "a", "scales": [1, 2.5], "rows": [["x", 2], ["y", [1, 2]]], "table": {"one": {"low": 2}}}
    found = parse(Outer, wrap(given))
    assert found.scales == (1.0, 2.5) and [type(x) for x in found.scales] == [float, float]
    assert found.rows == (("x", 2.0), ("y", (1.0, 2.0)))
    assert found.table == {"one": Inner(2, 2)}
    hash(found.rows)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rate", 1, 1.0), ("side", 5, 5), ("side", [5, 6], (5, 6)), ("scale", 2, 2.0), ("scale", (1, 2), (1.0, 2.0)),
        ("inner", None, None), ("inner", {"high": 9}, Inner(1, 9)), ("inner", Inner(2, 3), Inner(2, 3)),
        ("maybe", None, None), ("maybe", 4, 4), ("on", True, True),
        ("anything", Inner(), Inner()),
        ("anything", ml_collections.ConfigDict({"a": [1]}), {"a": (1,)}),
    ],
)  # fmt: skip
def test_values_that_fit(key, value, expected):
    found = getattr(parse(Outer, {"name": "a", key: value}), key)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "top.name is missing; expected a value: set it in the config"),
        ({"name": 3}, "top.name=3: expected text"),
        ({"name": "a", "nome": 1}, "top.nome: no such key; expected one of name, rate"),
        ({"name": "a", "rate": 1.5}, "top.rate=1.5: expected a number from 0 to 1"),
        ({"name": "a", "rate": float("nan")}, "top.rate=nan: expected a number from 0 to 1"),
        ({"name": "a", "rate": True}, "top.rate=True: expected a number"),
        ({"name": "a", "rate": None}, "top.rate=None: expected a number"),
        ({"name": "a", "rate": "0.1"}, "top.rate='0.1': expected a number"),
        ({"name": "a", "mode": "idle"}, "top.mode='idle': expected one of fast, slow"),
        ({"name": "a", "scales": [1, -1]}, r"top.scales=\(1.0, -1.0\): expected a number of at least 0"),
        ({"name": "a", "size": [1]}, r"top.size=\[1\]: expected 2 entries, found 1"),
        ({"name": "a", "size": [1, 2.5]}, r"top.size\[1\]=2.5: expected a whole number"),
        ({"name": "a", "size": 3}, "top.size=3: expected a list"),
        ({"name": "a", "side": 0}, "top.side=0: expected a number of at least 1"),
        ({"name": "a", "side": (4, 0)}, r"top.side=\(4, 0\): expected a number of at least 1"),
        ({"name": "a", "side": "big"}, "top.side='big': expected a whole number or a list"),
        ({"name": "a", "inner": {"low": 0}}, "top.inner.low=0: expected a number of at least 1"),
        ({"name": "a", "inner": {"low": 3}}, "top.inner.low=3: expected at most high=2"),
        ({"name": "a", "inner": 3}, "top.inner=3: expected a mapping of low, high"),
        ({"name": "a", "table": [1]}, r"top.table=\[1\]: expected a mapping"),
        ({"name": "a", "table": {"x": {"high": "2"}}}, "top.table.x.high='2': expected a whole number"),
        ({"name": "a", "on": 1}, "top.on=1: expected True or False"),
        ({"name": "a", "maybe": 0}, "top.maybe=0: expected a number of at least 1"),
    ],
)
def test_refusals_name_key_value_and_what_was_expected(given, line):
    with pytest.raises(UserError, match=line) as error:
        parse(Outer, given, "top")
    assert "\n" not in str(error.value)


def test_plain_is_what_json_and_hashes_take():
    found = plain({"a": Inner(), "b": [Inner(2, 3), 1]})
    assert found == {"a": {"low": 1, "high": 2}, "b": ({"low": 2, "high": 3}, 1)}
    assert parse(Outer, plain(Outer("a"))) == Outer("a")


def test_references():
    assert resolve("vps_jax.parsing:parse") is parse
    for wrong in ("vps_jax.parsing:nothing", "vps_jax.nowhere:parse"):
        with pytest.raises(UserError, match=f"'{wrong}' cannot be imported"):
            resolve(wrong)
