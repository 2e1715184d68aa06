"""Small layers shared by all models, with the numerical conventions of the published PyTorch systems.

LayerNorm and GroupNorm eps is 1e-5 unless a page of docs/reference says otherwise, GELU is the exact erf form,
attention scale is 1/sqrt(head_dim), softmax and norms run in float32 whatever the compute dtype (spec: tarvis,
framework traps).
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models.initializers import torch_bias, torch_kernel, xavier
from vps_jax.ops import dense
from vps_jax.shapes import Bool, Float, Shaped
from vps_jax.types import Array

PIXEL_MEAN = (123.675, 116.28, 103.53)  # ImageNet's RGB, for values 0..255
PIXEL_STD = (58.395, 57.12, 57.375)
WRITTEN_OUT = 2  # passes of a loop
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

Maps = Sequence[Float[Array, "_ _ _ _"]]  # maps of a backbone, `[n, h_i, w_i, c_i]`, the finest first

LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-5)
GroupNorm = functools.partial(nn.GroupNorm, num_groups=32, epsilon=1e-5)
Dense = functools.partial(nn.Dense, dot_general=dense.dot_general)
gelu = functools.partial(jax.nn.gelu, approximate=False)


_shapes_alone = contextvars.ContextVar("_shapes_alone", default=False)


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
    """Inside, nobody will ask for the values of what is initialised, so `scan` need not keep its keys."""
    token = _shapes_alone.set(True)
    try:
        yield
    finally:
        _shapes_alone.reset(token)


def scan(module: nn.Module, body, **axes):
    """`nn.scan` of a body inside `module`, traced once less except where it makes the values of parameters.

    Flax traces a body an extra time to look for results that are the same in every pass. Of the models here only
    parameters that the passes share are, when they are made. That pass takes keys of `init`, so without it a seed would
    give other first parameters.
    """
    shared = "variable_broadcast" in axes
    extra = module.is_initializing() and (shared or not _shapes_alone.get())
    return nn.scan(body, check_constancy_invariants=extra, **axes)


def unroll(length: int, remat: bool) -> int:
    """How many passes of a scan are written out: two if it has no more, else one.

    A loop copies what it reads of stacked parameters and what it adds to their gradients, which takes 7 % of a step of
    `configs/tiny.py`. Where passes are computed again (`remat`) the loop stays: it keeps XLA from merging them
    with the forward pass.
    """
    return length if length <= WRITTEN_OUT and not remat else 1


def normalize(
    images: Shaped[Array, "*at 3"], mean: tuple[float, ...] = PIXEL_MEAN, std: tuple[float, ...] = PIXEL_STD
) -> Float[Array, "*at 3"]:
    """`[..., 3]` RGB 0..255 of any dtype to float32, by mean and deviation of each channel."""
    return (images.astype(jnp.float32) - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def torch_dense(
    width: int, fan_in: int, dtype: DTypeLike, name: str | None, kernel_init: Callable = torch_kernel
) -> nn.Dense:
    """A Dense layer that starts as PyTorch's Linear does."""
    return Dense(width, dtype=dtype, kernel_init=kernel_init, bias_init=torch_bias(fan_in), name=name)


class MLP(nn.Module):
    """Three linear layers with relu between, as wide as the result; float32 whatever the compute dtype."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*at c"]) -> Float[Array, "*at {self.width}"]:
        """One layer after the other."""
        for i in range(3):
            x = torch_dense(self.width, x.shape[-1], jnp.float32, f"layers_{i}")(nn.relu(x) if i else x)
        return x


class FeedForward(nn.Module):
    """Linear, relu, linear, back to the width of the input; kernels start xavier-uniform.

    Attributes:
      hidden: width between the two.
      dtype: compute dtype.
      zero_bias: biases start at zero, and not as those of PyTorch's Linear.
    """

    hidden: int
    dtype: DTypeLike = jnp.float32
    zero_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*at c"]) -> Float[Array, "*at c"]:
        """There and back."""
        y = nn.relu(self.linear("linear1", self.hidden, x.shape[-1])(x))
        return self.linear("linear2", x.shape[-1], self.hidden)(y)

    def linear(self, name: str, width: int, fan_in: int) -> nn.Dense:
        if self.zero_bias:
            return Dense(width, dtype=self.dtype, kernel_init=xavier, name=name)
        return torch_dense(width, fan_in, self.dtype, name, kernel_init=xavier)


class MultiHeadAttention(nn.Module):
    """Attention with separate query, key and value inputs and torch's arithmetic.

    Parameters `query`, `key`, `value`, `out` are Dense layers `[c, c]` with bias; PyTorch's packed `in_proj` is split
    into the first three by the converter. `attend` holds True where a query may look; a row without any True looks
    everywhere is the caller's business.
    """

    num_heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "*n q c"],
        key: Float[Array, "*n s c"],
        value: Float[Array, "*n s c"],
        attend: Bool[Array, "..."] | None = None,
    ) -> Float[Array, "*n q c"]:
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
        return Dense(width, dtype=self.dtype, name="out")(x)

    def project(self, query, key, value):
        """Project and split heads; the query is scaled by 1/sqrt(head_dim)."""
        width = query.shape[-1]
        linear = functools.partial(Dense, width, dtype=self.dtype)
        q = linear(name="query")(query) * (width // self.num_heads) ** -0.5
        k = linear(name="key")(key)
        v = linear(name="value")(value)
        return tuple(a.reshape(*a.shape[:-1], self.num_heads, -1) for a in (q, k, v))


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch per sample (axis 0) and rescales survivors; rng name `drop_path`."""

    @nn.compact
    def __call__(self, x: Float[Array, " n *at"], rate, *, train: bool) -> Float[Array, " n *at"]:
        """Args: x `[n, ...]`; rate in [0, 1), may be traced (a scanned input)."""
        if not train:
            return x
        keep = 1.0 - rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        alive = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
        return jnp.where(alive, x / jnp.asarray(keep, x.dtype), jnp.zeros_like(x))
