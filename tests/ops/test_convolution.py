"""The convolution whose kernel's gradient is matrix products, against that of `jax.lax`."""

import functools

import jax
import jax.numpy as jnp
import jaxprs
import numpy as np
import pytest
from flax import linen as nn

from vps_jax.ops import convolution, target


@pytest.mark.parametrize(("kernel", "padding"), [((3, 3), 1), ((2, 3), ((0, 1), (2, 0))), ((1, 1), 0)])
def test_values_and_gradients_are_those_of_the_plain_one(kernel, padding):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 6, 3), np.float32)
    plain = nn.Conv(4, kernel, padding=padding, use_bias=False)
    ours = plain.clone(conv_general_dilated=convolution.convolution)
    variables = jax.jit(plain.init)(jax.random.key(0), x)

    @functools.partial(jax.jit, static_argnums=0)
    def outputs(layer):
        y, pull = jax.vjp(layer.apply, variables, x)
        return y, pull(jnp.cos(y))

    for found, expected in zip(jax.tree.leaves(outputs(ours)), jax.tree.leaves(outputs(plain)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_only_a_cpu_has_the_products():
    def of_kernel(kernel):
        return jnp.sum(convolution.convolution(jnp.ones((1, 4, 4, 2)), kernel, (1, 1), ((1, 1), (1, 1))))

    def primitives(kernel):
        return str(jax.make_jaxpr(jax.grad(of_kernel))(kernel))

    kernel = jnp.ones((3, 3, 2, 2))
    assert "dot_general" in primitives(kernel)
    with target.made_for("gpu"):
        assert "dot_general" not in primitives(kernel)


def test_every_convolution_has_the_axes_that_the_cpu_compiler_wants_inside_of_loops():
    """Also that of the input's gradient: in another order it is compiled as loops over single numbers there."""

    def loss(x, kernel):
        return jnp.sum(convolution.convolution(x, kernel, (1, 1), ((1, 1), (1, 1))) ** 2)

    traced = jax.make_jaxpr(jax.grad(loss, (0, 1)))(jnp.ones((1, 4, 5, 2)), jnp.ones((3, 3, 2, 6)))
    all_equations = jaxprs.equations(traced.jaxpr)
    axes = [e.params["dimension_numbers"] for e in all_equations if e.primitive.name == "conv_general_dilated"]
    wanted = jax.lax.conv_dimension_numbers((1, 4, 5, 2), (3, 3, 2, 6), convolution.NHWC)
    assert axes == [wanted, wanted]


@pytest.mark.parametrize(("strides", "options"), [((2, 2), {}), ((1, 1), {"rhs_dilation": (2, 2)})])
def test_strides_and_dilations_are_refused(strides, options):
    with pytest.raises(ValueError, match="without strides"):
        convolution.convolution(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2)), strides, ((1, 1), (1, 1)), **options)
