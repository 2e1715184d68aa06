"""Swin transformer backbone, every published size a row of a table (spec: tarvis 2).

Use:
  backbone = Swin(SIZES["swin_tiny"], drop_path_rate=0.3, remat=True, dtype=jnp.float32)
  maps = backbone.apply(variables, images, train=False)
  images `[n, h, w, 3]` normalised floats, `n` = frames of all clips, sides multiples of 4 (of 64 for TarViS);
  maps: four `[n, h / s, w / s, channels]` at strides s = 4, 8, 16, 32 with channels `embed * (1, 2, 4, 8)`.
  With `train=True` and a positive rate the call needs the rng stream `drop_path`.

The blocks of a stage are scanned, so every block parameter has a leading axis of `depth`:
`stages_2/blocks/attn/qkv/kernel[9]` is block 9 of the third stage. Every other block shifts its windows; whether it
does is scanned too, since a body of one block compiles faster and holds less than one of a regular and a shifted block.
With `remat` only the input of each block is kept for the backward pass (spec: performance 3, 6). The residual stream
and the patch embedding are float32 in every compute dtype: rounding there adds up over the blocks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models import layers
from vps_jax.models.initializers import torch_kernel
from vps_jax.models.quick_keys import quick_key
from vps_jax.ops import windows as ops
from vps_jax.shapes import Float
from vps_jax.types import Array

MASKED = -100.0  # added between tokens that the roll brought together; not -inf, as published


class SwinSize(NamedTuple):
    """Embedding width, blocks per stage, heads per stage, window side."""

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
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], shifted) -> Float[Array, "n h w c"]:
        """`[n, h, w, c]` to the same shape; `shifted`, a boolean scalar: windows lie half a window further on."""
        n, h, w, c = x.shape
        qkv = layers.Dense(3 * c, use_bias=False, dtype=self.dtype, kernel_init=torch_kernel, name="qkv")(x)
        qkv = jnp.pad(qkv, ((0, 0), (0, -h % self.window), (0, -w % self.window), (0, 0)))
        size = qkv.shape[1:3]
        qkv += self.param("qkv_bias", nn.initializers.zeros_init(), (3 * c,), jnp.float32).astype(qkv.dtype)
        regular, rolled = (ops.window_order(*size, self.window, shift) for shift in (0, self.window // 2))
        order = jnp.where(shifted, rolled, regular)
        inverse = jnp.where(shifted, np.argsort(rolled), np.argsort(regular))
        qkv = ops.permute(qkv.reshape(n, -1, 3 * c), order, inverse)
        x = self.attend(qkv.reshape(n, -1, self.window**2, 3 * c), size, shifted)  # [n, windows, tokens, c]
        x = ops.permute(x.reshape(n, -1, c), inverse, order).reshape(n, *size, c)
        return layers.Dense(c, dtype=self.dtype, kernel_init=torch_kernel, name="proj")(x[:, :h, :w])

    def attend(self, qkv, size, shifted):
        """`[n, windows, tokens, 3 c]` to `[n, windows, tokens, c]`; channels are ordered (q k v, head, d)."""
        qkv = qkv.reshape(*qkv.shape[:-1], 3, self.num_heads, -1)
        q, k, v = jnp.moveaxis(qkv, (-3, -2), (0, -3))  # each [n, windows, heads, tokens, d]; one copy makes all three
        q = q * q.shape[-1] ** -0.5
        logits = jnp.einsum("nwmqd,nwmkd->nwmqk", q, k, preferred_element_type=jnp.float32)
        region = jnp.asarray(ops.shift_regions(*size, self.window, self.window // 2))
        apart = region[:, None, :, None] != region[:, None, None, :]
        logits += self.relative_bias() + jnp.where(apart & shifted, MASKED, 0.0)
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        x = jnp.einsum("nwmqk,nwmkd->nwqmd", weights, v)
        return x.reshape(*x.shape[:-2], -1)

    def relative_bias(self):
        """`[m, tokens, tokens]`."""
        rows = (2 * self.window - 1) ** 2
        init = nn.initializers.truncated_normal(0.02)
        table = self.param("relative_position_bias_table", init, (rows, self.num_heads), jnp.float32)
        return jnp.moveaxis(table[ops.relative_position_index(self.window)], -1, 0)


class Block(nn.Module):
    """Window attention and MLP, each a pre-norm residual branch: the body of a stage's scan."""

    num_heads: int
    window: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, shifted, factors):
        """One step of the scan.

        Args:
          x: `[n, h, w, c]`.
          shifted: boolean scalar, see `WindowAttention`.
          factors: `[2, n]` of the two branches, see `drop_path_factors`, or None.

        Returns:
          The same shape as `x`, and None: nothing to stack.
        """
        c = x.shape[-1]
        y = layers.LayerNorm(dtype=self.dtype, name="norm1")(x)
        y = WindowAttention(self.num_heads, self.window, self.dtype, name="attn")(y, shifted)
        x = x + (y if factors is None else y * factors[0, :, None, None, None])
        y = layers.LayerNorm(dtype=self.dtype, name="norm2")(x)
        y = layers.gelu(layers.Dense(4 * c, dtype=self.dtype, kernel_init=torch_kernel, name="fc1")(y))
        y = layers.Dense(c, dtype=self.dtype, kernel_init=torch_kernel, name="fc2")(y)
        return x + (y if factors is None else y * factors[1, :, None, None, None]), None


