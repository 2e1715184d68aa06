"""Masked-attention decoder of Mask2Former, over a whole clip at once (spec: tarvis 5; vit_adapter 5).

Shared by TarViS (256 channels, 8 heads) and the ViT-Adapter's head (1024 channels, 32 heads). Queries look in turn at
the maps of stride 32, 16, 8, only where the mask that they predict at that moment says so. Masks are dot products with
the stride-4 features, and resizing is linear, so the masks of a level come from the features resized once.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models.initializers import packed_xavier, xavier
from vps_jax.models.layers import Dense, FeedForward, LayerNorm, MultiHeadAttention, scan, unroll
from vps_jax.ops import masked_attention
from vps_jax.ops.levels import LEVELS
from vps_jax.shapes import Bool, Float
from vps_jax.types import Array


class Attention(MultiHeadAttention):
    """Multi-head attention that starts xavier-uniform; with `attend` under a mask and in chunks of keys."""

    @nn.compact
    def __call__(self, query, key, value, attend=None):
        """`query [b, q, c]`, `key`, `value [b, s, c]`, `attend [b, q, s]` bool or counts or None, to `[b, q, c]`."""
        q, k, v = self.project(query, key, value)  # [b, q or s, m, c/m]
        if attend is None:
            attend = jnp.ones((1, 1, k.shape[1]), bool)
        x = masked_attention.masked_attention(q, k, v, attend)
        x = x.reshape(*query.shape)  # [b, q, c]
        return Dense(x.shape[-1], dtype=self.dtype, kernel_init=xavier, name="out")(x)

    def project(self, query, key, value):
        width = query.shape[-1]
        heads = []
        for name, x in (("query", query), ("key", key), ("value", value)):
            y = Dense(width, dtype=self.dtype, kernel_init=packed_xavier, name=name)(x)
            heads.append(y.reshape(*y.shape[:-1], self.num_heads, -1))
        return heads[0] * (width // self.num_heads) ** -0.5, heads[1], heads[2]


class DecoderLayer(nn.Module):
    """Cross-attention to one level, self-attention, feed-forward; every residual sum is normalised."""

    num_heads: int
    ffn_dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b q c"],
        embed: Float[Array, "b q c"],
        memory: Float[Array, "b s c"],
        position: Float[Array, "#b s c"],
        attend: Bool[Array, "b q s"],
    ) -> Float[Array, "b q c"]:
        """`x`, `embed [b, q, c]`, `memory`, `position [b or 1, s, c]`, `attend` bool `[b, q, s]` to `[b, q, c]`."""
        cross = Attention(self.num_heads, self.dtype, name="cross_attention")
        x = LayerNorm(name="cross_norm")(x + cross(x + embed, memory + position, memory, attend))
        mix = Attention(self.num_heads, self.dtype, name="self_attention")
        x = LayerNorm(name="self_norm")(x + mix(x + embed, x + embed, x))
        return LayerNorm(name="ffn_norm")(x + FeedForward(self.ffn_dim, self.dtype, name="ffn")(x))


class LevelRound(nn.Module):
    """Three layers, one per level: what is repeated. Its layer `i` is `level_i`."""

    num_heads: int
    ffn_dim: int
    mask_embeds: Callable
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, attend, embed, memories, positions, level_features):
        """One round; see `MaskedDecoder`. Returns the last queries and those after each layer `[3, b, q, c]`."""
        after = []
        for i in range(LEVELS):
            own = attention_bits(self.mask_embeds(x), level_features[i])
            self.sow("intermediates", f"attend_{i}", own)
            layer = DecoderLayer(self.num_heads, self.ffn_dim, self.dtype, name=f"level_{i}")
            x = layer(x, embed, memories[i], positions[i], own if attend is None else attend[i])
            after.append(x)
        return x, jnp.stack(after)


class MaskedDecoder(nn.Module):
    """Layers in rounds over the three levels, scanned: one round is compiled whatever their number.

    Parameters of layer `n` are row `n // 3` of `rounds/level_{n % 3}`.
    """

    num_layers: int
    num_heads: int
    ffn_dim: int
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, embed, memories, positions, mask_features, mask_embeds, attend=None):
        """Decode.

        Args:
          x: initial queries `[b, q, c]`.
          embed: their position embeddings, broadcastable to `x`.
          memories: per level (stride 32, 16, 8) tokens with level embedding `[b, s_i, c]`, in (t, y, x) order.
          positions: per level `[1, s_i, c]`, added to keys only.
          mask_features: `[b, t, h4, w4, c]`.
          mask_embeds: pure function from queries `[b, q, c]` to mask embeddings `[b, q, c]` (norm and heads).
          attend: masks to use in place of one's own, per level bool `[rounds, b, q, s_i]`; rows of False are opened.

        Returns:
          Queries before any layer and after each, float32 `[1 + num_layers, b, q, c]`. One's own masks, before empty
          rows are opened, are sown as `intermediates/rounds/attend_{level}`, `[rounds, b, q, s_i]`.
        """
        rounds = self.num_layers // LEVELS
        level_features = [
            centre_means(jax.lax.stop_gradient(mask_features), factor=2 ** (LEVELS - i)) for i in range(LEVELS)
        ]
        # a single round makes no loop that could shield the recomputation
        body = nn.remat(LevelRound, prevent_cse=rounds == 1) if self.remat else LevelRound
        scanned = scan(
            self,
            body,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast),
            length=rounds,
            unroll=unroll(rounds, self.remat),
        )(self.num_heads, self.ffn_dim, mask_embeds, self.dtype, name="rounds")
        x = x.astype(jnp.float32)
        _, after = scanned(x, attend, embed, memories, positions, level_features)  # [rounds, 3, b, q, c]
        return jnp.concatenate([x[None], after.reshape(-1, *x.shape)])


def level_memories(
    levels: Sequence[Float[Array, "b ... c"]], level_embed: Float[Array, "l c"], code: Callable, dtype: DTypeLike
) -> tuple[list[Float[Array, "b _ c"]], list[Float[Array, "1 _ c"]]]:
    """What the layers of each level look at.

    Args:
      levels: maps `[b, ..., c]` of strides 32, 16, 8, pixels or frames of pixels between the ends.
      level_embed: `[3, c]`.
      code: position code `[..., c]` of a map's sides and channels, such as `ops.position.sine_3d`.
      dtype: of the results.

    Returns:
      per level, tokens with level embedding `[b, s_i, c]`; and their positions `[1, s_i, c]`.
    """
    memories, positions = [], []
    for level, embed in zip(levels, level_embed, strict=True):
        b, *grid, c = level.shape
        memories.append((level.reshape(b, -1, c) + embed.astype(level.dtype)).astype(dtype))
        positions.append(code(*grid, c).reshape(1, -1, c).astype(dtype))
    return memories, positions


def pure(module: nn.Module, method: str) -> Callable:
    """A method of a bound module as a function without side effects, for use inside of a scan."""
    unbound, variables = module.unbind()
    return lambda *args: unbound.apply(variables, *args, method=method)


def centre_means(features: Float[Array, "b t h w c"], *, factor: int) -> Float[Array, "b s c"]:
    """Half-pixel linear resize by an even factor: the mean of the middle 2x2 of every block, in float32.

    Args:
      features: `[b, t, h, w, c]`.

    Returns:
      `[b, t h/factor w/factor, c]`, tokens in (t, y, x) order.
    """
    b, t, h, w, c = features.shape
    blocks = features.astype(jnp.float32).reshape(b, t, h // factor, factor, w // factor, factor, c)
    middle = slice(factor // 2 - 1, factor // 2 + 1)
    return blocks[:, :, :, middle, :, middle].mean(axis=(3, 5)).reshape(b, -1, c)


def attention_bits(mask_embeds: Float[Array, "b q c"], level_features: Float[Array, "b s c"]) -> Bool[Array, "b q s"]:
    """Where every query may look: sigmoid of its mask at least 0.5; no gradient.

    Args:
      mask_embeds: `[b, q, c]`.
      level_features: float32 `[b, s, c]`.

    Returns:
      bool `[b, q, s]`; a row may be empty (the attention opens it).
    """
    embeds = jax.lax.stop_gradient(mask_embeds.astype(jnp.float32))
    return jnp.einsum("bqc,bsc->bqs", embeds, level_features) >= 0
