"""Transformer blocks of ViT and BEiT on patch tokens, stacked so that a scan runs them (spec: vit_adapter 2, 3).

All blocks of a backbone have the same parameters, so every leaf carries a leading axis over the depth and one compiled,
rematerialised body serves them all.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models import layers
from vps_jax.models.initializers import kaiming_fan_out, linear_init
from vps_jax.ops.relative_tables import beit_bias
from vps_jax.ops.resize import resize
from vps_jax.shapes import Float
from vps_jax.types import Array

EPS = 1e-6  # LayerNorm of the whole backbone
IN_TURN = 256  # tokens from which the scores of all heads together leave a CPU's cache


class PatchEmbed(nn.Module):
    """Image to tokens: a convolution whose stride is its size."""

    width: int
    patch: int = 16
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images):
        """Images `[b, h, w, 3]` to `[b, h/patch, w/patch, c]`."""
        size = (self.patch, self.patch)
        return nn.Conv(
            self.width, size, strides=size, padding="VALID", dtype=self.dtype, kernel_init=kaiming_fan_out, name="proj"
        )(images)


def position_map(pos_embed, pretrained: tuple[int, int], grid: tuple[int, int]):
    """Absolute position embeddings of plain ViT for a grid of any size.

    Args:
      pos_embed: `[1, 1 + n, c]`; the first entry, the class token's, is not used.
      pretrained: patches `(h, w)` that the embeddings were trained on, n in all.
      grid: patches `(h, w)` wanted.

    Returns:
      `[1, h, w, c]`.
    """
    return resize(pos_embed[:, 1:].reshape(1, *pretrained, -1), grid, method="bicubic")


def resampled_positions(table: Float[Array, "n c"], grid: tuple[int, int]) -> Float[Array, "p c"]:
    """DINOv2's position table for a grid of any size: bicubic (a = -0.5), antialiased when shrinking (spec: videomt 2).

    Args:
      table: `[n n, c]`, row by row, of a square grid.
      grid: patches `(h, w)` wanted.

    Returns:
      `[h w, c]`.
    """
    side = round(table.shape[0] ** 0.5)
    if tuple(grid) == (side, side):
        return table
    maps = table.reshape(side, side, -1)
    out = jax.image.resize(maps, (*grid, maps.shape[-1]), "cubic", antialias=True, precision=jax.lax.Precision.HIGHEST)
    return out.reshape(-1, maps.shape[-1])


def rotary_code(grid: tuple[int, int], dim: int, prefix: int, base: float = 100.0) -> np.ndarray:
    """Cosines and sines of DINOv3's rotary positions (spec: videomt 6).

    A quarter of the channels turns with the row and a quarter with the column of the patch's centre, both in -1..1;
    the other half of the head is their partner. Tokens before the patches do not turn.

    Args:
      grid: patches `(h, w)`.
      dim: channels d of a head, a multiple of 4.
      prefix: tokens before the patches.

    Returns:
      float32 `[2, prefix + h w, d]`.
    """
    centres = [(np.arange(n) + 0.5) / n * 2 - 1 for n in grid]
    places = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2, 1)  # [h w, (y, x), 1]
    angles = 2 * np.pi * places * base ** -(np.arange(dim // 4) * 4 / dim)
    angles = np.pad(angles.reshape(-1, dim // 2), ((prefix, 0), (0, 0)))
    return np.tile(np.stack([np.cos(angles), np.sin(angles)]), 2).astype(np.float32)


def rotated(
    qkv: Float[Array, "b n 3 m d"], rotary: Float[Array, "2 n d"] | None = None
) -> tuple[Float[Array, "b n m d"], Float[Array, "b n m d"], Float[Array, "b n m d"]]:
    """Queries, keys and values `[b, n, m, d]` of `[b, n, 3, m, d]`, the first two turned by `rotary [2, n, d]`."""
    q, k, v = jnp.moveaxis(qkv, 2, 0)
    if rotary is None:
        return q, k, v
    cos, sin = (part[:, None] for part in jnp.asarray(rotary, q.dtype))

    def turn(x):
        first, second = jnp.split(x, 2, axis=-1)
        return x * cos + jnp.concatenate([-second, first], axis=-1) * sin

    return turn(q), turn(k), v


def attend(q, k, v, bias=None):
    """Scaled attention of `[b, n, m, d]` each, bias to `[b, m, n, n]`; logits, softmax in float32: `[b, n, m, d]`."""
    if bias is None and q.shape[1] >= IN_TURN:
        return _attend_long(q, k, v)
    return _attend_at_once(q, k, v, bias)


@jax.custom_jvp
def _attend_long(q, k, v):
    # not by ops.target: an export holds programs of several platforms from one trace
    return jax.lax.platform_dependent(q, k, v, cpu=_attend_in_turn, default=_attend_at_once)


@_attend_long.defjvp
def _(primals, tangents):
    return jax.jvp(_attend_at_once, primals, tangents)  # the loop would keep what both of its choices need


def _attend_in_turn(q, k, v):
    """One head of one image after the other, so that a CPU core finds its scores in its cache."""
    b, n, m, d = q.shape
    heads = [jnp.moveaxis(x, 2, 1).reshape(b * m, 1, n, 1, d) for x in (q, k, v)]
    out = jax.lax.map(lambda head: _attend_at_once(*head), heads)  # [b m, 1, n, 1, d]
    return jnp.moveaxis(out.reshape(b, m, n, d), 1, 2)


def _attend_at_once(q, k, v, bias=None):
    q = q * q.shape[-1] ** -0.5
    scores = jnp.einsum("bqmd,bkmd->bmqk", q, k, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bmqk,bkmd->bqmd", weights, v)


class ViTAttention(nn.Module):
    """Self-attention over the whole grid, or inside windows that cut it without overlap.

    The published windows are filled up with zeros after the projection, and nothing masks them: a padded key has
    logit 0 and takes its share of the softmax (spec: vit_adapter 2).

    Attributes:
      num_heads: heads m.
      grid: patches `(h, w)`.
      window: side of the windows, 0 for none.
    """

    num_heads: int
    grid: tuple[int, int]
    window: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, rotary=None, bias=None):
        """`[b, n, c]` to the same; see `Block` for `rotary` and `bias`."""
        qkv = layers.Dense(3 * x.shape[-1], dtype=self.dtype, kernel_init=linear_init, name="qkv")(x)
        qkv = _split_heads(qkv, self.num_heads)  # [b, n, 3, m, d]
        out = self.in_windows(qkv) if self.window else attend(*rotated(qkv, rotary), bias)
        out = out.reshape(x.shape)
        return layers.Dense(x.shape[-1], dtype=self.dtype, kernel_init=linear_init, name="proj")(out)

    def in_windows(self, qkv):
        b, _, _, m, d = qkv.shape
        (h, w), s = self.grid, self.window
        rows, columns = -(-h // s), -(-w // s)
        qkv = qkv.reshape(b, h, w, 3, m, d)
        qkv = jnp.pad(qkv, ((0, 0), (0, rows * s - h), (0, columns * s - w)) + ((0, 0),) * 3)
        qkv = qkv.reshape(b, rows, s, columns, s, 3, m, d).swapaxes(2, 3)
        qkv = qkv.reshape(b * rows * columns, s * s, 3, m, d)  # [windows, n, 3, m, d]
        out = attend(*jnp.moveaxis(qkv, 2, 0))
        out = out.reshape(b, rows, columns, s, s, m, d).swapaxes(2, 3)
        return out.reshape(b, rows * s, columns * s, m, d)[:, :h, :w]


class BEiTAttention(nn.Module):
    """Self-attention with a learned bias per relative position; no bias on keys; class token first.

    Attributes:
      num_heads: heads m.
      grid: patches `(h, w)`, to which the table `[(2h - 1)(2w - 1) + 3, m]` is tied.
    """

    num_heads: int
    grid: tuple[int, int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        """`[b, 1 + h w, c]` to the same."""
        width = x.shape[-1]
        h, w = self.grid
        zeros = nn.initializers.zeros_init()
        q_bias, v_bias = (self.param(name, zeros, (width,)) for name in ("q_bias", "v_bias"))
        table = self.param("relative_position_bias_table", zeros, ((2 * h - 1) * (2 * w - 1) + 3, self.num_heads))
        qkv = layers.Dense(3 * width, use_bias=False, dtype=self.dtype, kernel_init=linear_init, name="qkv")(x)
        qkv = qkv + jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias]).astype(qkv.dtype)
        q, k, v = jnp.moveaxis(_split_heads(qkv, self.num_heads), 2, 0)
        out = attend(q, k, v, beit_bias(table, self.grid)).reshape(x.shape)
        return layers.Dense(width, dtype=self.dtype, kernel_init=linear_init, name="proj")(out)


class Block(nn.Module):
    """Pre-norm transformer block with a learned scale per channel on both branches.

    Attributes:
      num_heads: attention heads.
      grid: patches `(h, w)`.
      beit: relative bias and class token (`BEiTAttention`) or plain (`ViTAttention`).
      window: side of attention windows, 0 for none; plain ViT only.
      mlp_ratio: hidden width of the MLP relative to the tokens'.
      init_values: initial scale of the branches.
      dtype: compute dtype.
      eps: of the norms.
    """

    num_heads: int
    grid: tuple[int, int]
    beit: bool
    window: int = 0
    mlp_ratio: float = 4.0
    init_values: float = 1.0
    dtype: DTypeLike = jnp.float32
    eps: float = EPS

    @nn.compact
    def __call__(self, x, drop_rate=0.0, *, train: bool = False, rotary=None, bias=None):
        """Run.

        Args:
          x: `[b, n, c]`.
          drop_rate: of the stochastic depth of both branches, may be traced.
          train: stochastic depth is on.
          rotary: `[2, n, c / heads]` of `rotary_code`, or None; plain ViT without windows only.
          bias: added to the attention's logits, broadcast to `[b, heads, n, n]`, or None; as `rotary`.

        Returns:
          `[b, n, c]`.
        """
        width = x.shape[-1]
        norm = lambda name: nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, name=name)  # noqa: E731
        dense = lambda n, name: layers.Dense(n, dtype=self.dtype, kernel_init=linear_init, name=name)  # noqa: E731
        scale = nn.initializers.constant(self.init_values)
        gamma1, gamma2 = (self.param(name, scale, (width,)).astype(x.dtype) for name in ("gamma1", "gamma2"))
        if self.beit:
            attention = BEiTAttention(self.num_heads, self.grid, self.dtype, name="attn")
        else:
            attention = ViTAttention(self.num_heads, self.grid, self.window, self.dtype, name="attn")
            attention = functools.partial(attention, rotary=rotary, bias=bias)
        drop = layers.DropPath()
        x = x + drop(gamma1 * attention(norm("norm1")(x)), drop_rate, train=train)
        hidden = layers.gelu(dense(int(width * self.mlp_ratio), "fc1")(norm("norm2")(x)))
        return x + drop(gamma2 * dense(width, "fc2")(hidden), drop_rate, train=train)


def stacked_init(module: nn.Module, depth: int, *inputs):
    """Initialiser of `depth` copies of a module's parameters, stacked along a new first axis.

    Args:
      module: unbound module.
      depth: copies.
      *inputs: arguments of its call, of which only shapes matter.
    """

    def init(key):
        keys = jax.random.split(key, depth)
        return jax.vmap(lambda k: module.init(k, *inputs)["params"])(keys)

    return init


def run_blocks(block: Block, params, rates, x, key, *, train: bool, remat: bool, rotary=None):
    """Scan over blocks of one kind.

    Args:
      block: unbound block.
      params: its parameters, stacked `[n, ...]`.
      rates: stochastic depth of each `[n]`.
      x: tokens `[b, s, c]`.
      key: random key of the group, or None when not training.
      train: stochastic depth is on.
      remat: keep only the blocks' inputs for the backward pass.
      rotary: see `Block`.
    """

    def body(x, step):
        p, rate, i = step
        rngs = {"drop_path": jax.random.fold_in(key, i)} if train else {}
        return block.apply({"params": p}, x, rate, train=train, rngs=rngs, rotary=rotary), None

    if remat:
        body = jax.checkpoint(body, prevent_cse=False)
    return jax.lax.scan(body, x, (params, rates, jnp.arange(len(rates))))[0]


def _split_heads(qkv, num_heads: int):
    """`[b, n, 3 c]` to `[b, n, 3, m, c/m]`."""
    return qkv.reshape(*qkv.shape[:2], 3, num_heads, -1)
