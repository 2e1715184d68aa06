"""Mask losses at points against values worked out by hand and a slow twin."""

import dense_twin
import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.losses import mask_losses


def objects_of(ids, rows, overlaps=None):
    batch = ids.shape[0]
    return mask_losses.Objects(ids, jnp.zeros((batch, rows), jnp.int32), jnp.ones((batch, rows), bool), overlaps)


def test_cross_entropy_by_hand():
    found = mask_losses.binary_cross_entropy(
        jnp.array([0.0, 0.0, 100.0, -100.0, 100.0]), jnp.array([1.0, 0.5, 1.0, 1.0, 0.25])
    )
    np.testing.assert_allclose(found, [np.log(2), np.log(2), 0, 100, 75], rtol=1e-6)


def test_dice_by_hand():
    # s = 1/2 twice, labels 1 and 0: 1 - (2 * .5 + 1) / (1 + 1 + 1)
    np.testing.assert_allclose(mask_losses.dice(jnp.zeros(2), jnp.array([1.0, 0.0])), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(mask_losses.dice(jnp.full(3, -100.0), jnp.zeros(3)), 0, atol=1e-6)


def test_labels_of_rows_background_and_overlaps():
    ids = jnp.array([[[[0, 1], [2, 2]]]])  # [b, t, h, w]
    points = jnp.broadcast_to(jnp.array([[0.5, 0.5], [0.75, 0.25]]), (1, 3, 1, 2, 2))
    rows = jnp.array([[-1, 0, 1]])
    labels_at = jax.jit(mask_losses.labels_at)
    labels = labels_at(objects_of(ids, 2), rows, points)
    np.testing.assert_allclose(labels[0, :, 0], [[0.25, 0], [0.25, 1], [0.5, 0]])
    # id 2 is where both objects are; the last column is the background
    table = jnp.array([[[0, 0, 1], [1, 0, 0], [1, 1, 0]]], bool)
    labels = labels_at(objects_of(ids, 2, table), rows, points)
    np.testing.assert_allclose(labels[0, :, 0], [[0.25, 0], [0.75, 1], [0.5, 0]])


def test_row_losses_equal_the_twin():
    rng = np.random.default_rng(0)
    ids, logits = rng.integers(0, 3, (2, 2, 8, 12)), rng.normal(size=(2, 2, 2, 4, 6))
    points, rows = rng.random((2, 2, 2, 9, 2)), np.array([[1, 0], [0, 1]])
    given = [jnp.asarray(a, jnp.float32) for a in (logits, points)]
    objects = objects_of(jnp.asarray(ids), 2)
    found = jax.jit(lambda x, p: mask_losses.row_losses(x, jnp.asarray(rows), objects, 9, points=p))(*given)
    for b in range(2):
        for r in range(2):
            per_frame = []
            for t in range(2):
                x = dense_twin.samples(logits[b, r, t], points[b, r, t])
                y = dense_twin.samples(ids[b, t] == rows[b, r] + 1, points[b, r, t])
                per_frame.append((dense_twin.cross_entropy(x, y), dense_twin.dice(x, y)))
            np.testing.assert_allclose(found[:, b, r], np.mean(per_frame, axis=0), rtol=1e-5)


def test_points_gather_at_the_edge_of_the_mask():
    x = np.linspace(-1, 1, 16, dtype=np.float32)
    logits = np.broadcast_to(20 * x, (1, 1, 1, 16, 16))
    base = jax.random.uniform(jax.random.key(0), (1, 13 * 64 // 4, 2))
    uncertain_points = jax.jit(mask_losses.uncertain_points, static_argnums=3)
    points = np.asarray(uncertain_points(logits, base, np.zeros((1, 1, 1, 2), np.float32), 64))[0, 0, 0]
    distance = np.abs(points[:, 0] - 0.5)
    assert points.shape == (64, 2)
    # 48 of 192 uniform candidates, those nearest to the edge, reach about 1/8 to either side
    assert np.all(distance[:48] < 0.17) and np.max(distance[48:]) > 0.3
