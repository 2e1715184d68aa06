"""The shapes and types of public functions are checked while tests run (tests/conftest.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from vps_jax.losses import mask_losses
from vps_jax.ops import masks, resize


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: masks.mask_logits(jnp.zeros((2, 4, 4, 8)), jnp.zeros((3, 5, 8))), "embeds"),  # two batches
        (lambda: masks.mask_logits(jnp.zeros((2, 4, 4, 8)), jnp.zeros((2, 5, 7))), "embeds"),  # two widths
        (lambda: masks.quarter(jnp.zeros((8, 8))), "flags"),  # no bools
        (lambda: mask_losses.dice(np.zeros((2, 3)), np.zeros((2, 4))), "labels"),
        (lambda: resize.resize(jnp.zeros((4, 4, 1)), 8), "size"),
    ],
)
def test_what_contradicts_its_annotation_is_named(call, what):
    with pytest.raises(TypeCheckError, match=what):
        call()


def test_the_check_sees_shapes_under_jit():
    objects = mask_losses.Objects(jnp.zeros((1, 3, 8, 8), int), jnp.zeros((1, 2), int), jnp.ones((1, 2), bool))
    rows, points = jnp.zeros((1, 2), int), jnp.zeros((1, 2, 3, 4, 2))
    assert jax.eval_shape(mask_losses.labels_at, objects, rows, points).shape == (1, 2, 3, 4)
    with pytest.raises(TypeCheckError, match="parameter 'points'"):
        jax.eval_shape(mask_losses.labels_at, objects, rows[:, :1], points)
