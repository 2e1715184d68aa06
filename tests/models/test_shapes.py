"""Shapes of variables without their values."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from vps_jax import models
from vps_jax.models import layers

TARVIS = {"name": "tarvis", "backbone": "swin_micro", "hidden_dim": 32, "num_heads": 2, "neck_layers": 2,
          "decoder_layers": 3, "neck_ffn_dim": 8, "decoder_ffn_dim": 8}  # fmt: skip
MASK2FORMER = {"name": "mask2former", "size": "beit_tiny_96", "groups": (1, 1, 1, 1), "semantic_groups": (("VSPW", 7),)}


@pytest.mark.parametrize("config", [TARVIS, MASK2FORMER], ids=lambda config: config["name"])
def test_they_are_those_of_init(config):
    model = models.build(config)
    expected = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (64, 64)))
    found = models.shapes(model)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), found) == jax.tree.map(lambda a: (a.shape, a.dtype), expected)
    found.clear()
    assert models.shapes(model).keys() == expected.keys()  # what a caller does with them is the caller's


def test_loops_are_traced_once_less():
    traced = []

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            traced.append(x)
            return nn.Dense(3)(x), None

    class Layers(nn.Module):
        @nn.compact
        def __call__(self, x, task):
            body = layers.scan(self, Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=4)
            return body()(jnp.zeros((1, 3)), None)

    models.shapes(Layers())
    once = len(traced)
    jax.eval_shape(lambda: models.init(Layers(), jax.random.key(0), (64, 64)))
    assert 0 < once < len(traced) - once
