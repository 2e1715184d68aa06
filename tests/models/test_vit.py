import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vps_jax.models.initializers import linear_init
from vps_jax.models.vit import (
    IN_TURN,
    BEiTAttention,
    Block,
    ViTAttention,
    attend,
    position_map,
    run_blocks,
    stacked_init,
)
from vps_jax.ops.relative_tables import beit_index

RNG = np.random.default_rng(0)


def random_like(tree):
    return jax.tree.map(lambda a: RNG.normal(size=a.shape).astype(np.float32) * 0.3, tree)


def params_of(module, *args):
    return random_like(jax.eval_shape(lambda: module.init(jax.random.key(0), *args))["params"])


def output_of(module, params, x):
    return jax.jit(module.apply)({"params": params}, x)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def slow_attention(q, k, v, bias=0.0):
    """One head: `[n, d]` each."""
    return softmax(q @ k.T / np.sqrt(q.shape[-1]) + bias) @ v


@pytest.mark.parametrize("window", [0, 2, 3])
def test_windows_are_filled_with_zero_keys_that_count(window):
    h, w, heads, d = 3, 4, 2, 3
    x = RNG.normal(size=(1, h * w, heads * d)).astype(np.float32)
    module = ViTAttention(heads, (h, w), window)
    p = params_of(module, x)
    qkv = (x[0] @ p["qkv"]["kernel"] + p["qkv"]["bias"]).reshape(h, w, 3, heads, d)
    s = window or 4
    padded = np.zeros((-(-h // s) * s if window else h, -(-w // s) * s if window else w, 3, heads, d))
    padded[:h, :w] = qkv
    out = np.zeros((*padded.shape[:2], heads, d))
    for y in range(0, padded.shape[0], s):
        for c in range(0, padded.shape[1], s):
            part = padded[y : y + s, c : c + s]
            flat = part.reshape(-1, 3, heads, d)
            for m in range(heads):
                got = slow_attention(flat[:, 0, m], flat[:, 1, m], flat[:, 2, m])
                out[y : y + s, c : c + s, m] = got.reshape(*part.shape[:2], d)
    expected = out[:h, :w].reshape(h * w, -1) @ p["proj"]["kernel"] + p["proj"]["bias"]
    np.testing.assert_allclose(output_of(module, p, x)[0], expected, atol=2e-6)


def test_beit_attention_has_relative_bias_and_no_key_bias():
    grid, heads, d = (2, 3), 2, 4
    n = 1 + grid[0] * grid[1]
    x = RNG.normal(size=(1, n, heads * d)).astype(np.float32)
    module = BEiTAttention(heads, grid)
    p = params_of(module, x)
    qkv = (x[0] @ p["qkv"]["kernel"]).reshape(n, 3, heads, d)
    q = qkv[:, 0] + p["q_bias"].reshape(heads, d)
    v = qkv[:, 2] + p["v_bias"].reshape(heads, d)
    bias = p["relative_position_bias_table"][beit_index(grid)]
    out = np.stack([slow_attention(q[:, m], qkv[:, 1, m], v[:, m], bias[..., m]) for m in range(heads)], axis=1)
    expected = out.reshape(n, -1) @ p["proj"]["kernel"] + p["proj"]["bias"]
    np.testing.assert_allclose(output_of(module, p, x)[0], expected, atol=2e-6)


def test_scan_over_the_stack_is_one_block_after_another():
    block = Block(2, (2, 2), beit=True, init_values=0.5)
    x = RNG.normal(size=(2, 5, 8)).astype(np.float32)
    params = random_like(jax.eval_shape(lambda: stacked_init(block, 3, x)(jax.random.key(0))))
    expected = x
    apply = jax.jit(lambda p, x: block.apply({"params": p}, x))
    for i in range(3):
        expected = apply(jax.tree.map(lambda a, i=i: a[i], params), expected)
    for remat in (True, False):
        run = jax.jit(functools.partial(run_blocks, block, train=False, remat=remat))
        found = run(params, jnp.zeros(3), x, None)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_copy_starts_differently():
    dense = nn.Dense(24, kernel_init=linear_init)
    kernel = np.asarray(jax.jit(stacked_init(dense, 2, jnp.zeros((1, 8))))(jax.random.key(0))["kernel"])
    assert kernel.shape == (2, 8, 24)
    assert np.abs(kernel[0] - kernel[1]).max() > 1e-3
    assert 0.01 < kernel.std() < 0.03


def test_stochastic_depth_drops_whole_branches_of_a_sample():
    block = Block(2, (2, 2), beit=False)
    x = RNG.normal(size=(16, 4, 8)).astype(np.float32)
    params = params_of(block, x)
    run = jax.jit(lambda rate, key: block.apply({"params": params}, x, rate, train=True, rngs={"drop_path": key}))
    kept = np.abs(np.asarray(run(0.5, jax.random.key(1))) - x).max(axis=(1, 2)) > 0
    assert 0 < kept.sum() < 16  # both branches of some samples are gone: they pass unchanged
    np.testing.assert_allclose(run(0.0, jax.random.key(1)), output_of(block, params, x), atol=1e-6)


def test_position_map_leaves_out_the_class_entry():
    entries = RNG.normal(size=(1, 1 + 6, 3)).astype(np.float32)
    np.testing.assert_allclose(position_map(entries, (2, 3), (2, 3)), entries[:, 1:].reshape(1, 2, 3, 3), atol=1e-6)
    ones = np.concatenate([np.full((1, 1, 3), 9.0), np.ones((1, 6, 3))], axis=1)
    np.testing.assert_allclose(position_map(jnp.asarray(ones), (2, 3), (5, 7)), np.ones((1, 5, 7, 3)), atol=1e-5)


def test_long_attention_takes_its_heads_in_turn_unless_it_is_differentiated():
    b, n, m, d = 2, IN_TURN, 3, 4
    q, k, v, weights = RNG.normal(size=(4, b, n, m, d)).astype(np.float32)
    no_bias = jnp.zeros((1, 1, 1, 1))  # with a bias all heads are computed at once

    def loss(bias):
        return lambda q, k, v: jnp.sum(weights * attend(q, k, v, bias))

    in_turn = jax.jit(attend).lower(q, k, v).compile()
    all_scores = 4 * b * m * n * n
    assert in_turn.memory_analysis().temp_size_in_bytes < all_scores / 2
    np.testing.assert_allclose(in_turn(q, k, v), jax.jit(attend)(q, k, v, no_bias), atol=2e-6)
    gradients = (jax.jit(jax.grad(loss(bias), (0, 1, 2)))(q, k, v) for bias in (None, no_bias))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_array_equal(a, b)
