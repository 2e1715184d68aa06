"""The networks: `build` one from a config, `init` its variables."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vps_jax.config import model_config, model_row
from vps_jax.models import layers, quick_keys
from vps_jax.parsing import resolve


def build(config: Mapping[str, Any] | Any) -> nn.Module:
    """The network of a config.

    Args:
      config: `config.model`: a mapping, or the dataclass of the model's row; see `vps_jax.config.MODELS`.

    Raises:
      UserError: no model has that name, a key is unknown, or a value does not fit.
    """
    config = model_config(config)
    return resolve(model_row(config.name).build)(config)


def init(model: nn.Module, key: jax.Array, image_size: tuple[int, int]) -> dict[str, Any]:
    """Fresh variables, with the parameters of every task the network can do.

    Args:
      model: from `build`.
      key: PRNG key.
      image_size: height and width, multiples of 64. Parameters do not depend on it where the network is convolutional.

    Returns:
      `{'params': ...}` and `'batch_stats'` where the network has them; float32.
    """
    images = jnp.zeros((1, 1, *image_size, 3), jnp.uint8)
    return jax.jit(functools.partial(model.init, task="semantic"))(quick_keys.quick_key(key), images)


def shapes(model: nn.Module, image_size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    """Shapes and dtypes of what `init` gives, without computing anything, in less time than tracing `init` takes.

    Args:
      model: from `build`.
      image_size: see `init`; the smallest size that every network takes will do where parameters do not depend on it.
    """
    return jax.tree.map(lambda leaf: leaf, _shapes(model, image_size))  # a tree that the caller may change


@functools.lru_cache(maxsize=8)
def _shapes(model: nn.Module, image_size: tuple[int, int]) -> dict[str, Any]:
    with layers.shapes_alone():
        return jax.eval_shape(lambda key: init(model, key, image_size), jax.random.key(0))
