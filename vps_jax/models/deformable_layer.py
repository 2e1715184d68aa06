"""The deformable-attention layer of TarViS's neck, ViT-Adapter's injector and extractor, and Mask2Former's decoder."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models.initializers import xavier
from vps_jax.models.layers import Dense
from vps_jax.ops import deformable_attention as ops
from vps_jax.ops.levels import Shapes
from vps_jax.shapes import Float, Float32
from vps_jax.types import Array


def offset_bias(num_heads: int, num_levels: int, num_points: int) -> Float32[np.ndarray, " offsets"]:
    """Initial offsets: head m looks along angle 2 pi m / heads, point p at p + 1 pixels; `[m l p 2]` flattened."""
    angle = 2 * np.pi * np.arange(num_heads) / num_heads
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # [m, 2]
    direction /= np.abs(direction).max(axis=-1, keepdims=True)
    steps = np.arange(1, num_points + 1)[:, None]
    bias = np.broadcast_to(direction[:, None, None] * steps, (num_heads, num_levels, num_points, 2))
    return bias.reshape(-1).astype(np.float32)


class MultiScaleDeformableAttention(nn.Module):
    """Every query looks at a few learned points of every level around its reference point (spec: tarvis 3.3).

    Dense children: `value_proj`, `sampling_offsets` (ordered head, level, point, xy), `attention_weights` (head, level,
    point), `output_proj`. Offsets, weights and sampling are float32 in every compute dtype.

    Attributes:
      num_heads: heads m.
      num_levels: levels l of the sampled features.
      num_points: points p per head and level.
      value_ratio: width of the sampled values relative to the query's (0.5 in ViT-Adapter).
      dtype: compute dtype of the value and output projections.
      chunk: heads processed at once, see `vps_jax.ops.deformable_attention`.
    """

    num_heads: int
    num_levels: int
    num_points: int = 4
    value_ratio: float = 1.0
    dtype: DTypeLike = jnp.float32
    chunk: int | None = None

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b q c"],
        reference: Float[Array, "q 2"] | Float[Array, "b q 2"],
        features: Float[Array, "b s c_v"],
        shapes: Shapes,
    ) -> Float[Array, "b q c"]:
        """Attend.

        Args:
          query: `[b, q, c]`, with its position encoding added by the caller.
          reference: `[q, 2]` or `[b, q, 2]`, xy in 0..1, the same for all levels (see `ops`' `cell_centres`).
          features: `[b, s, c_v]`, the levels flattened row-major one after the other; not encoded.
          shapes: `((height, width), ...)` of the levels, static.

        Returns:
          `[b, q, c]`.
        """
        width = query.shape[-1]
        inner = int(width * self.value_ratio)
        value = Dense(inner, dtype=self.dtype, kernel_init=xavier, name="value_proj")(features)
        value = value.reshape(*value.shape[:2], self.num_heads, -1)  # [b, s, m, c]
        locations, weights = self.sampling(query, reference, shapes)
        x = ops.deformable_attention(value, locations, weights, shapes=shapes, chunk=self.chunk)
        x = x.reshape(*x.shape[:2], -1)  # [b, q, m c]
        return Dense(width, dtype=self.dtype, kernel_init=xavier, name="output_proj")(x)

    def sampling(
        self, query: Float[Array, "b q c"], reference: Float[Array, "..."], shapes: Shapes
    ) -> tuple[Float[Array, "b q m l p 2"], Float[Array, "b q m l p"]]:
        """Where to look `[b, q, m, l, p, 2]` and how much of it `[b, q, m, l, p]`."""
        table = (*query.shape[:2], self.num_heads, self.num_levels, self.num_points)
        points = self.num_heads * self.num_levels * self.num_points
        zeros = nn.initializers.zeros_init()
        bias = offset_bias(self.num_heads, self.num_levels, self.num_points)
        offsets = Dense(
            2 * points,
            dtype=jnp.float32,
            kernel_init=zeros,
            bias_init=lambda key, shape, dtype: jnp.asarray(bias, dtype).reshape(shape),
            name="sampling_offsets",
        )(query)
        logits = Dense(points, dtype=jnp.float32, kernel_init=zeros, name="attention_weights")(query)
        weights = jax.nn.softmax(logits.reshape(*table[:3], -1), axis=-1).reshape(table)
        size = np.asarray(shapes, np.float32)[:, ::-1]  # [l, 2] width, height
        steps = offsets.reshape(*table, 2) / size[:, None]
        return jnp.asarray(reference)[..., :, None, None, None, :] + steps, weights
