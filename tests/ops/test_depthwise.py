"""The sum of shifted maps against XLA's convolution with one group per channel, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.ops import target
from vps_jax.ops.depthwise import by_groups, depthwise_3x3


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 4)])
def test_values_and_gradients_of_the_convolution(size):
    rng = np.random.default_rng(0)
    x, out = rng.normal(size=(2, 2, *size, 6)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 1, 6)).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(convolve, x, kernel, out):
        value, pull = jax.vjp(convolve, x, kernel)
        return value, pull(out)

    found, gradients = value_and_gradients(depthwise_3x3, x, kernel, out)
    expected, expected_gradients = value_and_gradients(by_groups, x, kernel, out)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_sums_of_bfloat16_are_float32():
    """Eight halves of a unit in the last place vanish if they are added one by one in bfloat16."""
    kernel = np.full((3, 3, 1, 1), 2.0**-9, np.float32)
    kernel[0, 0] = 1.0
    found = jax.jit(depthwise_3x3)(jnp.ones((1, 3, 3, 1), jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    assert float(found[0, 1, 1, 0]) == float(jnp.asarray(1 + 8 * 2.0**-9, jnp.bfloat16)) > 1


def test_on_gpus_it_is_one_convolution_that_keeps_no_shifted_maps():
    shapes = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.bfloat16), jax.ShapeDtypeStruct((3, 3, 1, 4), jnp.float32)
    with target.made_for("gpu"):
        found = jax.make_jaxpr(depthwise_3x3)(*shapes)
    assert [equation.primitive.name for equation in found.eqns].count("conv_general_dilated") == 1
    assert found.out_avals[0].dtype == jnp.bfloat16
    assert not any(equation.primitive.name == "pad" for equation in found.eqns)


def test_the_backward_pass_holds_few_maps():
    x, kernel = jnp.zeros((1, 64, 64, 8), jnp.bfloat16), jnp.zeros((3, 3, 1, 8), jnp.bfloat16)
    backward = jax.jit(lambda x, kernel, out: jax.vjp(depthwise_3x3, x, kernel)[1](out)).lower(x, kernel, x).compile()
    assert backward.memory_analysis().temp_size_in_bytes < 8 * x.nbytes  # nine maps in float32 would be 18
