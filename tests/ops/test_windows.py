"""Window cutting and the constants of shifted windows, written out for small maps."""

import jax
import numpy as np

from vps_jax.ops import windows


def test_partition_is_row_major_inside_and_out():
    x = np.arange(4 * 6).reshape(1, 4, 6, 1)
    found = np.asarray(windows.partition(x, (2, 3)))
    assert found.shape == (1, 4, 6, 1)
    np.testing.assert_array_equal(found[0, 1, :, 0], [3, 4, 5, 9, 10, 11])
    np.testing.assert_array_equal(found[0, 2, :, 0], [12, 13, 14, 18, 19, 20])


def test_merge_undoes_partition_under_any_leading_axes():
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 6, 5)).astype(np.float32)
    np.testing.assert_array_equal(windows.merge(windows.partition(x, (4, 2)), (4, 2), (8, 6)), x)


def test_window_order_of_a_4x4_map():
    plain = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    np.testing.assert_array_equal(windows.window_order(4, 4, 2, 0).reshape(4, 4), plain)
    rolled = [[5, 6, 9, 10], [7, 4, 11, 8], [13, 14, 1, 2], [15, 12, 3, 0]]  # the first window starts at (1, 1)
    np.testing.assert_array_equal(windows.window_order(4, 4, 2, 1).reshape(4, 4), rolled)


def test_permute_and_its_gradient():
    rng = np.random.default_rng(0)
    order = rng.permutation(6)
    x, weights = rng.normal(size=(2, 2, 6, 3)).astype(np.float32)
    value, back = jax.vjp(lambda x: windows.permute(x, order, np.argsort(order)), x)
    np.testing.assert_array_equal(value, x[:, order])
    gradient = np.zeros_like(x)
    gradient[:, order] = weights
    np.testing.assert_array_equal(back(weights)[0], gradient)
    lowered = jax.jit(jax.grad(lambda x: (windows.permute(x, order, np.argsort(order)) * weights).sum())).lower(x)
    assert "scatter" not in lowered.as_text()


def test_relative_position_index_of_a_2x2_window():
    # rows of the 3x3 table: (dy + 1) * 3 + (dx + 1), dy and dx from the key (column) to the query (row)
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    np.testing.assert_array_equal(windows.relative_position_index(2), expected)


def test_shift_regions_of_a_4x4_map():
    # last window starts at 2, the last pixel came from the other side
    expected = [[0, 0, 0, 0], [1, 2, 1, 2], [3, 3, 6, 6], [4, 5, 7, 8]]
    np.testing.assert_array_equal(windows.shift_regions(4, 4, 2, 1), expected)
