"""Pixel decoder of Mask2Former: deformable encoder over strides 32, 16, 8, then one step to stride 4
(spec: vit_adapter 5)."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models.deformable_layer import MultiScaleDeformableAttention
from vps_jax.models.initializers import kaiming_uniform, normal, xavier
from vps_jax.models.layers import Dense, FeedForward, GroupNorm, LayerNorm, Maps, scan, unroll
from vps_jax.ops.deformable_attention import cell_centres
from vps_jax.ops.levels import LEVELS, flatten_levels, slice_levels
from vps_jax.ops.position import sine_2d
from vps_jax.ops.resize import resize
from vps_jax.shapes import Float
from vps_jax.types import Array


class EncoderLayer(nn.Module):
    """Deformable attention of all levels on all levels, feed-forward; both residual sums are normalised."""

    num_heads: int
    ffn_dim: int
    shapes: tuple[tuple[int, int], ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b s c"], position: Float[Array, "1 s c"]) -> Float[Array, "b s c"]:
        """Args: x `[b, s, c]`; position `[1, s, c]`, added to queries only. Gives `[b, s, c]`."""
        attention = MultiScaleDeformableAttention(self.num_heads, len(self.shapes), dtype=self.dtype, name="attn")
        norm = lambda name: LayerNorm(dtype=self.dtype, name=name)  # noqa: E731
        x = norm("attn_norm")(x + attention(x + position, cell_centres(self.shapes), x, self.shapes))
        return norm("ffn_norm")(x + FeedForward(self.ffn_dim, self.dtype, name="ffn")(x))


class ConvNorm(nn.Module):
    """Convolution 1x1 or 3x3 and group norm, children `conv` and `norm`."""

    width: int
    kernel: int = 1
    use_bias: bool = False
    kernel_init: Callable = kaiming_uniform
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w {self.width}"]:
        """`[b, h, w, c]` to `[b, h, w, width]`."""
        same = dict(use_bias=self.use_bias, dtype=self.dtype, kernel_init=self.kernel_init, name="conv")
        if self.kernel == 1:
            x = Dense(self.width, **same)(x)
        else:
            x = nn.Conv(self.width, (self.kernel, self.kernel), padding=self.kernel // 2, **same)(x)
        return GroupNorm(dtype=self.dtype, name="norm")(x)


class PixelDecoder(nn.Module):
    """Backbone maps to mask features and three memories.

    Attributes:
      width: channels of the result, a multiple of 32.
      num_layers, num_heads, ffn_dim: of the encoder.
      remat: keep only the inputs of encoder layers for the backward pass.
      dtype: compute dtype.
    """

    width: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    remat: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Maps) -> tuple[Float[Array, "b h4 w4 {self.width}"], Maps]:
        """Decode.

        Args:
          maps: `[b, h_i, w_i, c_i]` at strides 4, 8, 16, 32.

        Returns:
          mask features `[b, h4, w4, width]`, and the memories of strides 32, 16, 8 as maps `[b, h_i, w_i, width]`.
        """
        memories = self.encode(maps[:0:-1])
        fine = maps[0]
        y = ConvNorm(self.width, dtype=self.dtype, name="lateral")(fine)
        y = y + resize(memories[-1], fine.shape[1:3]).astype(y.dtype)
        y = nn.relu(ConvNorm(self.width, kernel=3, dtype=self.dtype, name="output")(y))
        return Dense(self.width, dtype=self.dtype, kernel_init=kaiming_uniform, name="mask_features")(y), memories

    def encode(self, maps):
        """Maps of strides 32, 16, 8 through the encoder."""
        shapes = tuple(m.shape[1:3] for m in maps)
        level = self.param("level_encoding", normal, (LEVELS, self.width))
        same = {"use_bias": True, "kernel_init": xavier, "dtype": self.dtype}
        x = flatten_levels([ConvNorm(self.width, **same, name=f"input_{i}")(m) for i, m in enumerate(maps)])
        codes = [sine_2d(*shape, self.width).reshape(1, -1, self.width) + level[i] for i, shape in enumerate(shapes)]
        position = jnp.concatenate(codes, axis=1).astype(self.dtype)
        body = nn.remat(EncoderLayer, prevent_cse=False) if self.remat else EncoderLayer
        encoder = scan(
            self,
            lambda layer, x, _: (layer(x, position), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.num_layers,
            unroll=unroll(self.num_layers, self.remat),
        )
        x, _ = encoder(body(self.num_heads, self.ffn_dim, shapes, self.dtype, name="encoder"), x, None)
        return slice_levels(x, shapes)
