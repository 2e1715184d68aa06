"""Arithmetic and memory of traced programs, counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from vps_jax.train import counting

F32 = jnp.float32
X, W = jax.ShapeDtypeStruct((8, 16), F32), jax.ShapeDtypeStruct((16, 16), F32)
ROW = 8 * 16 * 4  # bytes of an array such as X


def peak(function, *args, results=True) -> int:
    return counting.peak_bytes(jax.make_jaxpr(function)(*args).jaxpr, results=results)


def test_products_count_by_what_is_multiplied():
    def mixed(x, w):
        return (x @ w).astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)

    one = 2 * 8 * 16 * 16
    assert counting.flop_by_dtype(jax.make_jaxpr(mixed)(X, W).jaxpr) == {"float32": one, "bfloat16": one}
    assert counting.flop(mixed, X, W) == 2 * one


def test_what_is_computed_again_counts_again():
    def loss(x, w):
        return jnp.sum(jax.checkpoint(lambda x: jnp.sin(x @ w) @ w)(x))

    # forward two products; backward the first one again, one product for each gradient of x alone
    assert counting.flop(jax.grad(loss), X, W) == pytest.approx((2 + 1 + 2) * 2 * 8 * 16 * 16)


def test_an_array_lives_until_its_last_use():
    def chain(x, w):
        return ((x @ w) @ w) @ w  # never more than an operand and a result

    def late(x, w):
        first = x @ w
        return (first @ w) @ w + first

    assert peak(chain, X, W) == 2 * ROW
    assert peak(late, X, W) == 3 * ROW
    assert peak(chain, X, W, results=False) == 2 * ROW  # before the result is made
    assert peak(lambda x, w: x @ w, X, W, results=False) == 0


def test_views_need_no_place_and_elementwise_results_take_a_dying_one():
    assert peak(lambda x, w: jnp.exp(x @ w), X, W) == ROW
    assert peak(lambda x, w: (x @ w).reshape(16, 8), X, W) == ROW
    assert peak(lambda x, w: (x @ w).T, X, W) == 2 * ROW  # a transposition cannot be made in place


def test_a_loop_holds_what_it_stacks_and_one_turn():
    def turns(length):
        def stacked(x, w):
            def body(x, _):
                x = (x @ w) @ w
                return x, x

            return jax.lax.scan(body, x, None, length=length)

        return stacked

    # the state of the loop and what it stacks, and within a turn the first product and the second
    assert peak(turns(5), X, W) == (1 + 5) * ROW + 2 * ROW
    # one turn is no loop: its results are made in their places
    assert peak(turns(1), X, W) == (1 + 1) * ROW + ROW
