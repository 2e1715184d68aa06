"""The deformable-attention layer: published initialisation, and its place between projections."""

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.models import deformable_layer as layer
from vps_jax.ops import deformable_attention as ops

SHAPES = ((2, 3), (4, 6))


def test_offsets_start_along_one_direction_per_head():
    bias = layer.offset_bias(8, 2, 3).reshape(8, 2, 3, 2)
    np.testing.assert_allclose(bias[0, 1], [[1, 0], [2, 0], [3, 0]], atol=1e-6)
    np.testing.assert_allclose(bias[1, 0], [[1, 1], [2, 2], [3, 3]], atol=1e-6)
    np.testing.assert_allclose(bias[6, 0], [[0, -1], [0, -2], [0, -3]], atol=1e-5)
    np.testing.assert_array_equal(bias[:, 0], bias[:, 1])


def test_a_fresh_layer_averages_values_along_its_directions():
    attention = layer.MultiScaleDeformableAttention(num_heads=4, num_levels=2, num_points=2, value_ratio=0.5)
    rng = np.random.default_rng(0)
    query, features = (rng.normal(size=(2, n, 16)).astype(np.float32) for n in (5, 30))
    reference = rng.uniform(size=(5, 2)).astype(np.float32)
    params = jax.jit(lambda: attention.init(jax.random.key(0), query, reference, features, SHAPES))()
    p = params["params"]
    assert {k: v["kernel"].shape for k, v in p.items()} == {
        "value_proj": (16, 8),
        "sampling_offsets": (16, 4 * 2 * 2 * 2),
        "attention_weights": (16, 4 * 2 * 2),
        "output_proj": (8, 16),
    }

    @jax.jit
    def both(p):
        value = (features @ p["value_proj"]["kernel"]).reshape(2, 30, 4, 2)
        size = np.array(SHAPES)[:, None, ::-1]
        offsets = layer.offset_bias(4, 2, 2).reshape(4, 2, 2, 2) / size
        at = jnp.broadcast_to(reference[:, None, None, None] + offsets, (2, 5, 4, 2, 2, 2))
        mean = ops.deformable_attention(value, at, jnp.full(at.shape[:-1], 0.25), shapes=SHAPES)
        by_hand = mean.reshape(2, 5, 8) @ p["output_proj"]["kernel"]
        return attention.apply({"params": p}, query, reference, features, SHAPES), by_hand

    found, expected = both(p)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_reference_points_may_differ_between_samples():
    attention = layer.MultiScaleDeformableAttention(num_heads=2, num_levels=2)
    rng = np.random.default_rng(1)
    query, features = (rng.normal(size=(2, n, 8)).astype(np.float32) for n in (3, 30))
    reference = rng.uniform(size=(2, 3, 2)).astype(np.float32)

    @jax.jit
    def both():
        params = attention.init(jax.random.key(0), query, reference, features, SHAPES)
        together = attention.apply(params, query, reference, features, SHAPES)
        alone = [attention.apply(params, query[i : i + 1], reference[i], features[i : i + 1], SHAPES) for i in (0, 1)]
        return together, jnp.concatenate(alone)

    together, alone = both()
    np.testing.assert_allclose(together, alone, atol=1e-6)
