import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.ops.relative_tables import beit_bias, beit_index


def test_index_of_a_2x2_grid_by_hand():
    # 9 distances in raster order (dy, dx from -1 to 1), then class query 9, class key 10, both 11
    expected = [
        [11, 9, 9, 9, 9],
        [10, 4, 3, 1, 0],  # patch (0, 0): itself, right neighbour (dx = -1), below (dy = -1), diagonal
        [10, 5, 4, 2, 1],
        [10, 7, 6, 4, 3],
        [10, 8, 7, 5, 4],
    ]
    np.testing.assert_array_equal(beit_index((2, 2)), expected)


@pytest.mark.parametrize("grid", [(2, 2), (3, 5), (6, 4)])
def test_bias_is_the_lookup(grid):
    h, w = grid
    table = np.random.default_rng(0).normal(size=((2 * h - 1) * (2 * w - 1) + 3, 3)).astype(np.float32)
    expected = table[beit_index(grid)].transpose(2, 0, 1)
    np.testing.assert_array_equal(jax.jit(beit_bias, static_argnums=1)(table, grid), expected)


def test_gradient_counts_the_pairs_of_every_distance():
    grid = (3, 4)
    rows = 5 * 7 + 3
    gradient = jax.jit(jax.grad(lambda t: beit_bias(t, grid).sum()))(jnp.zeros((rows, 1)))
    np.testing.assert_array_equal(np.asarray(gradient)[:, 0], np.bincount(beit_index(grid).ravel(), minlength=rows))


def test_gradient_has_no_scatter():
    jaxpr = jax.make_jaxpr(jax.grad(lambda t: (beit_bias(t, (4, 4)) ** 2).sum()))(jnp.zeros((52, 2)))
    assert "scatter" not in str(jaxpr)
