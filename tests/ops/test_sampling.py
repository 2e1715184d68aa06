"""Point sampling against values worked out by hand and a slow loop."""

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.ops import sampling

bilinear, nearest, corner_ids = map(jax.jit, (sampling.bilinear, sampling.nearest, sampling.corner_ids))
candidates = jax.jit(sampling.candidates, static_argnums=2)


def slow_bilinear(image, x, y):
    height, width = image.shape
    total = 0.0
    px, py = x * width - 0.5, y * height - 0.5
    for cy in (int(np.floor(py)), int(np.floor(py)) + 1):
        for cx in (int(np.floor(px)), int(np.floor(px)) + 1):
            if 0 <= cx < width and 0 <= cy < height:
                total += image[cy, cx] * (1 - abs(px - cx)) * (1 - abs(py - cy))
    return total


def test_bilinear_by_hand():
    image = jnp.array([[0.0, 10.0], [20.0, 30.0]])[..., None]
    points = jnp.array([[0.25, 0.25], [0.5, 0.5], [0.75, 0.5], [0.0, 0.25], [0.0, 0.0]])
    # a pixel centre; the middle; between the right pixels; half outside (zero); three quarters outside
    np.testing.assert_allclose(np.asarray(bilinear(image, points))[:, 0], [0, 15, 20, 0, 0], atol=1e-6)
    np.testing.assert_allclose(np.asarray(bilinear(image + 4, points))[3:, 0], [2, 1], atol=1e-6)


def test_bilinear_equals_a_loop_with_leading_axes():
    rng = np.random.default_rng(0)
    maps, points = rng.normal(size=(2, 3, 5, 7, 4)), rng.random((2, 3, 11, 2))
    values = np.asarray(bilinear(maps, points))
    assert values.shape == (2, 3, 11, 4)
    for b, t, p, c in ((0, 0, 0, 0), (1, 2, 10, 3), (0, 1, 5, 2)):
        np.testing.assert_allclose(values[b, t, p, c], slow_bilinear(maps[b, t, :, :, c], *points[b, t, p]), atol=1e-5)


def test_corner_ids_give_the_bilinear_value_of_every_mask():
    rng = np.random.default_rng(1)
    ids, points = rng.integers(0, 4, (2, 6, 5)), rng.random((2, 40, 2))
    around, weight = corner_ids(jnp.asarray(ids), jnp.asarray(points))
    for i in range(4):
        soft = np.sum(np.where(np.asarray(around) == i, weight, 0), axis=0)
        dense = np.asarray(bilinear((ids == i).astype(np.float32)[..., None], points))[..., 0]
        np.testing.assert_allclose(soft, dense, atol=1e-6)


def test_nearest_by_hand():
    image = jnp.arange(12).reshape(3, 4)
    points = jnp.array([[0.0, 0.0], [0.99999994, 0.99999994], [0.4, 0.4], [0.25, 0.5], [0.5, 0.5]])
    # x = .25 * 4 - .5 = .5 goes to 0, x = .5 * 4 - .5 = 1.5 to 2: halves go to the even pixel
    assert nearest(image, points).tolist() == [0, 11, 5, 4, 6]


def test_one_pixel_map():
    image = jnp.full((1, 1, 1), 8.0)
    assert bilinear(image, jnp.array([[0.5, 0.5], [0.0, 0.5]]))[:, 0].tolist() == [8.0, 4.0]
    assert nearest(image[..., 0], jnp.array([[0.0, 0.99]])).tolist() == [8.0]


def test_class_uncertainty_is_second_minus_first():
    logits = jnp.array([[1.0, 5.0, 3.0], [2.0, 2.0, -1.0]])
    assert sampling.class_uncertainty(logits).tolist() == [-2.0, 0.0]


def test_most_uncertain_keeps_three_quarters_and_the_fresh():
    points = np.arange(24, dtype=np.float32).reshape(12, 2) / 24  # 3 p candidates, p = 4
    uncertainty = -np.array([5, 1, 4, 2, 9, 9, 9, 9, 0, 9, 9, 9], np.float32)
    fresh = np.array([[0.5, 0.5]], np.float32)
    kept = jax.jit(sampling.most_uncertain)(uncertainty, points, fresh)
    np.testing.assert_array_equal(kept, np.concatenate([points[[1, 3, 8]], fresh]))


def test_candidates_have_the_published_counts():
    for kept, drawn, fresh in ((12544, 37632, 3136), (50176, 150528, 12544), (25088, 75264, 6272)):
        base, shift = jnp.zeros((1, sampling.num_candidates(kept), 2)), jnp.zeros((1, 3, 2))
        first, second = jax.eval_shape(lambda b, s, n=kept: sampling.candidates(b, s, n), base, shift)
        assert first.shape == (1, 3, drawn, 2) and second.shape == (1, 3, fresh, 2)


def test_candidates_are_the_base_shifted_around_the_torus():
    base = jnp.array([[[0.0, 0.5], [0.25, 0.75], [0.5, 0.0], [0.75, 0.25]]])  # p = 1: 3 candidates, 1 fresh
    first, second = candidates(base, jnp.array([[[0.5, 0.0], [0.25, 0.5]]]), 1)
    np.testing.assert_allclose(second[0], [[[0.5, 0.5]], [[0.25, 0.0]]])
    np.testing.assert_allclose(first[0, 1], [[0.5, 0.25], [0.75, 0.5], [0.0, 0.75]])


def test_draw_is_uniform_and_by_sample_number():
    key = jax.random.key(3)
    two = jax.tree.map(np.asarray, jax.jit(sampling.draw, static_argnums=(1, 2, 3, 4))(key, 2, 3, 400, ((5, 2), (2,))))
    assert two.base.shape == (2, 1300, 2)
    assert [s.shape for s in two.shifts] == [(3, 2, 5, 2, 2), (3, 2, 2, 2)]
    assert not np.any(two.base[0] == two.base[1]) and np.unique(two.shifts[0]).size == two.shifts[0].size
    assert abs(float(two.base.mean()) - 0.5) < 0.02 and abs(float(two.base.std()) - 12**-0.5) < 0.02
    first = np.asarray(candidates(two.base, two.shifts[0][0], 400)[0])
    assert first.min() >= 0 and first.max() < 1 and abs(float(first.mean()) - 0.5) < 0.02
