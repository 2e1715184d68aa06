"""Published checkpoints to our variables and back."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from vps_jax import models
from vps_jax.config import model_config, model_row
from vps_jax.convert import rules
from vps_jax.convert.reader import check_finite, read_checkpoint
from vps_jax.convert.rules import Table
from vps_jax.convert.torch_writer import save_torch
from vps_jax.parsing import resolve
from vps_jax.types import UserError

__all__ = ["convert_file", "expected", "fitted", "read_checkpoint", "save_torch", "table", "to_arrays", "to_params"]
SMALLEST = (64, 64)  # parameters do not depend on the image size


def table(config: Mapping[str, Any] | Any) -> Table:
    """The key table of a model config.

    Raises:
      UserError: no published files of that model are known.
    """
    config = model_config(config)
    return _keys(config).table(config)


def expected(config: Mapping[str, Any] | Any) -> dict[str, Any]:
    """Shapes and dtypes of the variables of a config, without computing anything."""
    return models.shapes(models.build(config), SMALLEST)


def to_params(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any] | Any) -> dict[str, Any]:
    """Variables (`{'params': ...}`) of numpy arrays from a published state dict.

    Args:
      arrays: published name -> array, as `read_checkpoint` gives. Relative position tables of another window and
        query lists of more data sets are brought to the model's.
      config: `config.model` of the network that the file was made with, a mapping or the dataclass of its row.

    Raises:
      UserError: keys or shapes do not fit (both lists are named), a value is not finite, or the file holds a backbone
        alone (`convert_file` takes those).
    """
    check_finite(arrays, "the checkpoint")
    config = model_config(config)
    filled = _keys(config).fill(arrays, config, expected(config))
    if not filled.whole:
        raise UserError(f"the file does not fill the whole model ({'; '.join(filled.notes)}); use convert_file")
    return filled.variables


def to_arrays(variables: Mapping[str, Any], config: Mapping[str, Any] | Any) -> dict[str, np.ndarray]:
    """The way back: a state dict with the published names, layouts and constants; see `save_torch`."""
    config = model_config(config)
    keys = _keys(config)
    if hasattr(keys, "to_arrays"):
        return keys.to_arrays(variables, config)
    return rules.to_arrays(keys.table(config), variables)


def fitted(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any] | Any) -> Any:
    """`config.model` with the sizes that only the file knows, such as VidEoMT's position table."""
    config = model_config(config)
    keys = _keys(config)
    return keys.fitted(arrays, config) if hasattr(keys, "fitted") else config


def convert_file(source: str | pathlib.Path, config: Mapping[str, Any] | Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """All variables of a model from a published file; what the file does not hold starts fresh (seed 0).

    Args:
      source: any file that `read_checkpoint` reads, of a whole model or a backbone trained on ImageNet.
      config: `config.model`.

    Returns:
      The variables as numpy arrays, and a report: `parameters` (all), `from_file` (how many of them the file gave),
      `notes` (one line for each thing left out, changed or started fresh) and `model`, the config that fits the
      variables, see `fitted`.

    Raises:
      UserError: see `read_checkpoint` and `to_params`.
    """
    arrays = read_checkpoint(source)
    try:
        config = fitted(arrays, config)
        filled = _keys(config).fill(arrays, config, expected(config))
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    variables, given = filled.variables, _size(filled.variables)
    if not filled.whole:
        fresh = models.init(models.build(config), jax.random.key(0), SMALLEST)
        flat = traverse_util.flatten_dict(jax.tree.map(np.asarray, fresh)) | traverse_util.flatten_dict(variables)
        variables = traverse_util.unflatten_dict(flat)
    report = {"parameters": _size(variables), "from_file": given, "notes": list(filled.notes), "model": config}
    return variables, report


def _keys(config):
    """The module with `table` and `fill` that the model's row names."""
    row = model_row(config.name)
    if not row.keys:
        raise UserError(f"model.name={config.name!r}: no published files are known; expected a row of MODELS with keys")
    return resolve(row.keys)


def _size(variables) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables.get("params", {})))
