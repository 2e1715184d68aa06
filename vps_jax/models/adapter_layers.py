"""Layers with which ViT-Adapter exchanges tokens between the trunk and the pyramid (spec: vit_adapter 4)."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models import layers
from vps_jax.models.deformable_layer import MultiScaleDeformableAttention
from vps_jax.models.initializers import linear_init
from vps_jax.models.vit import EPS
from vps_jax.ops.deformable_attention import cell_centres
from vps_jax.ops.levels import flatten_levels, slice_levels
from vps_jax.shapes import Float
from vps_jax.types import Array


class Injector(nn.Module):
    """Patch tokens take from the pyramid: x + gamma * attention(norm(x), norm(pyramid)).

    Attributes:
      num_heads, num_points, value_ratio: of the deformable attention.
      init_values: initial gamma.
      shapes: level sizes of the pyramid, strides 8, 16, 32; the second is the patch grid.
      dtype: compute dtype.
    """

    num_heads: int
    num_points: int
    value_ratio: float
    init_values: float
    shapes: tuple[tuple[int, int], ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], pyramid: Float[Array, "b s c"]) -> Float[Array, "b n c"]:
        """Args: x `[b, h w, c]`; pyramid `[b, s, c]`. Gives `[b, h w, c]`."""
        norm = lambda name: nn.LayerNorm(epsilon=EPS, dtype=self.dtype, name=name)  # noqa: E731
        gamma = self.param("gamma", nn.initializers.constant(self.init_values), (x.shape[-1],))
        attention = MultiScaleDeformableAttention(
            self.num_heads, len(self.shapes), self.num_points, self.value_ratio, dtype=self.dtype, name="attn"
        )
        reference = cell_centres(self.shapes[1:2])
        taken = attention(norm("query_norm")(x), reference, norm("feat_norm")(pyramid), self.shapes)
        return x + gamma.astype(x.dtype) * taken


class ConvFFN(nn.Module):
    """Feed-forward layer whose hidden maps go through one depthwise 3x3 convolution, the same for every level."""

    hidden: int
    shapes: tuple[tuple[int, int], ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b s c"]) -> Float[Array, "b s c"]:
        """`[b, s, c]` to the same."""
        dense = lambda n, name: layers.Dense(n, dtype=self.dtype, kernel_init=linear_init, name=name)  # noqa: E731
        depthwise = nn.Conv(
            self.hidden,
            (3, 3),
            padding=((1, 1), (1, 1)),
            feature_group_count=self.hidden,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal((2 / 9) ** 0.5),  # fan out of one channel
            name="dwconv",
        )
        maps = [depthwise(m) for m in slice_levels(dense(self.hidden, "fc1")(x), self.shapes)]
        return dense(x.shape[-1], "fc2")(layers.gelu(flatten_levels(maps)))


class Extractor(nn.Module):
    """The pyramid takes from the patch tokens, then passes its own feed-forward layer.

    Attributes:
      num_heads, num_points, value_ratio: of the deformable attention.
      ffn_ratio: hidden width of the feed-forward layer relative to the tokens'.
      drop_path_rate: stochastic depth of the feed-forward branch, the full rate in every extractor.
      shapes: level sizes of the pyramid, strides 8, 16, 32.
      dtype: compute dtype.
    """

    num_heads: int
    num_points: int
    value_ratio: float
    ffn_ratio: float
    drop_path_rate: float
    shapes: tuple[tuple[int, int], ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, pyramid: Float[Array, "b s c"], x: Float[Array, "b n c"], *, train: bool = False
    ) -> Float[Array, "b s c"]:
        """Args: pyramid `[b, s, c]`; x `[b, h w, c]`. Gives `[b, s, c]`."""
        norm = lambda name: nn.LayerNorm(epsilon=EPS, dtype=self.dtype, name=name)  # noqa: E731
        attention = MultiScaleDeformableAttention(
            self.num_heads, 1, self.num_points, self.value_ratio, dtype=self.dtype, name="attn"
        )
        reference = cell_centres(self.shapes)
        pyramid = pyramid + attention(norm("query_norm")(pyramid), reference, norm("feat_norm")(x), self.shapes[1:2])
        ffn = ConvFFN(int(x.shape[-1] * self.ffn_ratio), self.shapes, self.dtype, name="ffn")
        drop = layers.DropPath()
        return pyramid + drop(ffn(norm("ffn_norm")(pyramid)), self.drop_path_rate, train=train)


class Upsample2x(nn.Module):
    """Transposed convolution 2x2 with stride 2: every pixel becomes its own 2x2 block.

    Attributes:
      width: channels of the output.
      dtype: compute dtype.
      activation: what follows, element by element, or None. Even and odd rows are products of their own, and XLA
        applies it to their results for less than to the map that they are interleaved to.
    """

    width: int
    dtype: DTypeLike = jnp.float32
    activation: Callable | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b {2*x.shape[1]} {2*x.shape[2]} {self.width}"]:
        """`[b, h, w, c]` to `[b, 2 h, 2 w, width]`; kernel `[c, 2, 2, width]`."""
        b, h, w, c = x.shape
        std = (2 / (4 * self.width)) ** 0.5  # the convolutions' rule: fan out
        kernel = self.param("kernel", nn.initializers.normal(std), (c, 2, 2, self.width))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
        rows = [jnp.einsum("bijc,cvd->bijvd", x, kernel[:, u]) + bias for u in range(2)]
        if self.activation is not None:
            rows = [self.activation(row) for row in rows]
        rows = [row.reshape(b, h, 2 * w, self.width) for row in rows]
        return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, self.width)
