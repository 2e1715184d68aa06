"""The one-pass loss of matched masks against the same loss from full masks, differentiated by jax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.losses.assigned_masks import matched_loss
from vps_jax.losses.mask_losses import Objects, row_losses

D, B, T, Q, N, C, P = 2, 2, 2, 12, 11, 5, 6  # 11 rows: two chunks


def plain(features, embeds, columns, objects, scale, points):
    """Sums `[d, 2, b]` and the loss, without chunks, order or a gradient of its own."""
    sums = []
    for d in range(D):
        chosen = jnp.take_along_axis(embeds[d], jnp.maximum(columns[d], 0)[..., None], axis=1)
        logits = jnp.einsum("bthwc,bnc->bnthw", features, chosen)
        rows = jnp.broadcast_to(jnp.arange(N), (B, N))
        per_row = row_losses(logits, rows, objects, P, points=points[d])
        sums.append(jnp.sum(jnp.where(columns[d] >= 0, per_row, 0), axis=-1))
    sums = jnp.stack(sums)
    return jnp.sum(sums * scale[:, None], axis=(0, 1)), sums


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    features, embeds = rng.normal(size=(B, T, 4, 6, C)), rng.normal(size=(D, B, Q, C))
    columns = np.stack([[rng.permutation(Q)[:N] for _ in range(B)] for _ in range(D)])
    columns[:, 0, 2:] = -1  # two objects in one sample,
    columns[:, 1, ::5] = -1  # eight in the other, holes between
    ids = rng.integers(0, 1 + N, (B, T, 8, 12))
    objects = Objects(jnp.asarray(ids), jnp.zeros((B, N), jnp.int32), jnp.asarray(columns[0] >= 0))
    args = jnp.asarray(features, jnp.float32), jnp.asarray(embeds, jnp.float32), jnp.asarray(columns, jnp.int32)
    return args, objects, jnp.asarray(rng.random((D, B, N, T, P, 2)), jnp.float32)


def gradient(function):
    """Of the sum over samples: `((sum, (loss [b], sums)), gradients of features and embeds)`."""

    def total(*args):
        loss, sums = function(*args)
        return jnp.sum(loss), (loss, sums)

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))


def test_loss_sums_and_gradient(case):
    args, objects, points = case
    scale = jnp.array([0.5, 2.0])
    ours = gradient(lambda f, e, c: matched_loss(f, e, c, objects, scale, P, points=points))(*args)
    theirs = gradient(lambda f, e, c: plain(f, e, c, objects, scale, points))(*args)
    assert theirs[0][1][0].shape == (B,) and float(theirs[0][0]) > 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


def test_slopes_scale_the_gradient_by_sample_and_sums_have_none(case):
    (features, embeds, columns), objects, points = case

    def weighted(features, slopes, of_sums):
        loss, sums = matched_loss(features, embeds, columns, objects, jnp.ones(2), P, points=points)
        return jnp.sum(slopes * loss) + of_sums * jnp.sum(sums)

    grad = jax.jit(jax.grad(weighted))
    slopes = jnp.array([3.0, -2.0])
    one, other = grad(features, jnp.ones(2), 0.0), grad(features, slopes, 7.0)
    np.testing.assert_allclose(other, slopes[:, None, None, None, None] * one, rtol=1e-5)


def test_no_objects_no_loss_no_gradient(case):
    (features, embeds, columns), objects, _ = case
    base, shifts = jax.random.uniform(jax.random.key(0), (B, 20, 2)), jnp.zeros((D, B, N, T, 2))
    run = gradient(lambda f, e, c: matched_loss(f, e, c, objects, jnp.ones(2), P, base=base, shifts=shifts))
    (loss, (_, sums)), grads = run(features, embeds, jnp.full_like(columns, -1))
    assert loss == 0 and not sums.any() and not any(g.any() for g in grads)
    (loss, _), grads = run(features, embeds, columns)  # the same program, with points of its own
    assert loss > 0 and all(jnp.isfinite(g).all() and g.any() for g in grads)
