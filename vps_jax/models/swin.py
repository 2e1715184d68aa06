"""Swin transformer backbone, every published size a row of a table (spec: tarvis 2).

Use:
  backbone = Swin(SIZES["swin_tiny"], drop_path_rate=0.3, remat=True, dtype=jnp.float32)
  maps = backbone.apply(variables, images, train=False)
  images `[n, h, w, 3]` normalised floats, `n` = frames of all clips, sides multiples of 4 (of 64 for TarViS);
  maps: four `[n, h / s, w / s, channels]` at strides s = 4, 8, 16, 32 with channels `embed * (1, 2, 4, 8)`.
  With `train=True` and a positive rate the call needs the rng stream `drop_path`.

Blocks come in pairs (regular, shifted) and the pairs of a stage are scanned, so every block parameter has a leading
axis of `depth / 2`: `stages_2/block_1/attn/qkv/kernel[4]` is block 9 of the third stage. With `remat` only the input
of each pair is kept for the backward pass (spec: performance 3, 6). The residual stream and the patch embedding are
float32 in every compute dtype: rounding there adds up over the blocks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vps_jax.models import layers
from vps_jax.ops import windows as ops

MASKED = -100.0  # added between tokens that the roll brought together; not -inf, as published
torch_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class SwinSize(NamedTuple):
    """Embedding width, blocks per stage (even numbers), heads per stage, window side."""

    embed: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Widths of the four maps."""
        return tuple(self.embed * 2**i for i in range(4))


