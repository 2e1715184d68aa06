"""Means over clips and groups, and the class loss, by hand."""

import jax.numpy as jnp
import numpy as np

from vps_jax.losses import set_loss
from vps_jax.losses.mask_losses import Objects


def test_group_mean_by_hand():
    total, count = jnp.array([[1.0, 6.0, 0.0, 8.0]]), jnp.array([[1.0, 2.0, 0.0, 2.0]])
    np.testing.assert_allclose(set_loss.group_mean(total, count, 1), [(1 + 3 + 0 + 4) / 4])
    np.testing.assert_allclose(set_loss.group_mean(total, count, 2), [(7 / 3 + 4) / 2])
    np.testing.assert_allclose(set_loss.group_mean(total, count, None), [15 / 5])


def test_mean_objects_by_hand():
    valid = jnp.array([[1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 0, 0]], bool)
    assert set_loss.mean_objects(valid, 1) == 1.25
    assert set_loss.mean_objects(valid, 2) == 2.5
    assert set_loss.mean_objects(valid[1:2], 1) == 1


def test_class_terms_by_hand():
    # two samples of two queries and two classes after the null class; uniform logits cost log 3 wherever they are
    logits = jnp.zeros((1, 2, 2, 3)).at[0, 0, 1, 2].set(10.0)
    objects = Objects(None, jnp.array([[2, 1], [1, 1]]), jnp.array([[True, False], [False, False]]))
    columns = jnp.array([[[1, -1], [-1, -1]]])
    found = set_loss.class_terms(logits, columns, objects, null=0, null_weight=0.1, group=1)
    right = np.log(1 + 2 * np.exp(-10.0))  # query 1 of the first sample says class 2 and is to
    expected = ((0.1 * np.log(3) + right) / 1.1 + np.log(3)) / 2
    np.testing.assert_allclose(found, [expected], rtol=1e-5)
    together = set_loss.class_terms(logits, columns, objects, null=0, null_weight=0.1, group=None)
    np.testing.assert_allclose(together, [(0.3 * np.log(3) + right) / 1.3], rtol=1e-5)


def test_class_terms_with_null_last():
    logits = jnp.array([[[[0.0, 0.0, 5.0]]]])
    objects = Objects(None, jnp.array([[0]]), jnp.array([[True]]))
    unmatched = set_loss.class_terms(logits, jnp.array([[[-1]]]), objects, null=2, null_weight=0.1, group=1)
    matched = set_loss.class_terms(logits, jnp.array([[[0]]]), objects, null=2, null_weight=0.1, group=1)
    np.testing.assert_allclose(unmatched, [np.log(1 + 2 * np.exp(-5.0))], rtol=1e-5)
    np.testing.assert_allclose(matched - unmatched, [5.0], rtol=1e-5)
