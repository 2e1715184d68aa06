"""Key tables: which entry of a published state dict fills which of our parameters, and the way back.

A table is a list of `Rule`, written out by Python loops over layer numbers: names are explicit, nothing is matched by
pattern. A rule may write one slice of a stacked parameter (scanned blocks) and may read one of several equal parts of a
packed entry (PyTorch's `in_proj_weight` holds query, key and value).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from vps_jax.types import UserError


class Transform(NamedTuple):
    """A change of layout and its inverse, both on numpy arrays."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_published: Callable[[np.ndarray], np.ndarray]


SAME = Transform(lambda a: a, lambda a: a)
LINEAR = Transform(np.transpose, np.transpose)  # [out, in] <-> Dense kernel [in, out]
CONV = Transform(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))  # [o, i, h, w] <-> [h, w, i, o]
POINTWISE = Transform(lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None])  # 1x1 conv [o, i, 1, 1] <-> Dense


class Rule(NamedTuple):
    """One entry of a published state dict and its place in our variables.

    Attributes:
      key: published name.
      path: our place, joined by `/`, collection first: `params/decoder/norm/scale`.
      transform: layout change; sees the part when `part` is given.
      index: position along the leading stacked axis (or axes) of our parameter, or None when it is not stacked.
      part: `(i, n)`: only the i-th of n equal parts along the entry's first axis; n rules share the key.
    """

    key: str
    path: str
    transform: Transform = SAME
    index: int | tuple[int, ...] | None = None
    part: tuple[int, int] | None = None


class Table(NamedTuple):
    """All entries of one published model.

    Attributes:
      rules: entries that are parameters or running statistics.
      constants: entries that follow from the architecture (index tables, pixel means): left out on the way in, written
        on the way back.
      dropped: entries that this model has no place for, known and left out on purpose.
    """

    rules: tuple[Rule, ...]
    constants: Mapping[str, np.ndarray] = {}
    dropped: frozenset[str] = frozenset()


class BackboneKeys(NamedTuple):
    """What is known of the published files of a kind of backbone; a row of `models.backbones` names it.

    Attributes:
      table: `(name of the row, key=what published names begin with, path=where our backbone is) -> Table`.
      first: an entry by which a file of the backbone alone is known; empty where there are none.
      bare: `(arrays, name, notes)` -> the entries of such a file that the model takes, complete.
      resized: `(arrays, name, notes)` -> entries of the backbone at the model's sizes, any others as they are.
    """

    table: Callable[..., Table]
    first: str = ""
    bare: Callable[[Mapping, str, list[str]], dict] = lambda arrays, name, notes: dict(arrays)
    resized: Callable[[Mapping, str, list[str]], dict] = lambda arrays, name, notes: dict(arrays)


class Filled(NamedTuple):
    """What a file gives.

    Attributes:
      variables: the part of the model's variables that it fills, numpy.
      whole: True when that is all of them.
      notes: one line for each thing that was left out or changed.
    """

    variables: dict[str, Any]
    whole: bool
    notes: tuple[str, ...]


class MismatchError(UserError):
    """A file and a model that do not fit. `missing`, `unused` and `misshapen` hold the complete lists."""

    def __init__(self, missing: list[str], unused: list[str], misshapen: list[str]):
        self.missing, self.unused, self.misshapen = missing, unused, misshapen
        parts = [
            f"{len(names)} {what} ({_some(names)})"
            for names, what in (
                (missing, "parameters that the file does not fill"),
                (unused, "keys of the file without a place"),
                (misshapen, "keys of another shape"),
            )
            if names
        ]
        super().__init__(
            "the checkpoint is not of this model: " + "; ".join(parts) + ". Name the config that the file was made with"
        )


def linear(key: str, path: str, *, bias: bool = True, **where) -> list[Rule]:
    """`key.weight`/`.bias` of a torch Linear -> `path/kernel`, `path/bias` of a Dense."""
    rules = [Rule(f"{key}.weight", f"{path}/kernel", LINEAR, **where)]
    return rules + ([Rule(f"{key}.bias", f"{path}/bias", **where)] if bias else [])


def conv(key: str, path: str, *, bias: bool = True, transform: Transform = CONV, **where) -> list[Rule]:
    """`key.weight`/`.bias` of a torch Conv2d -> `path/kernel`, `path/bias`; `POINTWISE` where ours is a Dense."""
    rules = [Rule(f"{key}.weight", f"{path}/kernel", transform, **where)]
    return rules + ([Rule(f"{key}.bias", f"{path}/bias", **where)] if bias else [])


