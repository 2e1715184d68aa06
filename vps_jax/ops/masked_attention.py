"""Attention of few queries to very many keys under a mask, with memory that does not grow with queries x keys.

Keys are walked over in chunks with a running maximum and a running sum (online softmax). The backward pass is written
out: it keeps inputs, output and the softmax denominators, and makes the weights of every chunk again. The result is
exact; at 184,320 keys it holds about 1/40 of what the plain form does (spec: performance 3).
"""

import functools

import jax
import jax.numpy as jnp

from vps_jax.shapes import Bool, Float, Shaped
from vps_jax.types import Array


def open_empty_rows(attend: Shaped[Array, "*rows s"]) -> Shaped[Array, "*rows s"]:
    """A row that may look nowhere may look everywhere (spec: tarvis 5). `[..., s]` bool or counts to the same."""
    return jnp.where((attend > 0).any(axis=-1, keepdims=True), attend, jnp.ones_like(attend))


def masked_attention(
    query: Float[Array, "b q m c"],
    key: Float[Array, "b s m c"],
    value: Float[Array, "b s m c"],
    attend: Bool[Array, "#b #q s"] | Float[Array, "#b #q s"],
    *,
    chunk: int = 4096,
) -> Float[Array, "b q m c"]:
    """Softmax attention under a mask that all heads share; rows without any allowed key look at all keys.

    Args:
      query: `[b, q, m, c]`, already scaled.
      key, value: `[b, s, m, c]`.
      attend: bool `[b, q, s]`, True where a query may look; or float, how many times the key counts for the query.
      chunk: keys per step; with at most that many keys the plain form is used.

    Returns:
      `[b, q, m, c]` in the dtype of `value`; scores, softmax and sums are float32. Reverse-mode differentiable by
      query, key and value.
    """
    attend = open_empty_rows(attend)  # decided over all keys, before they are cut
    if key.shape[1] <= chunk:
        return _plain(query, key, value, attend)
    return _chunked(query, key, value, attend, chunk)


def _scores(query, key, attend):
    """float32 `[b, m, q, s]`, -inf where blocked; a key that counts n times scores log n more."""
    scores = jnp.einsum("bqmc,bsmc->bmqs", query, key, preferred_element_type=jnp.float32)
    if attend.dtype != bool:
        scores += jnp.log(jnp.maximum(attend, 1e-30))[:, None]
    return jnp.where(attend[:, None] > 0, scores, -jnp.inf)


def _plain(query, key, value, attend):
    weights = jax.nn.softmax(_scores(query, key, attend), axis=-1).astype(value.dtype)
    return jnp.einsum("bmqs,bsmc->bqmc", weights, value)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _chunked(query, key, value, attend, chunk: int):
    return _forward(query, key, value, attend, chunk)[0]


def _forward(query, key, value, attend, chunk: int):
    """Output `[b, q, m, c]`; highest score of every row and softmax denominator relative to it, float32 `[b, m, q]`."""
    batch, queries, heads, width = query.shape
    key, value, attend = _whole_chunks(key, value, attend, chunk)

    def step(carry, i):
        highest, total, weighted = carry  # [b, m, q], [b, m, q], [b, m, q, c]
        keys, values, allowed = _cut(key, value, attend, i, chunk)
        scores = _scores(query, keys, allowed)
        new_highest = jnp.maximum(highest, scores.max(axis=-1))
        # a row whose keys so far are all blocked has no maximum yet
        shift = jnp.where(jnp.isfinite(new_highest), new_highest, 0.0)
        weights = jnp.exp(scores - shift[..., None])
        keep = jnp.exp(highest - shift)
        product = jnp.einsum("bmqs,bsmc->bmqc", weights.astype(value.dtype), values, preferred_element_type=jnp.float32)
        return (new_highest, total * keep + weights.sum(axis=-1), weighted * keep[..., None] + product), None

    rows = (batch, heads, queries)
    start = jnp.full(rows, -jnp.inf), jnp.zeros(rows), jnp.zeros((*rows, width))
    (highest, total, weighted), _ = jax.lax.scan(step, start, jnp.arange(key.shape[1] // chunk))
    out = (weighted / total[..., None]).swapaxes(1, 2).astype(value.dtype)
    return out, highest, total


def _forward_and_keep(query, key, value, attend, chunk: int):
    out, highest, total = _forward(query, key, value, attend, chunk)
    return out, (query, key, value, attend, out, highest, total)


def _backward(chunk: int, residuals, gradient):
    """Weights of every chunk again from the kept maxima and denominators; no gradient for the mask."""
    query, key, value, attend, out, highest, total = residuals
    keys_before = key.shape[1]
    dtypes = query.dtype, key.dtype, value.dtype
    key, value, attend = _whole_chunks(key, value, attend, chunk)
    # what the softmax takes off every score's gradient, [b, m, q, 1]
    mean = jnp.sum(gradient.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).swapaxes(1, 2)[..., None]
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

    def step(carry, i):
        d_query, d_key, d_value = carry
        keys, values, allowed = _cut(key, value, attend, i, chunk)
        weights = jnp.exp(_scores(query, keys, allowed) - highest[..., None]) / total[..., None]  # [b, m, q, s]
        d_scores = weights * (product("bqmc,bsmc->bmqs", gradient, values) - mean)
        low, d_low = weights.astype(value.dtype), d_scores.astype(query.dtype)
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * chunk, axis=1)
        d_query += product("bmqs,bsmc->bqmc", d_low, keys)
        d_key = put(d_key, product("bmqs,bqmc->bsmc", d_low, query).astype(d_key.dtype))
        d_value = put(d_value, product("bmqs,bqmc->bsmc", low, gradient).astype(d_value.dtype))
        return (d_query, d_key, d_value), None

    start = jnp.zeros(query.shape), jnp.zeros_like(key), jnp.zeros_like(value)
    grads, _ = jax.lax.scan(step, start, jnp.arange(key.shape[1] // chunk))
    d_query, d_key, d_value = (g.astype(dtype) for g, dtype in zip(grads, dtypes, strict=True))
    return d_query, d_key[:, :keys_before], d_value[:, :keys_before], None


_chunked.defvjp(_forward_and_keep, _backward)


def _whole_chunks(key, value, attend, chunk: int):
    """Pad the keys to a multiple of the chunk; padding is blocked."""
    pad = -key.shape[1] % chunk
    key, value = (jnp.pad(a, ((0, 0), (0, pad), (0, 0), (0, 0))) for a in (key, value))
    return key, value, jnp.pad(attend, ((0, 0), (0, 0), (0, pad)))


def _cut(key, value, attend, i, chunk: int):
    """Chunk `i` of the three."""
    cut = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=i * chunk, slice_size=chunk)
    return cut(key, axis=1), cut(value, axis=1), cut(attend, axis=2)
