"""Queries from exemplars: objects shown by a mask or by a point, and the background around them (spec: tarvis 4.4).

The published system lists the pixels of every query and samples the stride-4 map at each (nearest). Many pixels fall in
one cell, and attention to the same key n times is attention to it once with weight n. So a query here has a *count* per
cell: nothing is gathered, shapes do not depend on the masks, and all pixels take part, where the published lists are
cut to a random 2,048 (training) or 16,384 (inference).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models.initializers import normal
from vps_jax.models.layers import MLP, FeedForward, LayerNorm, scan, torch_dense
from vps_jax.models.mask_decoder import Attention
from vps_jax.ops import position
from vps_jax.shapes import Bool, Float
from vps_jax.types import Array

GRID = (4, 4)  # background queries over the padded image
CELL = 4  # pixels of a side of a stride-4 cell
PARTS = {True: 4, False: 8}  # queries per mask object, in training and else
SCALES = 4


def part_counts(masks: Bool[Array, "b n r h w"], parts: int) -> Float[Array, "b {masks.shape[1]*parts} cells"]:
    """How many pixels of each cell belong to each query of an object.

    The pixels of a mask in raster order are cut into `parts` nearly equal runs; a mask of n < parts pixels is listed
    ceil(parts / n) times before it is cut.

    Args:
      masks: bool `[b, n, r, h, w]`, on the reference frames, `h` and `w` multiples of 4.
      parts: queries per object.

    Returns:
      float32 `[b, n * parts, r * h/4 * w/4]`, all zero for an empty mask.
    """
    b, n, *size = masks.shape
    flat = masks.reshape(b, n, np.prod(size))
    rank = jnp.cumsum(flat, axis=-1, dtype=jnp.int32) - 1
    pixels = jnp.maximum(rank[..., -1:] + 1, 1)  # [b, n, 1]
    entries = pixels * -(-parts // pixels)
    base, extra = entries // parts, entries % parts

    def count(part):
        start, end = (k * base + jnp.minimum(k, extra) for k in (part, part + 1))
        # entries start..end-1 that are the pixel of this rank, which comes back every `pixels` entries
        times = (end - 1 - rank) // pixels - (start - 1 - rank) // pixels
        return _cells(jnp.where(flat, times, 0).reshape(masks.shape))

    counts = jnp.stack([count(part) for part in range(parts)], axis=2)  # [b, n, parts, cells]
    return counts.reshape(b, n * parts, counts.shape[-1])


def background_counts(masks: Bool[Array, "b n r h w"]) -> Float[Array, "b 16 cells"]:
    """How many pixels of each cell are in each tile of a 4x4 grid and in no object: `[b, n, r, h, w]` to `[b, 16, s]`.

    Tiles are those of the published `round(linspace(-0.499, 3.499, size))`.
    """
    height, width = masks.shape[-2:]
    rows, columns = (
        jnp.asarray(np.round(np.linspace(-0.499, n - 0.501, size)).astype(np.int32))
        for n, size in zip(GRID, (height, width), strict=True)
    )
    tile = rows[:, None] * GRID[1] + columns  # [h, w]
    free = ~masks.any(axis=1)  # [b, r, h, w]
    counts = [_cells(free & (tile == k)) for k in range(GRID[0] * GRID[1])]
    return jnp.stack(counts, axis=1)


def _cells(pixels):
    """Sum of every 4x4 block: `[..., r, h, w]` to float32 `[..., r * h/4 * w/4]`."""
    *lead, r, h, w = pixels.shape
    blocks = pixels.reshape(*lead, r, h // CELL, CELL, w // CELL, CELL)
    sums = blocks.sum(axis=(-3, -1), dtype=jnp.int32)
    return sums.reshape(*lead, r * (h // CELL) * (w // CELL)).astype(jnp.float32)


def nearest(maps: Float[Array, "b p h w c"], points: Float[Array, "b p 2"]) -> Float[Array, "b p c"]:
    """Rows of `maps [b, p, h, w, c]` at `points [b, p, 2]` (y, x in 0..1), zero outside; `[b, p, c]`."""
    size = jnp.asarray(maps.shape[2:4])
    index = jnp.round(points * size - 0.5).astype(jnp.int32)
    inside = ((index >= 0) & (index < size)).all(axis=-1, keepdims=True)
    y, x = jnp.moveaxis(jnp.clip(index, 0, size - 1), -1, 0)  # [b, p]
    b, p = np.ogrid[: maps.shape[0], : maps.shape[1]]
    return jnp.where(inside, maps[b, p, y, x], 0)


class ObjectLayer(nn.Module):
    """Self-attention of all queries, cross-attention of each to its own pixels, feed-forward; post-norm."""

    num_heads: int
    ffn_dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, embed, memory, counts, point_memory):
        """`x`, `embed [b, q, c]`, the last `p` queries being points.

        Args:
          memory: keys and values `[b, s, c]` that the other queries share.
          counts: `[b, q - p, s]`, how often each key counts for each of them.
          point_memory: keys and values `[b, p, 4, c]`.
        """
        mix = Attention(self.num_heads, self.dtype, name="self_attention")
        x = LayerNorm(name="self_norm")(x + mix(x + embed, x + embed, x))
        cross = Attention(self.num_heads, self.dtype, name="cross_attention")
        shared, own = jnp.split(x + embed, [counts.shape[1]], axis=1)
        attended = [cross(shared, *memory, counts)]
        if own.shape[1]:
            flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (own[:, :, None], *point_memory))  # [b p, ., c]
            attended.append(cross(*flat).reshape(own.shape))
        x = LayerNorm(name="cross_norm")(x + jnp.concatenate(attended, axis=1))
        return LayerNorm(name="ffn_norm")(x + FeedForward(self.ffn_dim, self.dtype, name="ffn")(x)), None


class ObjectEncoder(nn.Module):
    """Background, mask and point queries of a clip from its features on the reference frames."""

    hidden_dim: int
    num_heads: int
    ffn_dim: int
    num_layers: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps, exemplars: Mapping[str, Any], *, train: bool = False):
        """Encode.

        Args:
          maps: the neck's levels (strides 32, 16, 8) and mask features, `[b, t, h, w, c]`.
          exemplars: `frames` int32 `[b, r]`, the reference frames: those in which some object is first seen, or that
            the last clip covered too; `masks` bool `[b, n, r, h, w]` on the padded image, empty on frames other than
            the object's own; for objects shown by points also `points` float `[b, p, 2]` (y, x in 0..1 of the padded
            image) and `point_frames` int32 `[b, p]`, the clip frame of each.

        Returns:
          Background queries `[b, 16, c]` and object queries `[b, n * 4 + p, c]` (8 for 4 outside of training).
        """
        levels, mask_features = maps
        masks, frames = exemplars["masks"], exemplars["frames"]
        features = jax.vmap(lambda f, i: f[i])(mask_features, frames)  # [b, r, h4, w4, c]
        memory = self.cell_memory(jax.lax.stop_gradient(features).astype(jnp.float32))
        parts = [background_counts(masks), part_counts(masks, PARTS[train])]
        counts = with_null(jnp.concatenate(parts, axis=1))  # [b, 16 + n parts, s + 1]
        content = jnp.einsum("bqs,bsc->bqc", counts / counts.sum(axis=-1, keepdims=True), memory[1])

        points, point_memory = self.points(levels, mask_features, exemplars)
        names = ("bg", "mask_object", "point_object")
        embeds = [self.param(f"{name}_embed", normal, (self.hidden_dim,)) for name in names]
        sizes = (parts[0].shape[1], parts[1].shape[1], points.shape[1])
        x = jnp.concatenate([content, points], axis=1)
        embed = jnp.broadcast_to(jnp.repeat(jnp.stack(embeds), np.array(sizes), axis=0), x.shape)
        layers = scan(
            self,
            ObjectLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.num_layers,
        )(self.num_heads, self.ffn_dim, self.dtype, name="layers")
        x, _ = layers(x, embed, memory, counts, point_memory)
        return jnp.split(x, [sizes[0]], axis=1)

    def cell_memory(self, features: Float[Array, "b r h4 w4 c"]) -> tuple[Float[Array, "b s c"], Float[Array, "b s c"]]:
        """Keys and values of all cells and of one outside of the image (zero): two `[b, r h4 w4 + 1, c]`."""
        b, _, h, w, c = features.shape
        code = position.sine_2d(h, w, c, normalize=False)
        flat = [a.reshape(b, -1, c) for a in (features + code, features)]
        return tuple(jnp.pad(a, ((0, 0), (0, 1), (0, 0))) for a in flat)

    def points(self, levels, mask_features, exemplars):
        """Contents of point queries `[b, p, c]`, and their four keys and values, each `[b, p, 4, c]`."""
        at = exemplars.get("points")
        if at is None:
            if not self.is_initializing():
                empty = jnp.zeros((mask_features.shape[0], 0, self.hidden_dim))
                return empty, (empty[:, :, None], empty[:, :, None])
            at = jnp.zeros((mask_features.shape[0], 1, 2))
            exemplars = {"point_frames": jnp.zeros(at.shape[:2], jnp.int32)}
        frame = jax.vmap(lambda f, i: f[i])
        samples = [
            nearest(frame(m, exemplars["point_frames"]).astype(jnp.float32), at) for m in (*levels, mask_features)
        ]
        _, _, h, w, c = mask_features.shape
        code = nearest(jnp.broadcast_to(position.sine_2d(h, w, c, normalize=False), (*at.shape[:2], h, w, c)), at)
        values = jnp.stack(
            [torch_dense(c, c, jnp.float32, f"point_keys_{i}")(samples[i]) for i in range(SCALES)], axis=2
        )  # [b, p, 4, c]
        content = MLP(c, name="point_content")(jnp.concatenate(samples, axis=-1))
        return content, (values + code[:, :, None], values)


def with_null(counts: Float[Array, "b q s"]) -> Float[Array, "b q s+1"]:
    """One more key, outside of the image, for a query without any pixel. `[b, q, s]` to `[b, q, s + 1]`."""
    return jnp.concatenate([counts, (counts.sum(axis=-1, keepdims=True) == 0).astype(counts.dtype)], axis=-1)