def norm(key: str, path: str, **where) -> list[Rule]:
    """`key.weight`/`.bias` of a LayerNorm or GroupNorm -> `path/scale`, `path/bias`."""
    return [Rule(f"{key}.weight", f"{path}/scale", **where), Rule(f"{key}.bias", f"{path}/bias", **where)]


def attention(key: str, path: str, **where) -> list[Rule]:
    """A torch MultiheadAttention (packed `in_proj_*`, `out_proj`) -> `layers.MultiHeadAttention`."""
    rules = []
    for i, name in enumerate(("query", "key", "value")):
        rules.append(Rule(f"{key}.in_proj_weight", f"{path}/{name}/kernel", LINEAR, part=(i, 3), **where))
        rules.append(Rule(f"{key}.in_proj_bias", f"{path}/{name}/bias", part=(i, 3), **where))
    return rules + linear(f"{key}.out_proj", f"{path}/out", **where)


def without_classifier(arrays: Mapping[str, np.ndarray], prefixes: tuple[str, ...], notes: list[str]) -> dict:
    """The entries of a backbone's file without those of its own task, which begin with the prefixes."""
    trunk = {key: value for key, value in arrays.items() if not key.startswith(prefixes)}
    dropped = sorted({key.split(".")[0] for key in set(arrays) - set(trunk)})
    if dropped:
        notes.append(f"left out, of the classifier: {', '.join(dropped)}")
    return trunk


def apply(table: Table, arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of our model from a published state dict.

    Args:
      table: the model's table.
      arrays: published name -> array.
      expected: our variables' tree with `.shape` and `.dtype` at the leaves (`jax.eval_shape` of `models.init`).

    Returns:
      The same tree of numpy arrays in the expected dtypes.

    Raises:
      MismatchError: a parameter stays empty, a key has no place, or a shape differs.
    """
    wanted = traverse_util.flatten_dict(dict(expected), sep="/")
    values = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in wanted.items()}
    filled, misshapen = dict.fromkeys(wanted, 0), []
    for rule in table.rules:
        if rule.key not in arrays or rule.path not in wanted:
            continue
        value, slot = _published_part(rule, arrays[rule.key]), _slot(rule)
        target = values[rule.path][slot]
        if value is None or value.shape != target.shape:
            shape = "x".join(map(str, arrays[rule.key].shape))
            misshapen.append(f"{rule.key} {shape} for {rule.path} {'x'.join(map(str, wanted[rule.path].shape))}")
        else:
            values[rule.path][slot] = value
        filled[rule.path] += target.size
    missing = sorted(path for path, leaf in wanted.items() if filled[path] != leaf.size)
    placed = {rule.key for rule in table.rules if rule.path in wanted}
    unused = sorted(set(arrays) - placed - set(table.constants) - table.dropped)
    if missing or unused or misshapen:
        raise MismatchError(missing, unused, misshapen)
    return traverse_util.unflatten_dict(values, sep="/")


def to_arrays(table: Table, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The way back: published names, layouts and constants from our variables.

    Raises:
      MismatchError: a rule's parameter is not in `variables`, or a parameter has no rule.
    """
    ours = {path: np.asarray(a) for path, a in traverse_util.flatten_dict(dict(variables), sep="/").items()}
    ruled = {rule.path for rule in table.rules}
    if ruled != set(ours):
        raise MismatchError(sorted(set(ours) - ruled), sorted(ruled - set(ours)), [])
    parts = defaultdict(dict)
    for rule in table.rules:
        number, _ = rule.part or (0, 1)
        parts[rule.key][number] = rule.transform.to_published(ours[rule.path][_slot(rule)])
    arrays = {key: np.array(_joined(by_number), order="C") for key, by_number in parts.items()}
    return arrays | {key: np.asarray(value) for key, value in table.constants.items()}


def _joined(parts: dict[int, np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate([parts[i] for i in sorted(parts)])


def _published_part(rule: Rule, array: np.ndarray) -> np.ndarray | None:
    """The rule's part of the entry in our layout; None where the entry's rank or size does not allow it."""
    if rule.part is not None:
        number, count = rule.part
        if array.ndim == 0 or array.shape[0] % count:
            return None
        step = array.shape[0] // count
        array = array[number * step : (number + 1) * step]
    try:
        return rule.transform.to_ours(array)
    except (ValueError, IndexError):  # a transpose or slice of another rank
        return None


def _slot(rule: Rule):
    if rule.index is None:
        return ...
    return rule.index if isinstance(rule.index, tuple) else (rule.index,)


def _some(names: Iterable[str], limit: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
