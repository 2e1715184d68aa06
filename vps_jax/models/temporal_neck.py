"""TarViS's temporal neck: deformable attention inside frames, dense attention through time (spec: tarvis 3).

Use:
  neck = TemporalNeck(hidden_dim=256, num_heads=8, num_layers=6, ffn_dim=1024, remat=True, dtype=jnp.float32)
  levels, mask_features = neck.apply(variables, maps)
  maps: four `[b, t, h / s, w / s, c_s]` at strides s = 4, 8, 16, 32; image sides h, w multiples of 64.
  levels: `(f32, f16, f8)`, each `[b, t, h / s, w / s, hidden_dim]`, float32;
  mask_features: f4 `[b, t, h / 4, w / 4, hidden_dim]` in the compute dtype.

The pairs (spatial layer, temporal layer) are scanned: parameters under `layers` have a leading axis of `num_layers`.
Spatial layers and the residual stream are float32 in every compute dtype.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models import layers
from vps_jax.models.deformable_layer import MultiScaleDeformableAttention
from vps_jax.models.initializers import kaiming_uniform, normal, xavier
from vps_jax.ops import position, target, windows
from vps_jax.ops.convolution import convolution
from vps_jax.ops.deformable_attention import cell_centres
from vps_jax.ops.levels import flatten_levels, split_levels
from vps_jax.ops.resize import resize
from vps_jax.shapes import Float
from vps_jax.types import Array

CELLS = ((2, 2), (4, 4), (8, 8))  # tokens of a 64x64-pixel window at strides 32, 16, 8
# attention scores of one clip that a temporal layer holds at once unless told otherwise; a CPU is fastest in its cache
SCORE_BYTES = {"cpu": 2**22}
SCORE_BYTES_ELSEWHERE = 2**29


class SpatialLayer(nn.Module):
    """Deformable attention of every frame's tokens to their own frame, and a feed-forward net; post-norm, float32."""

    num_heads: int
    ffn_dim: int
    chunk: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n s c"], code: Float[Array, "s c"], shapes) -> Float[Array, "n s c"]:
        """Args: x `[n, s, c]` per frame; code `[s, c]`; shapes of the levels. Returns: `[n, s, c]`."""
        attention = MultiScaleDeformableAttention(self.num_heads, len(shapes), chunk=self.chunk, name="self_attn")
        x = layers.LayerNorm(name="norm1")(x + attention(x + code, cell_centres(shapes), x, shapes))
        return layers.LayerNorm(name="norm2")(x + layers.FeedForward(self.ffn_dim, zero_bias=True, name="ffn")(x))


class TemporalLayer(nn.Module):
    """Dense attention inside windows that run through all frames, and a feed-forward net; post-norm."""

    num_heads: int
    ffn_dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b windows tokens c"], code: Float[Array, "windows tokens c"]
    ) -> Float[Array, "b windows tokens c"]:
        """Args: x `[b, windows, tokens, c]`; code `[windows, tokens, c]`. Returns: the shape of x, float32."""
        attention = layers.MultiHeadAttention(self.num_heads, self.dtype, name="self_attn")
        x = layers.LayerNorm(name="norm1")(x + attention(x + code, x + code, x))
        ffn = layers.FeedForward(self.ffn_dim, self.dtype, zero_bias=True, name="ffn")
        return layers.LayerNorm(name="norm2")(x + ffn(x))


class LayerPair(nn.Module):
    """A spatial and a temporal layer: the body of the encoder's scan."""

    num_heads: int
    ffn_dim: int
    shapes: tuple[tuple[int, int], ...]
    window_chunk: int
    deformable_chunk: int | None = None
    remat: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, codes):
        """Args: x `[b, t, s, c]`; codes (spatial `[s, c]`, temporal `[windows, tokens, c]`). Returns: (x, None)."""
        b, t, s, c = x.shape
        spatial = SpatialLayer(self.num_heads, self.ffn_dim, self.deformable_chunk, name="spatial")
        x = spatial(x.reshape(b * t, s, c), codes[0], self.shapes).reshape(b, t, s, c)
        temporal = TemporalLayer(self.num_heads, self.ffn_dim, self.dtype, name="temporal")
        x = _to_windows(x, self.shapes)  # [b, windows, t * 84, c]
        x = self.in_chunks(temporal, x, codes[1])
        return _from_windows(x, self.shapes, t), None

    def in_chunks(self, temporal, x, code):
        """Windows do not see each other, so the layer may walk over `window_chunk` of them at a time."""
        b, count, *token = x.shape
        chunks = count // self.window_chunk
        if chunks == 1:
            return temporal(x, code)
        x = jnp.moveaxis(x.reshape(b, chunks, self.window_chunk, *token), 1, 0)
        code = code.reshape(chunks, self.window_chunk, *token)

        def step(layer, carry, piece):
            return carry, layer(*piece)

        step = nn.remat(step, prevent_cse=False) if self.remat else step
        _, x = layers.scan(self, step, variable_broadcast="params", split_rngs={"params": False})(
            temporal, (), (x, code)
        )
        return jnp.moveaxis(x, 0, 1).reshape(b, count, *token)