class Stage(nn.Module):
    """Blocks of one width, scanned; every second one is shifted."""

    depth: int
    num_heads: int
    window: int
    remat: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], factors: Float[Array, "depth 2 n"] | None
    ) -> Float[Array, "n h w c"]:
        """`[n, h, w, c]` and factors `[depth, 2, n]`, or None, to the same shape as `x`."""
        # inside the loop nothing can be merged with the forward pass, so remat need not prevent it
        body = nn.remat(Block, prevent_cse=False) if self.remat else Block
        blocks = layers.scan(
            self,
            body,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            unroll=layers.unroll(self.depth, self.remat),
        )
        shifted = jnp.arange(self.depth) % 2 == 1
        return blocks(self.num_heads, self.window, self.dtype, name="blocks")(x, shifted, factors)[0]


def drop_path_factors(
    key: jax.Array, rates: Float[np.ndarray, " blocks"], count: int
) -> Float[Array, "blocks 2 {count}"]:
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
    return jax.random.bernoulli(quick_key(key), keep, (len(rates), 2, count)) / keep


class PatchMerging(nn.Module):
    """Halve a map: the four neighbours side by side, normalised, to twice the channels."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 {2*x.shape[3]}"]:
        """`[n, h, w, c]` to `[n, ceil(h/2), ceil(w/2), 2 c]`."""
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)  # column parity before row parity
        x = layers.LayerNorm(dtype=self.dtype, name="norm")(x.reshape(n, h // 2, w // 2, 4 * c))
        x = layers.Dense(2 * c, use_bias=False, dtype=self.dtype, kernel_init=torch_kernel, name="reduction")(x)
        return x.astype(jnp.float32)


class Swin(nn.Module):
    """The backbone; see the module docstring.

    Attributes:
      size: a row of `SIZES`.
      drop_path_rate: rate of the last block; rates rise linearly from 0 over all blocks.
      remat: recompute the inside of each block in the backward pass.
      dtype: compute dtype; parameters, attention logits and norm statistics stay float32.
    """

    size: SwinSize
    drop_path_rate: float = 0.3
    remat: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"], *, train: bool = False) -> layers.Maps:
        """Args: images `[n, h, w, 3]`. Returns: four maps, see the module docstring."""
        cells = ((4, 4), (4, 4), "VALID")  # kernel, stride, padding
        x = nn.Conv(self.size.embed, *cells, dtype=jnp.float32, kernel_init=torch_kernel, name="patch")(images)
        x = layers.LayerNorm(dtype=jnp.float32, name="patch_norm")(x)
        factors = self.factors(len(images)) if train and self.drop_path_rate else [None] * 4
        maps = []
        for i in range(4):
            if i:
                x = PatchMerging(self.dtype, name=f"downsample_{i - 1}")(x)
            shape = self.size.depths[i], self.size.heads[i], self.size.window
            x = Stage(*shape, self.remat, self.dtype, name=f"stages_{i}")(x, factors[i])
            maps.append(layers.LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x))
        return tuple(maps)

    def factors(self, count: int) -> list[jax.Array]:
        """Per stage `[depth, 2, count]` for its blocks; the rates rise linearly over all blocks."""
        rates = np.linspace(0, self.drop_path_rate, sum(self.size.depths))
        factors = drop_path_factors(self.make_rng("drop_path"), rates, count)
        return jnp.split(factors, np.cumsum(self.size.depths)[:-1])
