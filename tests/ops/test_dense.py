"""The dense layer's product whose kernel's gradient is another product than jax's, against that of `jax.lax`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jaxprs import equations

from vps_jax.ops import dense, target


@pytest.mark.parametrize("lead", [(7,), (2, 3, 5)])
def test_values_and_gradients_are_those_of_the_plain_one(lead):
    rng = np.random.default_rng(0)
    x, gradient = rng.standard_normal((*lead, 6), np.float32), rng.standard_normal((*lead, 4), np.float32)
    plain = nn.Dense(4)
    ours = plain.clone(dot_general=dense.dot_general)
    variables = jax.jit(plain.init)(jax.random.key(0), x)

    @functools.partial(jax.jit, static_argnums=0)
    def outputs(layer):
        y, pull = jax.vjp(layer.apply, variables, x)
        return y, pull(gradient)

    for found, expected in zip(jax.tree.leaves(outputs(ours)), jax.tree.leaves(outputs(plain)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def transposes(kernel):
    loss = lambda kernel: jnp.sum(dense.dot_general(jnp.ones((5, 2)), kernel, (((1,), (0,)), ((), ()))) ** 2)  # noqa: E731
    return sum(e.primitive.name == "transpose" for e in equations(jax.make_jaxpr(jax.grad(loss))(kernel).jaxpr))


def test_on_a_cpu_the_kernels_gradient_is_not_a_transposed_product():
    kernel = jnp.ones((2, 3))
    assert transposes(kernel) == 0
    with target.made_for("gpu"):
        assert transposes(kernel) == 1


def test_other_products_are_refused():
    with pytest.raises(ValueError, match="dense layer"):
        dense.dot_general(jnp.ones((3, 3)), jnp.ones((3, 2)), (((0,), (0,)), ((), ())))
