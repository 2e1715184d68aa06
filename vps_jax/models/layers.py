"""Small layers shared by all models, with the numerical conventions of the published PyTorch systems.

LayerNorm and GroupNorm eps is 1e-5 unless a page of docs/reference says otherwise, GELU is the exact erf form,
attention scale is 1/sqrt(head_dim), softmax and norms run in float32 whatever the compute dtype (spec: tarvis,
framework traps).
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-5)
GroupNorm = functools.partial(nn.GroupNorm, num_groups=32, epsilon=1e-5)
gelu = functools.partial(jax.nn.gelu, approximate=False)


class MLP(nn.Module):
    """Linear layers with relu between them, none after the last."""

    features: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        for i, width in enumerate(self.features):
            x = nn.Dense(width, dtype=self.dtype, name=f"layers_{i}")(x)
            if i + 1 < len(self.features):
                x = nn.relu(x)
        return x


class MultiHeadAttention(nn.Module):
    """Attention with separate query, key and value inputs and torch's arithmetic.

    Parameters `query`, `key`, `value`, `out` are Dense layers `[c, c]` with bias; PyTorch's packed `in_proj` is split
    into the first three by the converter. `attend` holds True where a query may look; a row without any True looks
    everywhere is the caller's business.
    """

    num_heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, query, key, value, attend=None):
        """Attend.

        Args:
          query: `[..., q, c]`.
          key, value: `[..., s, c]`.
          attend: bool, broadcastable to `[..., q, s]`, or None.

        Returns:
          `[..., q, c]`.
        """
        width = query.shape[-1]
        q, k, v = self.project(query, key, value)  # [..., q or s, m, c/m]
        scores = jnp.einsum("...qmc,...smc->...mqs", q, k, preferred_element_type=jnp.float32)
        if attend is not None:
            scores = jnp.where(attend[..., None, :, :], scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        x = jnp.einsum("...mqs,...smc->...qmc", weights, v)
        x = x.reshape(*x.shape[:-2], width)  # [..., q, c]
        return nn.Dense(width, dtype=self.dtype, name="out")(x)

    def project(self, query, key, value):
        """Project and split heads; the query is scaled by 1/sqrt(head_dim)."""
        width = query.shape[-1]
        dense = functools.partial(nn.Dense, width, dtype=self.dtype)
        q = dense(name="query")(query) * (width // self.num_heads) ** -0.5
        k = dense(name="key")(key)
        v = dense(name="value")(value)
        return tuple(a.reshape(*a.shape[:-1], self.num_heads, -1) for a in (q, k, v))


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch per sample (axis 0) and rescales survivors; rng name `drop_path`."""

    @nn.compact
    def __call__(self, x, rate, *, train: bool):
        """Args: x `[n, ...]`; rate in [0, 1), may be traced (a scanned input)."""
        if not train:
            return x
        keep = 1.0 - rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        alive = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
        return jnp.where(alive, x / jnp.asarray(keep, x.dtype), jnp.zeros_like(x))
