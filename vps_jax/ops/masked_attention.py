"""Attention of few queries to very many keys under a mask, with memory that does not grow with queries x keys.

Keys are walked over in chunks with a running maximum and a running sum (online softmax), and every chunk is
rematerialised in the backward pass. The result is exact; at 184,320 keys it holds about 1/48 of what the plain form
does (spec: performance 3).
"""

import functools

import jax
import jax.numpy as jnp


def open_empty_rows(attend):
    """A row that may look nowhere may look everywhere (spec: tarvis 5). `[..., s]` bool or counts to the same."""
    return jnp.where((attend > 0).any(axis=-1, keepdims=True), attend, jnp.ones_like(attend))


def masked_attention(query, key, value, attend, *, chunk: int = 4096):
    """Softmax attention under a mask that all heads share; rows without any allowed key look at all keys.

    Args:
      query: `[b, q, m, c]`, already scaled.
      key, value: `[b, s, m, c]`.
      attend: bool `[b, q, s]`, True where a query may look; or float, how many times the key counts for the query.
      chunk: keys per step; with at most that many keys the plain form is used.

    Returns:
      `[b, q, m, c]` in the dtype of `value`; scores, softmax and sums are float32.
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


def _chunked(query, key, value, attend, chunk: int):
    batch, queries, heads, width = query.shape
    pad = -key.shape[1] % chunk
    key, value = (jnp.pad(a, ((0, 0), (0, pad), (0, 0), (0, 0))) for a in (key, value))
    attend = jnp.pad(attend, ((0, 0), (0, 0), (0, pad)))  # padding is blocked
    steps = key.shape[1] // chunk

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(carry, i):
        highest, total, weighted = carry  # [b, m, q], [b, m, q], [b, m, q, c]
        cut = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=i * chunk, slice_size=chunk)
        scores = _scores(query, cut(key, axis=1), cut(attend, axis=2))
        new_highest = jnp.maximum(highest, jax.lax.stop_gradient(scores).max(axis=-1))
        # a row whose keys so far are all blocked has no maximum yet
        shift = jnp.where(jnp.isfinite(new_highest), new_highest, 0.0)
        weights = jnp.exp(scores - shift[..., None])
        keep = jnp.exp(highest - shift)
        product = jnp.einsum(
            "bmqs,bsmc->bmqc", weights.astype(value.dtype), cut(value, axis=1), preferred_element_type=jnp.float32
        )
        carry = new_highest, total * keep + weights.sum(axis=-1), weighted * keep[..., None] + product
        return carry, None

    rows = (batch, heads, queries)
    start = jnp.full(rows, -jnp.inf), jnp.zeros(rows), jnp.zeros((*rows, width))
    (_, total, weighted), _ = jax.lax.scan(step, start, jnp.arange(steps))
    return (weighted / total[..., None]).swapaxes(1, 2).astype(value.dtype)
