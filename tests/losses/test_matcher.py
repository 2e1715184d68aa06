"""Matching costs against a slow dense twin."""

import dense_twin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.losses import matcher
from vps_jax.losses.mask_losses import Objects

D, B, T, Q, N, K, C, P = 2, 2, 2, 5, 3, 4, 6, 7


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    features, embeds = rng.normal(size=(B, T, 3, 4, C)), rng.normal(size=(D, B, Q, C))
    class_logits, ids = rng.normal(size=(D, B, Q, K)), rng.integers(0, 1 + N, (B, T, 6, 8))
    labels = rng.integers(0, K, (B, N)).astype(np.int32)
    valid = np.array([[True, False, True], [True, True, True]])
    arrays = [jnp.asarray(a, jnp.float32) for a in (features, embeds, class_logits)]
    objects = Objects(jnp.asarray(ids), jnp.asarray(labels), jnp.asarray(valid))
    return arrays, objects, jnp.asarray(rng.random((D, B, P, 2)), jnp.float32)


def twin(arrays, objects, points):
    """Costs `[3, d, b, n, q]` from full masks."""
    features, embeds, class_logits = (np.asarray(a, np.float64) for a in arrays)
    costs = np.zeros((3, D, B, N, Q))
    for d, b, n, q in np.ndindex(D, B, N, Q):
        masks = features[b] @ embeds[d, b, q]  # [t, h, w]
        x = np.concatenate([dense_twin.samples(masks[t], points[d, b]) for t in range(T)])
        y = np.concatenate([dense_twin.samples(np.asarray(objects.ids[b, t]) == n + 1, points[d, b]) for t in range(T)])
        probability = dense_twin.softmax(class_logits[d, b, q])[objects.labels[b, n]]
        costs[:, d, b, n, q] = -probability, dense_twin.cross_entropy(x, y), dense_twin.dice(x, y)
    return costs


def test_costs_equal_the_twin(case):
    arrays, objects, points = case
    costs = jax.jit(matcher.matching_costs)(*arrays, objects, points)
    np.testing.assert_allclose(np.stack(costs), twin(arrays, objects, np.asarray(points)), rtol=2e-5, atol=2e-6)


def test_one_draw_serves_all_sets(case):
    arrays, objects, points = case
    run = jax.jit(matcher.matching_costs)
    shared = run(*arrays, objects, points[:1])
    every = run(*arrays, objects, jnp.concatenate([points[:1]] * D))
    np.testing.assert_allclose(np.stack(shared), np.stack(every), atol=1e-5)


def test_total_and_match(case):
    arrays, objects, points = case
    costs = matcher.Costs(jnp.float32(1), jnp.float32(10), jnp.float32(100))
    assert costs.total(2.0, 5.0, 3.0) == 2 + 50 + 300
    match = jax.jit(matcher.match, static_argnames="weights")
    columns = np.asarray(match(*arrays, objects, points, weights=(2.0, 5.0, 5.0)))
    total = np.einsum("i,idbnq->dbnq", [2, 5, 5], twin(arrays, objects, np.asarray(points)))
    for d, b in np.ndindex(D, B):
        rows = np.flatnonzero(objects.valid[b])
        assert (columns[d, b][~np.asarray(objects.valid[b])] == -1).all()
        best = min(
            sum(total[d, b, r, q] for r, q in zip(rows, queries, strict=True))
            for queries in np.ndindex(*[Q] * len(rows))
            if len(set(queries)) == len(rows)
        )
        np.testing.assert_allclose(sum(total[d, b, r, columns[d, b, r]] for r in rows), best, rtol=1e-5)


def test_statistics_of_an_assignment_by_hand():
    """Three sets of two clips: the first has two objects, then three; the second one, and none after it."""
    columns = jnp.array([[[0, 1, -1], [4, -1, -1]], [[0, 2, 3], [-1, -1, -1]], [[-1] * 3, [-1] * 3]])
    found = matcher.statistics(columns)
    np.testing.assert_allclose(found["matched/objects"], [3 / 2, 3 / 2, 0])
    np.testing.assert_allclose(found["matched/same_query"], [1, 1 / 3, 0])