SIZES = {
    "swin_micro": SwinSize(24, (2, 2, 2, 2), (1, 2, 4, 8), 4),  # our own, for training on two CPU cores
    "swin_tiny": SwinSize(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "swin_small": SwinSize(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "swin_base": SwinSize(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "swin_large": SwinSize(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}


class WindowAttention(nn.Module):
    """Self-attention inside windows of a map, with relative position bias; logits and softmax in float32.

    The published system pads with zeros to whole windows *before* the projections, so a padded position has the bias as
    its key and value, and takes part unmasked. Here only real tokens are projected, which gives the same.
    """

    num_heads: int
    window: int
    shift: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """`[n, h, w, c]` to the same shape."""
        n, h, w, c = x.shape
        window = (self.window, self.window)
        qkv = nn.Dense(3 * c, use_bias=False, dtype=self.dtype, kernel_init=torch_linear, name="qkv")(x)
        qkv = jnp.pad(qkv, ((0, 0), (0, -h % self.window), (0, -w % self.window), (0, 0)))
        size = qkv.shape[1:3]
        qkv += self.param("qkv_bias", nn.initializers.zeros_init(), (3 * c,), jnp.float32).astype(qkv.dtype)
        if self.shift:
            qkv = jnp.roll(qkv, (-self.shift, -self.shift), axis=(1, 2))
        x = self.attend(ops.partition(qkv, window), size)  # [n, windows, tokens, c]
        x = ops.merge(x, window, size)
        if self.shift:
            x = jnp.roll(x, (self.shift, self.shift), axis=(1, 2))
        return nn.Dense(c, dtype=self.dtype, kernel_init=torch_linear, name="proj")(x[:, :h, :w])

    def attend(self, qkv, size):
        """`[n, windows, tokens, 3 c]` to `[n, windows, tokens, c]`; channels are ordered (q k v, head, d)."""
        q, k, v = (a.reshape(*a.shape[:-1], self.num_heads, -1) for a in jnp.split(qkv, 3, axis=-1))
        q = q * q.shape[-1] ** -0.5
        logits = jnp.einsum("nwqmd,nwkmd->nwmqk", q, k, preferred_element_type=jnp.float32)
        logits += self.relative_bias()
        if self.shift:
            region = ops.shift_regions(*size, self.window, self.shift)
            apart = jnp.asarray(region)[:, None, :, None] != jnp.asarray(region)[:, None, None, :]
            logits += jnp.where(apart, MASKED, 0.0)
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        x = jnp.einsum("nwmqk,nwkmd->nwqmd", weights, v)
        return x.reshape(*x.shape[:-2], -1)

    def relative_bias(self):
        """`[m, tokens, tokens]`."""
        rows = (2 * self.window - 1) ** 2
        init = nn.initializers.truncated_normal(0.02)
        table = self.param("relative_position_bias_table", init, (rows, self.num_heads), jnp.float32)
        return jnp.moveaxis(table[ops.relative_position_index(self.window)], -1, 0)


class Block(nn.Module):
    """Window attention and MLP, each a pre-norm residual branch."""

    num_heads: int
    window: int
    shift: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, factors):
        """`[n, h, w, c]` to the same shape; `factors [2, n]` of the two branches, see `drop_path_factors`, or None."""
        c = x.shape[-1]
        y = layers.LayerNorm(dtype=self.dtype, name="norm1")(x)
        y = WindowAttention(self.num_heads, self.window, self.shift, self.dtype, name="attn")(y)
        x = x + (y if factors is None else y * factors[0, :, None, None, None])
        y = layers.LayerNorm(dtype=self.dtype, name="norm2")(x)
        y = layers.gelu(nn.Dense(4 * c, dtype=self.dtype, kernel_init=torch_linear, name="fc1")(y))
        y = nn.Dense(c, dtype=self.dtype, kernel_init=torch_linear, name="fc2")(y)
        return x + (y if factors is None else y * factors[1, :, None, None, None])


class BlockPair(nn.Module):
    """A regular and a shifted block: the body of a stage's scan."""

    num_heads: int
    window: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, factors):
        """`[n, h, w, c]` and `[2, 2, n]` (or None) to the map and nothing."""
        for i, shift in enumerate((0, self.window // 2)):
            block = Block(self.num_heads, self.window, shift, self.dtype, name=f"block_{i}")
            x = block(x, None if factors is None else factors[i])
        return x, None


def scan_pairs(*, pairs: int, remat: bool, **block) -> nn.Module:
    """A stage's blocks as a scanned `BlockPair(**block)`; call it with a map and factors `[pairs, 2, 2, n]` or None."""
    # one pair makes no loop that could shield the recomputation from common-subexpression elimination
    body = nn.remat(BlockPair, prevent_cse=pairs == 1) if remat else BlockPair
    return nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=pairs)(**block)


def drop_path_factors(key: jax.Array, rates: np.ndarray, count: int) -> jax.Array:
    """Stochastic depth: what each branch of each block is multiplied with, 0 or 1 / (1 - rate).

    All draws of a forward pass are one call: blocks that draw for themselves take longer to compile and to run.

    Args:
      key: PRNG key.
      rates: `[blocks]`, each in [0, 1).
      count: samples (frames).

    Returns:
      float32 `[blocks, 2, count]`, independent for attention and MLP branch and for every sample.
    """
    keep = jnp.asarray(1.0 - rates, jnp.float32)[:, None, None]
    return jax.random.bernoulli(key, keep, (len(rates), 2, count)) / keep


class PatchMerging(nn.Module):
    """Halve a map: the four neighbours side by side, normalised, to twice the channels."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """`[n, h, w, c]` to `[n, ceil(h/2), ceil(w/2), 2 c]`."""
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)  # column parity before row parity
        x = layers.LayerNorm(dtype=self.dtype, name="norm")(x.reshape(n, h // 2, w // 2, 4 * c))
        x = nn.Dense(2 * c, use_bias=False, dtype=self.dtype, kernel_init=torch_linear, name="reduction")(x)
        return x.astype(jnp.float32)


class Swin(nn.Module):
    """The backbone; see the module docstring.

    Attributes:
      size: a row of `SIZES`.
      drop_path_rate: rate of the last block; rates rise linearly from 0 over all blocks.
      remat: recompute the inside of each pair of blocks in the backward pass.
      dtype: compute dtype; parameters, attention logits and norm statistics stay float32.
    """

    size: SwinSize
    drop_path_rate: float = 0.3
    remat: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, *, train: bool = False):
        """Args: images `[n, h, w, 3]`. Returns: four maps, see the module docstring."""
        cells = ((4, 4), (4, 4), "VALID")  # kernel, stride, padding
        x = nn.Conv(self.size.embed, *cells, dtype=jnp.float32, kernel_init=torch_linear, name="patch")(images)
        x = layers.LayerNorm(dtype=jnp.float32, name="patch_norm")(x)
        factors = self.factors(len(images)) if train and self.drop_path_rate else [None] * 4
        maps = []
        for i in range(4):
            if i:
                x = PatchMerging(self.dtype, name=f"downsample_{i - 1}")(x)
            pairs = {"pairs": self.size.depths[i] // 2, "remat": self.remat, "name": f"stages_{i}"}
            stage = scan_pairs(num_heads=self.size.heads[i], window=self.size.window, dtype=self.dtype, **pairs)
            x, _ = stage(x, factors[i])
            maps.append(layers.LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x))
        return tuple(maps)

    def factors(self, count: int) -> list[jax.Array]:
        """Per stage `[pairs, 2, 2, count]` for its blocks; the rates rise linearly over all blocks."""
        rates = np.linspace(0, self.drop_path_rate, sum(self.size.depths))
        factors = drop_path_factors(self.make_rng("drop_path"), rates, count)
        stages = jnp.split(factors, np.cumsum(self.size.depths)[:-1])
        return [stage.reshape(-1, 2, 2, count) for stage in stages]