class TemporalNeck(nn.Module):
    """The neck; see the module docstring.

    Attributes:
      hidden_dim: width c of all outputs.
      num_heads: heads of both kinds of attention.
      num_layers: pairs of layers.
      ffn_dim: width inside the feed-forward nets.
      remat: recompute the inside of each pair in the backward pass.
      dtype: compute dtype of temporal layers and convolutions.
      window_chunk: at most so many windows attend through time at once (a divisor of their number is taken); None for
        as many as keep the scores of a clip under 512 MiB, on a CPU under 4 MiB.
      deformable_chunk: heads at once in deformable attention, see `vps_jax.ops.deformable_attention`.
    """

    hidden_dim: int = 256
    num_heads: int = 8
    num_layers: int = 6
    ffn_dim: int = 1024
    remat: bool = True
    dtype: DTypeLike = jnp.float32
    window_chunk: int | None = None
    deformable_chunk: int | None = None

    @nn.compact
    def __call__(self, maps: Sequence[Float[Array, "b t _ _ _"]]):
        """Args: maps, four `[b, t, h, w, c]`, stride 4 first. Returns: ((f32, f16, f8), f4), see the module docstring.

        Raises:
          ValueError: the stride-32 map has an odd side.
        """
        levels = self.encode([self.project(i, m) for i, m in enumerate(maps[:0:-1])])
        return levels, self.mask_features(maps[0], levels[-1])

    def project(self, i: int, x):
        """1x1 convolution and group norm per frame, float32 result."""
        x = layers.Dense(self.hidden_dim, dtype=self.dtype, kernel_init=xavier, name=f"input_proj_{i}")(x)
        return self.norm(x, f"input_norm_{i}").astype(jnp.float32)

    def norm(self, x, name: str):
        """Group norm of every frame by itself: `[b, t, h, w, c]`."""
        groups = math.gcd(32, self.hidden_dim)
        flat = x.reshape(-1, *x.shape[2:])
        return layers.GroupNorm(num_groups=groups, dtype=self.dtype, name=name)(flat).reshape(x.shape)

    def encode(self, inputs):
        """All layer pairs over three maps, stride 32 first."""
        b, t = inputs[0].shape[:2]
        shapes = tuple(m.shape[2:4] for m in inputs)
        if any(side % 2 for side in shapes[0]):
            raise ValueError(f"stride-32 map of {shapes[0]}, expected even sides: pad images to multiples of 64")
        count, tokens = shapes[0][0] * shapes[0][1] // 4, 84 * t
        body = nn.remat(LayerPair, prevent_cse=False) if self.remat else LayerPair
        scanned = layers.scan(
            self,
            body,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.num_layers,
            unroll=layers.unroll(self.num_layers, self.remat),
        )
        pairs = scanned(
            self.num_heads,
            self.ffn_dim,
            shapes,
            _chunk(count, self.window_chunk or _score_bytes() // (4 * self.num_heads * tokens**2)),
            self.deformable_chunk,
            self.remat,
            self.dtype,
            name="layers",
        )
        x, _ = pairs(flatten_levels(inputs), self.codes(shapes, t))
        return tuple(split_levels(x, shapes))

    def codes(self, shapes, t: int):
        """Position codes with the level embeddings: spatial `[s, c]`, temporal `[windows, tokens, c]`."""
        c = self.hidden_dim
        flat, through_time = (
            self.param(name, normal, (len(shapes), c), jnp.float32) for name in ("level_embed", "level_embed_3d")
        )
        spatial = [position.sine_2d(h, w, c) + flat[i] for i, (h, w) in enumerate(shapes)]
        temporal = [position.sine_3d(t, h, w, c) + through_time[i] for i, (h, w) in enumerate(shapes)]
        return flatten_levels(spatial), _to_windows(flatten_levels(temporal)[None], shapes)[0]

    def mask_features(self, finest, coarser):
        """f4: the stride-4 backbone map with the stride-8 output upsampled onto it, through a 3x3 convolution."""
        conv = {"use_bias": False, "dtype": self.dtype, "kernel_init": kaiming_uniform}
        y = self.norm(layers.Dense(self.hidden_dim, name="adapter_1", **conv)(finest), "adapter_1_norm")
        y = y + resize(coarser, finest.shape[2:4]).astype(y.dtype)
        y = nn.Conv(
            self.hidden_dim, (3, 3), padding=1, conv_general_dilated=convolution, name="layer_1", **conv
        )(y)  # fmt: skip
        y = nn.relu(self.norm(y, "layer_1_norm"))
        return layers.Dense(self.hidden_dim, dtype=self.dtype, kernel_init=kaiming_uniform, name="mask_features")(y)


def _score_bytes() -> int:
    return SCORE_BYTES.get(target.backend(), SCORE_BYTES_ELSEWHERE)


def _chunk(count: int, limit: int) -> int:
    """The largest divisor of `count` that is at most `limit`, at least 1."""
    return next(d for d in range(min(count, max(limit, 1)), 0, -1) if count % d == 0)


def _to_windows(x, shapes):
    """Tokens `[b, t, s, c]` to windows `[b, windows, t * 84, c]` of all levels and frames."""
    pieces = [windows.partition(m, cell) for m, cell in zip(split_levels(x, shapes), CELLS, strict=True)]
    x = jnp.swapaxes(jnp.concatenate(pieces, axis=-2), 1, 2)  # [b, windows, t, 84, c]
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _from_windows(x, shapes, t: int):
    """Undoes `_to_windows`."""
    b, count, _, c = x.shape
    x = jnp.swapaxes(x.reshape(b, count, t, -1, c), 1, 2)  # [b, t, windows, 84, c]
    ends = [sum(h * w for h, w in CELLS[: i + 1]) for i in range(len(CELLS))]
    pieces = jnp.split(x, ends[:-1], axis=-2)
    return flatten_levels([windows.merge(p, cell, shape) for p, cell, shape in zip(pieces, CELLS, shapes, strict=True)])
