"""Parts of VidEoMT: the trunk that sees each frame alone, and the heads (spec: videomt 2, 4)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models import vit
from vps_jax.models.adapter_layers import Upsample2x
from vps_jax.models.initializers import linear_init
from vps_jax.models.layers import gelu, torch_dense
from vps_jax.models.vit import Block
from vps_jax.ops.depthwise import depthwise_3x3
from vps_jax.shapes import Bool, Float
from vps_jax.types import Array


class Trunk(nn.Module):
    """A plain ViT with class token, registers and LayerScale: DINOv2 (position table) or DINOv3 (rotary code).

    Attributes:
      depth: blocks.
      width: channels c.
      num_heads, mlp_ratio, init_values, eps: of the blocks, see `vit.Block`.
      patch: side of a patch, pixels.
      registers: learned tokens after the class token.
      table: side n of the square position table `[1, n n, c]`, resampled to other grids; 0 for rotary positions.
      remat: keep only the inputs of blocks for the backward pass.
      dtype: compute dtype; the residual stream is float32.
    """

    depth: int
    width: int
    num_heads: int
    mlp_ratio: float
    init_values: float
    eps: float
    patch: int
    registers: int
    table: int
    remat: bool
    dtype: DTypeLike = jnp.float32

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return 1 + self.registers

    @property
    def block(self) -> Block:
        """The unbound block."""
        sizes = {"mlp_ratio": self.mlp_ratio, "init_values": self.init_values, "eps": self.eps}
        return Block(self.num_heads, (0, 0), beit=False, dtype=self.dtype, **sizes, parent=None)

    def setup(self):
        self.patch_embed = vit.PatchEmbed(self.width, self.patch, self.dtype)
        self.cls_token = self.param("cls_token", linear_init, (1, 1, self.width))
        # DINOv2's own; nothing runs it, the published files hold it and lead there and back
        self.mask_token = self.param("mask_token", nn.initializers.zeros_init(), (1, 1, self.width))
        self.reg_token = self.param("reg_token", linear_init, (1, self.registers, self.width))
        if self.table:
            self.pos_embed = self.param("pos_embed", linear_init, (1, self.table**2, self.width))
        self.blocks = self.param("blocks", vit.stacked_init(self.block, self.depth, jnp.zeros((1, 1, self.width))))

    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n s {self.width}"]:
        """Normalised images `[n, h, w, 3]`, sides multiples of the patch, to tokens `[n, prefix + patches, c]`."""
        grid = (images.shape[1] // self.patch, images.shape[2] // self.patch)
        return vit.run_blocks(
            self.block,
            self.blocks,
            jnp.zeros(self.depth),
            self.embed(images),
            None,
            train=False,
            remat=self.remat,
            rotary=self.rotary(grid, self.prefix),
        )

    def embed(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n s {self.width}"]:
        """The tokens before the first block; class token and registers have no position."""
        patches = self.patch_embed(images).astype(jnp.float32)
        grid, n = patches.shape[1:3], patches.shape[0]
        patches = patches.reshape(n, -1, self.width)
        if self.table:
            patches = patches + vit.resampled_positions(self.pos_embed[0], grid)
        first = jnp.concatenate([self.cls_token, self.reg_token], axis=1)
        return jnp.concatenate([jnp.broadcast_to(first, (n, *first.shape[1:])), patches], axis=1)

    def rotary(self, grid: tuple[int, int], prefix: int):
        """The rotary code of `vit.Block` for patches after a prefix; None with a position table."""
        return None if self.table else vit.rotary_code(grid, self.width // self.num_heads, prefix)


class MaskHead(nn.Module):
    """Three linear layers with GELU between, from a query to its mask vector, in float32."""

    width: int

    @nn.compact
    def __call__(self, x):
        for i in range(3):
            x = torch_dense(self.width, x.shape[-1], jnp.float32, f"fc{i + 1}")(gelu(x) if i else x)
        return x


class Depthwise(nn.Module):
    """Depthwise 3x3 without bias, that starts as PyTorch's does."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        kernel = self.param("kernel", init, (3, 3, 1, x.shape[-1]))
        return depthwise_3x3(x.astype(self.dtype), kernel.astype(self.dtype))


class Upscale(nn.Module):
    """A map of twice the size: transposed convolution, GELU, depthwise 3x3 without bias, norm over channels."""

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
        """`[b, h, w, c]` to `[b, 2 h, 2 w, c]`."""
        x = Upsample2x(self.width, self.dtype, gelu, name="up")(x)
        x = Depthwise(self.dtype, name="depthwise")(x)
        return nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)


class Heads(nn.Module):
    """Classes and mask vectors of the queries, features of the patches.

    Attributes:
      width: channels c.
      classes: k; the class logits have "no object" last.
      upscales: doublings of the patch grid.
      dtype: compute dtype of the features; class logits and mask vectors are float32.
    """

    width: int
    classes: int
    upscales: int
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.class_head = torch_dense(self.classes + 1, self.width, jnp.float32, None)
        self.mask_head = MaskHead(self.width)
        self.upscale = [Upscale(self.width, self.dtype) for _ in range(self.upscales)]

    def __call__(
        self, queries: Float[Array, "b q c"], patches: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b q {self.classes+1}"], Float[Array, "b q c"], Float[Array, "b h4 w4 c"]]:
        """Predict.

        Args:
          queries: `[b, q, c]`.
          patches: `[b, h, w, c]`.

        Returns:
          class logits `[b, q, k + 1]`, mask vectors `[b, q, c]`, features `[b, h 2^u, w 2^u, c]`.
        """
        return self.class_head(queries), self.mask_head(queries), self.features(patches)

    def features(self, patches):
        for layer in self.upscale:
            patches = layer(patches)
        return patches

    def mask_vectors(self, queries):
        return self.mask_head(queries)


def keep_probability(step, start, end):
    """How likely a query keeps its mask at a training step: 1 until `start`, then falling, 0 from `end` (videomt 8)."""
    done = (step - start) / jnp.maximum(end - start, 1)
    return jnp.where(step < start, 1.0, (1 - jnp.clip(done, 0, 1)) ** 0.9)


def mask_bias(
    logits: Float[Array, "b q p"], open_rows: Bool[Array, "b q"], prefix: int
) -> Float[Array, "b 1 {prefix}+q+p {prefix}+q+p"]:
    """Attention bias that lets a query see only the patches inside of its mask; everything else stays open.

    Args:
      logits: mask logits at the patches `[b, q, h w]`.
      open_rows: bool `[b, q]`, queries without a mask this time.
      prefix: class token and registers between the queries and the patches.

    Returns:
      `[b, 1, n, n]` of 0 and -inf for the n tokens [queries, prefix, patches]. No row is closed entirely.
    """
    b, q, patches = logits.shape
    hidden = (logits <= 0) & ~open_rows[..., None]
    bias = jnp.where(hidden, -jnp.inf, 0.0)
    bias = jnp.pad(bias, ((0, 0), (0, prefix + patches), (q + prefix, 0)))
    return jax.lax.stop_gradient(bias)[:, None]
