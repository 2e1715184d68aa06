"""Products of features and queries, id tables, and distances, by hand and against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from vps_jax.ops import masks


def test_mask_logits_are_float32_products():
    features = jnp.arange(12.0, dtype=jnp.bfloat16).reshape(1, 2, 3, 2)
    logits = masks.mask_logits(features, jnp.array([[[1, 0], [10, 1]]], jnp.bfloat16))
    assert logits.shape == (1, 2, 3, 2) and logits.dtype == jnp.float32
    assert logits[0, 1, 0].tolist() == [6, 67]


def test_look_up_takes_the_samples_own_table():
    ids = np.array([[0, 2, 5], [1, -1, 3]])
    table = np.array([[10, 11, 12], [20, 21, 22]])
    assert jax.jit(masks.look_up, static_argnums=2)(ids, table, -7).tolist() == [[10, 12, -7], [21, -7, -7]]


def test_ids_present():
    ids = np.array([[[0, 2], [2, 9]], [[3, 1], [-4, 0]]])
    assert jax.jit(masks.ids_present, static_argnums=1)(ids, 3).tolist() == [[False, True, False], [True, False, True]]


def test_quarter_needs_three_of_the_four_centre_pixels():
    flags = np.ones((4, 12), bool)
    flags[1, 5] = False  # second block: three remain
    flags[1:3, 10] = False  # third block: two remain
    flags[0, :] = flags[:, 0] = False  # borders do not count
    assert jax.jit(masks.quarter)(flags).tolist() == [[True, True, False]]


def test_squared_distance_equals_scipy():
    mask = ndimage.binary_dilation(np.random.default_rng(0).random((17, 23)) > 0.95, iterations=4)
    mask[:3] = True
    expected = ndimage.distance_transform_edt(mask) ** 2
    np.testing.assert_allclose(jax.jit(masks.squared_distance)(mask), expected, atol=1e-3)


def test_inmost_point_takes_the_most_central_of_equals():
    mask = np.zeros((8, 16), bool)
    mask[2:5, 1:10] = True  # every pixel of the middle row but the ends is as deep
    inmost_point = jax.jit(masks.inmost_point)
    np.testing.assert_allclose(inmost_point(mask), [3.5 / 8, 5.5 / 16])
    assert inmost_point(np.zeros((8, 16), bool)).tolist() == [0, 0]
