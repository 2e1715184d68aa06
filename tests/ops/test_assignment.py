"""The matcher against scipy, which only tests may use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from vps_jax.ops.assignment import assign

program = jax.jit(assign)


def solve(cost, valid):
    """A flat batch of problems: `[B, n, m]`, `[B, n]` -> `[B, n]`."""
    return program(cost[None], valid)[0]


def costs(kind, rng, shape):
    normal = rng.normal(size=shape)
    return {
        "plain": normal,
        "ties": np.round(normal),
        "rank one": rng.normal(size=(*shape[:2], 1)) * rng.normal(size=(shape[0], 1, shape[2])),
        "all equal": np.zeros(shape),
        "all want the same": 0.01 * normal + rng.normal(size=(shape[0], 1, shape[2])),
    }[kind]


@pytest.mark.parametrize("kind", ["plain", "ties", "rank one", "all equal", "all want the same"])
@pytest.mark.parametrize("shape", [(16, 7, 12), (16, 12, 7)], ids=str)
def test_equals_scipy_with_empty_rows_anywhere(kind, shape):
    rng = np.random.default_rng(0)
    cost = costs(kind, rng, shape)
    valid = rng.random(shape[:2]) < 0.8
    valid[0], valid[1] = True, False
    found = np.asarray(solve(jnp.asarray(cost, jnp.float32), jnp.asarray(valid)))
    for c, rows, columns in zip(cost, valid, found, strict=True):
        assert (columns[~rows] == -1).all()
        best = linear_sum_assignment(c[rows])
        got = np.flatnonzero(columns >= 0)
        assert len(got) == len(best[0]) == len(set(columns[got].tolist()))
        np.testing.assert_allclose(c[got, columns[got]].sum(), c[rows][best].sum(), atol=1e-4)


def test_by_hand():
    # greedy would take 1 for the first row and leave 9 to the second
    cost = jnp.array([[[1.0, 2.0, 9.0], [1.0, 9.0, 9.0]]])
    assert solve(cost, jnp.ones((1, 2), bool)).tolist() == [[1, 0]]


def test_non_finite_costs_end_and_are_avoided():
    bad = jnp.array([[[jnp.nan, jnp.inf, 0.0], [jnp.nan, 1.0, 0.0]], [[jnp.nan] * 3] * 2])
    found = solve(bad, jnp.ones((2, 2), bool))
    assert found[0].tolist() == [2, 1]
    assert sorted(found[1].tolist()) != [-1, -1] and len(set(found[1].tolist())) == 2


def test_no_host_callback_and_no_gradient():
    cost, valid = jnp.ones((1, 1, 2, 3)), jnp.ones((1, 2), bool)
    assert "callback" not in str(jax.make_jaxpr(assign)(cost, valid))
    grad = jax.grad(lambda c: jnp.sum(c * (assign(c, valid)[..., None] == jnp.arange(3))))(cost)
    assert float(grad.sum()) == 2.0
