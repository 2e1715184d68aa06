"""Raw scores of the last prediction set, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax import tasks
from vps_jax.types import QueryOutputs

FEATURES = jnp.array([[[[[1.0, 0.0], [0.0, 1.0]]]]])  # one pixel for each channel, so logits are the queries


def sets(last):
    """Two prediction sets; the first one must not be looked at."""
    last = jnp.asarray(last, jnp.float32)[None]
    return jnp.stack([jnp.full_like(last, jnp.nan), last])


@pytest.mark.parametrize("name", ["panoptic", "instance"])
def test_instances_and_semantic_map(name):
    embeds = {"instance": sets([[1, 2], [3, 4], [5, 6]]), "semantic": sets([[7, 8], [9, 10]])}
    embeds["background"] = sets([[20, -1], [-1, 30]])
    outputs = QueryOutputs(FEATURES, embeds, sets([[0, 1, 2]] * 3), None)
    found = tasks.make_task(name, num_classes=2).decode(outputs)
    assert found.instance_masks[0, :, 0, 0].tolist() == [[1, 2], [3, 4], [5, 6]]  # [b, q, t, h4, w4]
    assert found.instance_classes.tolist() == [[[0, 1, 2]] * 3]
    semantic = [[7, 8], [9, 10]] if name == "panoptic" else [[20, 30], [7, 8], [9, 10]]
    assert found.semantic[0, :, 0, 0].tolist() == semantic


def test_semantic_alone():
    found = tasks.make_task("semantic", num_classes=1).decode(
        QueryOutputs(FEATURES, {"semantic": sets([[7, 8]])}, None, None)
    )
    assert found.instance_masks is None and found.instance_classes is None
    assert found.semantic[0, :, 0, 0].tolist() == [[7, 8]]


def test_vos_takes_the_largest_of_an_objects_queries():
    mask_object = [[i, -i] for i in range(8)]
    outputs = QueryOutputs(
        FEATURES, {"background_vos": sets([[1, 5], [2, 4]]), "vos": sets([*mask_object, [11, 12]])}, None, None
    )
    found = tasks.make_task("vos").decode(outputs, point_objects=1)
    assert found.instance_masks[0, :, 0, 0].tolist() == [[7, 0], [11, 12]]
    assert found.semantic[0, :, 0, 0].tolist() == [[2, 5]]


def test_mask_classification_sums_probabilities():
    class_logits = sets([[0, 0, -100], [0, -100, -100]])  # the last one is no object
    outputs = QueryOutputs(FEATURES, {"object": sets([[0, 100], [100, -100]])}, class_logits, None)
    found = tasks.make_task("mask_classification", num_classes=2).decode(outputs)
    np.testing.assert_allclose(found.semantic[0, :, 0, 0], [[0.25 + 1, 0.5], [0.25, 0.5]], atol=1e-6)
    assert found.instance_masks is None and found.instance_classes is None
