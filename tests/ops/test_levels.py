import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.ops.levels import flatten_levels, slice_levels, split_levels


@pytest.mark.parametrize("cut", [split_levels, slice_levels])
def test_levels_are_cut_in_order(cut):
    tokens = jnp.arange(6.0).reshape(1, 6, 1)
    first, second = cut(tokens, ((2, 2), (1, 2)))
    np.testing.assert_array_equal(first[0, :, :, 0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(second[0, :, :, 0], [[4, 5]])


@pytest.mark.parametrize("cut", [split_levels, slice_levels])
def test_flattening_is_undone_under_any_leading_axes(cut):
    maps = [jnp.arange(2.0 * 3 * h * w * 4).reshape(2, 3, h, w, 4) for h, w in ((2, 1), (3, 2))]
    tokens = flatten_levels(maps)
    assert tokens.shape == (2, 3, 8, 4)
    for ours, given in zip(cut(tokens, ((2, 1), (3, 2))), maps, strict=True):
        np.testing.assert_array_equal(ours, given)
