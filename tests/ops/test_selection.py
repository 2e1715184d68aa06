"""The largest of many numbers without a sort, against `jax.lax.top_k`."""

import jax
import numpy as np
import pytest

from vps_jax.ops.selection import BLOCK, largest


@pytest.mark.parametrize("count", [1, 40, 3 * BLOCK - 7])
def test_the_places_are_those_of_a_sort(count):
    """Ties at the threshold too: most values come several times."""
    rng = np.random.default_rng(count)
    values = rng.integers(-20, 20, (2, 3, 3 * BLOCK - 7)) / np.float32(4)
    values[0, 0] = rng.standard_normal(values.shape[-1])
    values[0, 1] = -1000.0
    found = jax.jit(largest, static_argnums=1)(values, count)
    np.testing.assert_array_equal(found, np.sort(jax.lax.top_k(values, count)[1], axis=-1))


def test_zeros_infinities_and_numbers_that_are_none():
    """The order is that of a sort: -0 before 0; NaN is larger than infinity, with its sign less than minus infinity."""
    values = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45], np.float32)
    ordered = np.asarray(jax.lax.top_k(values, len(values))[1])
    for count in range(1, len(values) + 1):
        found = jax.jit(largest, static_argnums=1)(values, count)
        np.testing.assert_array_equal(found, np.sort(ordered[:count]))
