"""The product of a dense layer, whose kernel's gradient is quick on a CPU.

jax multiplies the gradient of the output with the input, and transposes the result. XLA's CPU compiler makes of this a
product whose operands are both transposed, and copies one of them first. The product of the input and the gradient, in
this order, is the kernel's gradient as it lies in memory: for 8,192 rows of 24 and 96 channels it takes 0.4 ms instead
of 3.8, for 2,688 rows of 256 and 1,024 channels 14 ms instead of 21.
"""

import functools

import jax

from vps_jax.ops import target
from vps_jax.shapes import Float
from vps_jax.types import Array


def dot_general(
    x: Float[Array, "*at c"], kernel: Float[Array, "c d"], dimension_numbers, precision=None
) -> Float[Array, "*at d"]:
    """`jax.lax.dot_general` for `nn.Dense(dot_general=...)`.

    Args:
      x: `[..., c]`.
      kernel: `[c, d]`.
      dimension_numbers: those of a dense layer, `(((x.ndim - 1,), (0,)), ((), ()))`.
      precision: see `jax.lax.dot_general`.

    Raises:
      ValueError: other dimension numbers.
    """
    if dimension_numbers != _numbers((x.ndim - 1,), (0,)):
        raise ValueError(f"expected the product of a dense layer, got the dimension numbers {dimension_numbers}")
    if target.backend() != "cpu":
        return _plain(x, kernel, precision)
    return _by_rows(x, kernel, precision)


def _numbers(of_x, of_kernel):
    return ((of_x, of_kernel), ((), ()))


def _plain(x, kernel, precision):
    return jax.lax.dot_general(x, kernel, _numbers((x.ndim - 1,), (0,)), precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _by_rows(x, kernel, precision):
    return _plain(x, kernel, precision)


def _forward(x, kernel, precision):
    return _plain(x, kernel, precision), (x, kernel)


def _backward(precision, residuals, gradient):
    x, kernel = residuals
    rows = tuple(range(x.ndim - 1))
    return (
        jax.lax.dot_general(gradient, kernel, _numbers((x.ndim - 1,), (1,)), precision=precision),
        jax.lax.dot_general(x, gradient, _numbers(rows, rows), precision=precision),
    )


_by_rows.defvjp(_forward, _backward)
