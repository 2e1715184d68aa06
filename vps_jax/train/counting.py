"""What a traced program costs on a device: arithmetic and memory, counted in its jaxpr without compiling it.

XLA's own cost analysis counts the body of a loop once, and the large networks here are loops. All counts of arithmetic
are of products and convolutions, two operations for a multiplication with its addition.
"""

import collections
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

# no array of their own: views, and what is made anew wherever it is read
VIEWS = {"reshape", "broadcast_in_dim", "iota", "squeeze", "expand_dims", "stop_gradient", "copy"}
# everything that reads more than the place it writes; all others may write over a dying operand
READERS = {
    "dot_general", "conv_general_dilated", "gather", "scatter", "scatter-add", "sort", "top_k", "cumsum", "transpose",
    "concatenate", "pad", "dynamic_slice", "dynamic_update_slice", "reduce_sum", "reduce_max", "reduce_min",
    "reduce_and", "reduce_or", "argmax", "argmin", "reduce_window_max", "select_and_scatter_add", "scan", "while",
    "cond",
}  # fmt: skip
CALLS = {"pjit", "jit", "remat2", "checkpoint", "closed_call", "custom_vjp_call", "custom_jvp_call"}  # run in place


def flop(function, *args) -> float:
    """FLOP of the products and convolutions that `function` does on these arrays or shapes; it is only traced."""
    return sum(flop_by_dtype(jax.make_jaxpr(function)(*args).jaxpr).values())


def flop_by_dtype(jaxpr: Jaxpr) -> dict[str, float]:
    """FLOP of a program by the type of what is multiplied, such as `bfloat16`.

    A scan counts for every turn, a `while`, whose turns depend on the data, for one; of branches the dearest counts.
    """
    total: dict[str, float] = collections.Counter()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if own := _own_flop(equation):
            total[equation.invars[0].aval.dtype.name] += own
        inner = [flop_by_dtype(program) for program in programs(equation)]
        if name == "cond":
            inner = [max(inner, key=lambda counts: sum(counts.values()))]
        turns = equation.params["length"] if name == "scan" else 1
        for counts in inner:
            for dtype, value in counts.items():
                total[dtype] += turns * value
    return dict(total)


def _own_flop(equation) -> float:
    """FLOP of one product or convolution; 0 for anything else."""
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        summed = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * equation.outvars[0].aval.size * summed
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * equation.outvars[0].aval.size * math.prod(kernel) / outputs
    return 0.0


def programs(equation) -> Iterator[Jaxpr]:
    """The programs inside an equation: bodies of loops, called and rematerialised functions."""
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
        if _is_program(value):
            yield value.jaxpr if isinstance(value, ClosedJaxpr) else value


def _is_program(value) -> bool:
    return isinstance(value, (ClosedJaxpr, Jaxpr))


def size_in_bytes(tree) -> int:
    """Bytes of all arrays or shapes of a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def peak_bytes(jaxpr: Jaxpr, *, results: bool = True) -> int:
    """Largest sum of bytes that live at once among the arrays made by a program; its inputs are not counted.

    Every array lives until its last use. A scan holds what it stacks and the working memory of one turn. Operations
    that read no more than the place they write go over an operand that dies with them.

    Args:
      jaxpr: the program.
      results: whether its results count; False when they have a place already.
    """
    return max((held.most for held in walk(jaxpr, results=results)), default=0)


class Held(NamedTuple):
    """Bytes of arrays made by a program: the most during one operation, and those that live on after it."""

    most: int
    after: int


def walk(jaxpr: Jaxpr, *, results: bool = True) -> Iterator[Held]:
    """What is held during and after every operation of a program; see `peak_bytes`."""
    own = _storage(jaxpr)
    last_use = _last_uses(jaxpr, own)
    dying = collections.defaultdict(list)
    for var, number in last_use.items():
        dying[number].append(var)
    placed = set() if results else {root for var in _variables(jaxpr.outvars) for root in own.get(var, {var})}
    live, sizes = 0, {}
    for number, eqn in enumerate(jaxpr.eqns):
        made = {var: _var_bytes(var) for var in eqn.outvars if var not in own and var not in placed}
        dead = sum(sizes.get(var, 0) for var in dying[number])
        new = sum(made.values())
        reused = 0 if eqn.primitive.name in READERS | CALLS else min(dead, new)
        most = live + new - reused + _inner_bytes(eqn)
        lasting = {var: size for var, size in made.items() if var in last_use}
        sizes |= lasting
        live += sum(lasting.values()) - dead
        yield Held(most, live)


def _inner_bytes(eqn) -> int:
    """Working memory of the programs inside an operation; a scan's results have their place outside of it."""
    inner = list(programs(eqn))
    if not inner:
        return 0
    if eqn.primitive.name in CALLS:
        return peak_bytes(inner[0], results=False)
    # XLA unrolls a loop of one turn, which then writes to the place of its results
    once = eqn.primitive.name == "scan" and eqn.params["length"] == 1
    return max(peak_bytes(program, results=not once) for program in inner)


def _var_bytes(var) -> int:
    shape, dtype = getattr(var.aval, "shape", ()), getattr(var.aval, "dtype", None)
    return math.prod(shape) * getattr(dtype, "itemsize", 0)


def _variables(items) -> list:
    return [item for item in items if not isinstance(item, Literal)]


def _storage(jaxpr: Jaxpr) -> dict:
    """View -> the arrays whose storage it reads."""
    own: dict = {}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in VIEWS:
            roots = {root for var in _variables(eqn.invars) for root in own.get(var, {var})}
            own |= dict.fromkeys(eqn.outvars, roots)
    return own


def _last_uses(jaxpr: Jaxpr, own: dict) -> dict:
    """Array -> number of the last operation that reads it or a view of it; results outlive all."""
    last: dict = {}
    for number, items in enumerate([*(eqn.invars for eqn in jaxpr.eqns), jaxpr.outvars]):
        for var in _variables(items):
            for root in own.get(var, {var}):
                last[root] = number
    return last
