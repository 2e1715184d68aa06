"""Convolution whose gradients are quick on a CPU.

XLA makes that of the kernel as a convolution whose window is the whole map. On a CPU it takes four times the forward
pass of a 3x3 convolution, where twice that of a few matrix products is enough. That of the input has the axes of its
kernel in another order, which XLA's CPU compiler sets right outside of loops alone; inside of one, as where gradients
are accumulated, it would run plain loops over single numbers.
"""

import functools

import jax
import jax.numpy as jnp

from vps_jax.ops import target
from vps_jax.shapes import Float
from vps_jax.types import Array

NHWC = ("NHWC", "HWIO", "NHWC")


def convolution(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c d"], strides, padding, **options
) -> Float[Array, "n h2 w2 d"]:
    """`jax.lax.conv_general_dilated` for `nn.Conv(conv_general_dilated=...)`, of a plain 2D convolution without stride.

    Args:
      x: `[n, h, w, c]`.
      kernel: `[kh, kw, c, d]`.
      strides: ones.
      padding: ((above, below), (left, right)).
      options: as `nn.Conv` gives them, none of which may change the convolution.

    Raises:
      ValueError: strides, dilations or groups.
    """
    factors = *strides, *options.get("lhs_dilation", ()), *options.get("rhs_dilation", ())
    if set(factors) != {1} or options.get("feature_group_count", 1) != 1:
        raise ValueError("expected a convolution without strides, dilations and groups; use jax.lax for others")
    precision = options.get("precision")
    if target.backend() != "cpu":
        return _plain(x, kernel, tuple(padding), precision)
    return _by_products(x, kernel, tuple(padding), precision)


def _plain(x, kernel, padding, precision):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NHWC, precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_products(x, kernel, padding, precision):
    return _plain(x, kernel, padding, precision)


def _forward(x, kernel, padding, precision):
    return _plain(x, kernel, padding, precision), (x, kernel)


def _backward(padding, precision, residuals, gradient):
    x, kernel = residuals
    return (
        _input_gradient(gradient, kernel, padding, precision).astype(x.dtype),
        _kernel_gradient(x, gradient, kernel.shape, padding, precision).astype(kernel.dtype),
    )


_by_products.defvjp(_forward, _backward)


def _input_gradient(gradient, kernel, padding, precision):
    """The convolution of the output's gradient with the kernel turned by half a turn, its channels exchanged."""
    sides = zip(kernel.shape[:2], padding, strict=True)
    around = tuple((side - 1 - before, side - 1 - after) for side, (before, after) in sides)
    return _plain(gradient, jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3), around, precision)


def _kernel_gradient(x, gradient, shape, padding, precision):
    """float32 `shape`: a product for every row of the kernel, the shifts along the row side by side as channels."""
    height, width = gradient.shape[1:3]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    x = jnp.concatenate([x[:, :, i : i + width] for i in range(shape[1])], axis=-1)  # [n, h, w, kw c]
    product = functools.partial(jnp.einsum, precision=precision, preferred_element_type=jnp.float32)
    rows = [product("nhwd,nhwc->dc", gradient, x[:, i : i + height]) for i in range(shape[0])]
    return jnp.moveaxis(jnp.stack(rows), 1, -1).reshape(shape)
