"""Masked attention against a slow numpy twin; chunks change nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.ops.masked_attention import masked_attention, open_empty_rows


def inputs(keys=50, batch=2, queries=5, heads=2, width=4, seed=0):
    random = np.random.default_rng(seed)
    q = random.standard_normal((batch, queries, heads, width)).astype(np.float32)
    k, v = random.standard_normal((2, batch, keys, heads, width)).astype(np.float32)
    attend = random.random((batch, queries, keys)) < 0.3
    attend[0, 1] = False  # looks nowhere
    attend[1, 2] = False
    attend[1, 2, -1] = True  # a single key, in the last chunk
    attend[0, 3] = True
    return q, k, v, attend


def twin(q, k, v, attend):
    """Loops over samples, queries and heads in float64."""
    out = np.zeros(q.shape)
    for b, i, m in np.ndindex(*q.shape[:3]):
        allowed = attend[b, i] if attend[b, i].any() else np.ones_like(attend[b, i])
        scores = k[b, allowed, m].astype(np.float64) @ q[b, i, m]
        weights = np.exp(scores - scores.max())
        out[b, i, m] = weights / weights.sum() @ v[b, allowed, m]
    return out


@pytest.mark.parametrize("chunk", [64, 16, 10, 7])
def test_equals_the_twin(chunk):
    q, k, v, attend = inputs()
    out = jax.jit(masked_attention, static_argnames="chunk")(q, k, v, attend, chunk=chunk)
    np.testing.assert_allclose(out, twin(q, k, v, attend), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("chunk", [64, 8])
def test_a_row_without_keys_equals_unmasked_attention(chunk):
    q, k, v, attend = inputs()
    attention = jax.jit(functools.partial(masked_attention, chunk=chunk))
    everywhere, out = attention(q, k, v, np.ones_like(attend)), attention(q, k, v, attend)
    np.testing.assert_array_equal(out[0, 1], everywhere[0, 1])
    assert not np.allclose(out[0, 0], everywhere[0, 0])


def test_open_empty_rows_touches_only_empty_ones():
    attend = jnp.array([[False, False], [True, False]])
    np.testing.assert_array_equal(open_empty_rows(attend), [[True, True], [True, False]])


def test_huge_scores_neither_overflow_nor_leak_from_blocked_keys():
    q = np.full((1, 1, 1, 1), 100.0, np.float32)
    k = np.array([500.0, 1.0, 1.0, -3.0], np.float32).reshape(1, 4, 1, 1)
    v = np.array([7.0, 1.0, 3.0, 9.0], np.float32).reshape(1, 4, 1, 1)
    attend = np.array([[[False, True, True, True]]])
    for chunk in (4, 1):
        loss = jax.jit(jax.value_and_grad(lambda v, chunk=chunk: masked_attention(q, k, v, attend, chunk=chunk).sum()))
        out, grads = loss(v)
        assert out == pytest.approx(2.0)
        np.testing.assert_allclose(grads.ravel(), [0, 0.5, 0.5, 0], atol=1e-7)


def test_gradients_of_chunks_equal_those_of_the_plain_form():
    q, k, v, attend = inputs()
    weight = np.random.default_rng(1).standard_normal(q.shape).astype(np.float32)

    def loss(q, k, v, chunk):
        return (masked_attention(q, k, v, attend, chunk=chunk) * weight).sum()

    grads = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), static_argnums=3)
    for plain, chunked in zip(grads(q, k, v, 64), grads(q, k, v, 16), strict=True):
        assert np.isfinite(chunked).all()
        np.testing.assert_allclose(chunked, plain, rtol=1e-5, atol=1e-6)


def test_bfloat16_values_stay_close():
    q, k, v, attend = inputs()
    low = [jnp.asarray(a, jnp.bfloat16) for a in (q, k, v)]
    out = jax.jit(functools.partial(masked_attention, chunk=16))(*low, attend)
    assert out.dtype == jnp.bfloat16
    expected = twin(*(np.asarray(a, np.float32) for a in low), attend)
    np.testing.assert_allclose(np.asarray(out, np.float32), expected, atol=2e-2)


def temporary_bytes(chunk: int, keys: int, *, backward: bool) -> int:
    """What the compiled program needs beside inputs and outputs: 256 queries, 8 heads of 32, as in the decoder."""
    draw = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    shapes = draw((1, 256, 8, 32)), draw((1, keys, 8, 32)), draw((1, keys, 8, 32))

    def attention(q, k, v, attend):
        return masked_attention(q, k, v, attend, chunk=chunk)

    def gradients(q, k, v, attend):
        return jax.grad(lambda *qkv: attention(*qkv, attend).sum(), argnums=(0, 1, 2))(q, k, v)

    program = jax.jit(gradients if backward else attention)
    compiled = program.lower(*shapes, jax.ShapeDtypeStruct((1, 256, keys), bool)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("backward", [False, True])
def test_memory_is_a_tenth_of_the_plain_form_at_the_size_of_a_720p_clip(backward):
    keys = 12 * 96 * 160  # 184,320: twelve frames at stride 8
    plain = temporary_bytes(keys, keys, backward=backward)
    assert plain > 256 * 8 * keys * 4  # one table of scores at least: the comparison is fair
    assert temporary_bytes(4096, keys, backward=backward) <= plain / 10


def test_error_over_very_many_keys():
    q, k, v, attend = inputs(keys=184_320, batch=2, queries=4, heads=1)
    out = jax.jit(masked_attention)(q, k, v, attend)
    expected = twin(q, k, v, attend)
    assert np.linalg.norm(out - expected) <= 1e-6 * np.linalg.norm(expected)
