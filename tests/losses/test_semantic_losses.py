"""The semantic loss against values worked out by hand and a slow twin."""

import functools

import dense_twin
import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.losses import semantic_losses
from vps_jax.types import IGNORE

D, B, T, K, C, P = 1, 2, 2, 4, 3, 8


def test_background_comes_first_and_is_the_largest():
    features = jnp.array([[[1.0, 0.0]]])  # [b, p, c]
    logits = semantic_losses.semantic_logits(
        features, jnp.array([[[2.0, 9], [3, 9]]]), jnp.array([[[5.0, 0], [7, 0], [6, 0]]])
    )
    assert logits.tolist() == [[[7.0, 2.0, 3.0]]]


def test_point_sums_by_hand():
    logits = jnp.array([[[0.0, 0.0], [3.0, 4.0], [0.0, 100.0]]])
    sums = semantic_losses.point_sums(logits, jnp.array([[0, IGNORE, 0]]))
    np.testing.assert_allclose(sums.ce, [np.log(2) + 100], rtol=1e-6)
    assert sums.labelled.tolist() == [2] and sums.points.tolist() == [3]
    np.testing.assert_allclose(sums.norm, [0 + 5 + 100])


def test_weights_of_classes_by_hand():
    """Eight pixels of class 2 in both clips together, two of class 0, none of class 1; void does not count."""
    labels = jnp.array([[[[2, 2, 2], [2, 2, IGNORE]]], [[[0, 2, 2], [0, 2, IGNORE]]]])
    for power, expected in ((0.0, [1, 1, 1]), (0.5, [2, 8**0.5, 1]), (1.0, [4, 8, 1])):
        weights = semantic_losses.class_weights(labels, 3, power)
        np.testing.assert_allclose(weights, [expected] * 2, rtol=1e-6)
    logits = jnp.zeros((1, 3, 2))
    sums = semantic_losses.point_sums(logits, jnp.array([[0, IGNORE, 1]]), None, jnp.array([[3.0, 5.0]]))
    np.testing.assert_allclose(sums.ce, [8 * np.log(2)], rtol=1e-6)
    assert sums.labelled.tolist() == [8] and sums.points.tolist() == [3]


def test_gradient_at_zero_logits_is_finite():
    norm = lambda x: jnp.sum(semantic_losses.point_sums(x, jnp.array([[0]])).norm)  # noqa: E731
    assert not np.any(jax.jit(jax.grad(norm))(jnp.zeros((1, 1, 3))))


def test_ignored_cells_are_avoided():
    ignored = np.zeros((1, 8, 8), bool)
    ignored[:, :, :4] = True
    logits = jax.random.normal(jax.random.key(1), (1, 8, 8, 3))
    base = jax.random.uniform(jax.random.key(0), (1, 26, 2))  # p = 8: 24 candidates and 2 fresh
    uncertain_points = jax.jit(semantic_losses.uncertain_points, static_argnums=4)
    points = np.asarray(uncertain_points(logits, ignored, base, np.zeros((1, 2), np.float32), 8))
    free = np.asarray(base)[0, 2:, 0] > 4.5 / 8
    assert free.sum() >= 6 and np.all(points[0, :6, 0] > 4.5 / 8)


def test_pieces_keep_order_and_size():
    points = jnp.arange(2 * 50176 * 2).reshape(2, 50176, 2)
    pieces = semantic_losses.in_pieces(points)
    assert pieces.shape == (4, 2, 12544, 2)
    np.testing.assert_array_equal(pieces.swapaxes(0, 1).reshape(points.shape), points)
    assert semantic_losses.in_pieces(points[:, :1]).shape == (1, 2, 1, 2)


def case(rng):
    features, embeds = rng.normal(size=(B, T, 4, 4, C)), rng.normal(size=(D, B, K, C))
    labels = rng.integers(0, K - 1, (B, T, 16, 16)).astype(np.int32)  # the last class never occurs
    labels[0, 0, :8] = IGNORE
    return features, embeds, labels, rng.random((D, B, T, P, 2))


def twin(features, embeds, labels, points, null):
    """Cross entropy and number of labelled points `[b]` of the only set; null classes bool `[b, k]`."""
    ce, count = np.zeros(B), np.zeros(B)
    for b, t, p in np.ndindex(B, T, P):
        maps = np.moveaxis(features[b, t] @ embeds[0, b].T, -1, 0)
        logits = np.array([dense_twin.sample(m, points[0, b, t, p]) for m in maps])
        x, y = np.round(points[0, b, t, p] * 16 - 0.5).astype(int)
        logits[null[b]] = -1000
        if labels[b, t, y, x] != IGNORE:
            ce[b] -= np.log(dense_twin.softmax(logits)[labels[b, t, y, x]])
            count[b] += 1
    return ce, count


def run(features, embeds, labels, points, **options):
    f, e, p = (jnp.asarray(a, jnp.float32) for a in (features, embeds, points))
    of_set = functools.partial(semantic_losses.set_sums, f, num_points=P, **options)
    sums = [of_set(e[d], None, jnp.asarray(labels), points=p[d]) for d in range(D)]
    return jax.tree.map(lambda *a: jnp.stack(a), *sums)


def test_sums_equal_the_twin():
    arrays = case(np.random.default_rng(0))
    sums = jax.jit(lambda: run(*arrays, ignore_null_classes=False, group=1))()
    ce, count = twin(*arrays, np.zeros((B, K), bool))
    assert 0 < count[0] < T * P == count[1]
    np.testing.assert_allclose(sums.ce[0], ce, rtol=1e-5)
    np.testing.assert_array_equal(sums.labelled[0], count)


def test_null_classes_leave_the_softmax_of_their_group():
    features, embeds, labels, points = case(np.random.default_rng(1))
    features[..., 0] = 1
    embeds[0, 0, K - 1] = [-9, 0, 0]  # nowhere the best in sample 0,
    embeds[0, 1, K - 1] = [9, 0, 0]  # everywhere in sample 1
    embeds[0, :, : K - 1, 0] = 0
    arrays = features, embeds, labels, points
    null = np.zeros((B, K), bool)
    together = jax.jit(lambda: run(*arrays, ignore_null_classes=True, group=2))()
    np.testing.assert_allclose(together.ce[0], twin(*arrays, null)[0], rtol=1e-5)
    null[0, K - 1] = True
    alone = jax.jit(lambda: run(*arrays, ignore_null_classes=True, group=1))()
    np.testing.assert_allclose(alone.ce[0], twin(*arrays, null)[0], rtol=1e-5)
    assert alone.ce[0, 0] < together.ce[0, 0]
