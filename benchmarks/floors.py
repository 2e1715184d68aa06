"""What a computation costs at least: its products counted in the traced program, its bytes from shapes.

XLA's own cost analysis counts the body of a loop once, and the large networks here are loops.
"""

import math
from typing import NamedTuple

import jax


class Floor(NamedTuple):
    """Counted work: `flop` of products and convolutions, two for a multiplication with its addition; `byte` moved."""

    flop: float
    byte: float = 0.0

    def seconds(self, flop_per_second: float, byte_per_second: float) -> float:
        """The longer of arithmetic and memory at these rates."""
        return max(self.flop / flop_per_second, self.byte / byte_per_second)


def flop(function, *args) -> float:
    """FLOP of the products and convolutions that `function` does on these arrays or shapes; it is only traced."""
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def size_in_bytes(tree) -> int:
    """Bytes of all arrays or shapes of a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _of_jaxpr(jaxpr) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        summed = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * equation.outvars[0].aval.size * summed
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * equation.outvars[0].aval.size * math.prod(kernel) / outputs
    inner = [_of_jaxpr(jaxpr) for jaxpr in _inner(params)]
    if name == "cond":
        return max(inner, default=0.0)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _inner(params):
    """The programs inside an equation: bodies of loops, called and rematerialised functions."""
    for value in jax.tree.leaves(params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
        value = getattr(value, "jaxpr", value)
        if hasattr(value, "eqns"):
            yield value
