"""Published checkpoints to our variables and back."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vps_jax import models
from vps_jax.convert import rules
from vps_jax.convert.rules import Table
from vps_jax.types import UserError


def table(config: Mapping[str, Any]) -> Table:
    """The key table of a model config.

    Raises:
      UserError: no published files of that model are known.
    """
    if config["name"] == "tarvis":
        from vps_jax.convert import tarvis

        return tarvis.table(config)
    if config["name"] == "mask2former":
        from vps_jax.convert import vit_adapter

        return vit_adapter.table(config)
    raise UserError(f"no key table for model {config['name']!r}; expected tarvis or mask2former")


def expected(config: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes and dtypes of the variables of a config, without computing anything."""
    model = models.build(config)
    size = (64, 64)  # parameters of a convolutional network do not depend on it
    return jax.eval_shape(lambda: models.init(model, jax.random.key(0), size))


def to_params(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables (`{'params': ...}`) of numpy arrays from a published state dict.

    Args:
      arrays: published name -> array, as `read_checkpoint` gives.
      config: `config.model` of the network that the file was made with.

    Raises:
      UserError: keys or shapes do not fit (both lists are named), or a value is not finite.
    """
    return rules.apply(table(config), arrays, expected(config))


def to_arrays(variables: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The way back: a state dict with the published names, layouts and constants."""
    return rules.to_arrays(table(config), variables)
