"""Mask2Former on a ViT-Adapter: per-frame semantic segmentation by mask classification (spec: vit_adapter 4, 5, 8)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax import config
from vps_jax.models import mask_decoder
from vps_jax.models.initializers import normal
from vps_jax.models.layers import DTYPES, MLP, PIXEL_MEAN, PIXEL_STD, LayerNorm, normalize, torch_dense
from vps_jax.models.mask2former_sizes import sized
from vps_jax.models.pixel_decoder import PixelDecoder
from vps_jax.models.vit_adapter import ViTAdapter
from vps_jax.ops.levels import LEVELS
from vps_jax.ops.position import sine_2d
from vps_jax.shapes import Float, Shaped
from vps_jax.types import Array, QueryOutputs, UserError

TASK = "mask_classification"
GROUP = "object"


class Heads(nn.Module):
    """Norm, class logits (no-object last) and mask embeddings, in float32 whatever the compute dtype."""

    width: int
    classes: int

    def setup(self):
        self.norm = LayerNorm()
        self.cls_embed = torch_dense(self.classes + 1, self.width, jnp.float32, None)
        self.mask_embed = MLP(self.width)

    def __call__(
        self, x: Float[Array, "*n q c"]
    ) -> tuple[Float[Array, "*n q {self.classes+1}"], Float[Array, "*n q c"]]:
        """Queries to class logits, no-object last, and mask embeddings."""
        y = self.norm(x)
        return self.cls_embed(y), self.mask_embed(y)

    def mask_embeds(self, x: Float[Array, "*n q c"]) -> Float[Array, "*n q c"]:
        return self.mask_embed(self.norm(x))


class Mask2Former(nn.Module):
    """The network; see `from_config` for the sizes.

    Attributes:
      backbone: gives maps of strides 4, 8, 16, 32 from normalised images.
      pixel_decoder: gives mask features and memories of strides 32, 16, 8.
      semantic_groups: one `(name, classes)`, the label set.
      queries: number of queries.
      hidden_dim: channels c of queries, memories and mask features.
      num_heads, decoder_layers, ffn_dim: of the decoder.
      pixel_mean, pixel_std: of RGB values 0..255.
      remat: keep only the inputs of decoder rounds for the backward pass.
      dtype: compute dtype.
    """

    backbone: nn.Module
    pixel_decoder: nn.Module
    semantic_groups: tuple[tuple[str, int], ...]
    queries: int
    hidden_dim: int
    num_heads: int
    decoder_layers: int
    ffn_dim: int
    pixel_mean: tuple[float, ...] = PIXEL_MEAN
    pixel_std: tuple[float, ...] = PIXEL_STD
    remat: bool = True
    dtype: DTypeLike = jnp.float32

    def setup(self):
        rows = (self.queries, self.hidden_dim)
        self.query_feat = self.param("query_feat", normal, rows)
        self.query_embed = self.param("query_embed", normal, rows)
        self.level_embed = self.param("level_embed", normal, (LEVELS, self.hidden_dim))
        self.decoder = mask_decoder.MaskedDecoder(
            self.decoder_layers, self.num_heads, self.ffn_dim, self.remat, self.dtype
        )
        self.heads = Heads(self.hidden_dim, self.semantic_groups[0][1])

    def __call__(self, images, *, task: str = TASK, group: str | None = None, train: bool = False, attend=None):
        """Predict from every set of queries: the initial ones and those after each decoder layer.

        Args:
          images: uint8 or float `[b, 1, h, w, 3]`, RGB 0..255, sides multiples of 32 (BEiT: its own size).
          task: `mask_classification`.
          group: name of the label set, or None.
          train: batch statistics (pass `mutable=['batch_stats']`) and stochastic depth (rng `drop_path`).
          attend: attention masks to use in place of one's own; see `MaskedDecoder`.

        Returns:
          `types.QueryOutputs` with the group `object`, `t = 1` and `d = 1 + decoder_layers`.

        Raises:
          UserError: another task or label set, more than one frame, or an image size that the backbone cannot take.
        """
        if self.is_initializing():  # variables belong to the model's own size, whatever size they are asked with
            images = jnp.zeros((*images.shape[:2], *self.backbone.image_size, 3))
        else:
            self.check(task, group)
        return self.decode(self.backbone_features(images, train=train), attend=attend)

    def check(self, task: str, group: str | None) -> None:
        name = self.semantic_groups[0][0]
        if task != TASK:
            raise UserError(f"task {task!r}: this Mask2Former does {TASK!r} only; choose a TarViS config for others")
        if group not in (None, name):
            raise UserError(f"label set {group!r} is not in the model; expected {name!r}")

    def backbone_features(
        self, images: Shaped[Array, "b t h w 3"], *, train: bool = False
    ) -> tuple[Float[Array, "b 1 _ _ _"], ...]:
        """Maps `[b, 1, h_i, w_i, c]` at strides 4, 8, 16, 32 of images `[b, 1, h, w, 3]`."""
        if images.shape[1] != 1:
            raise UserError(f"clip of {images.shape[1]} frames: this model takes frames one by one; set clip_frames 1")
        maps = self.backbone(normalize(images[:, 0], self.pixel_mean, self.pixel_std), train=train)
        return tuple(m[:, None] for m in maps)

    def decode_features(
        self, features: Sequence[Float[Array, "b 1 _ _ _"]], *, task: str = TASK, group: str | None = None
    ) -> QueryOutputs:
        """The last prediction set only (`d = 1`) from the maps of `backbone_features`."""
        self.check(task, group)
        return last_set(self.decode(features))

    def decode(self, maps, *, attend=None) -> QueryOutputs:
        """Maps `[b, 1, h_i, w_i, c]` to predictions."""
        mask_features, levels = self.pixel_decoder([m[:, 0] for m in maps])
        b = mask_features.shape[0]
        x, embed = (jnp.broadcast_to(a, (b, *a.shape)) for a in (self.query_feat, self.query_embed))
        if self.is_initializing():
            self.heads(x)
        memories, positions = mask_decoder.level_memories(levels, self.level_embed, sine_2d, self.dtype)
        mask_features, mask_embeds = mask_features[:, None], mask_decoder.pure(self.heads, "mask_embeds")
        x = self.decoder(x, embed, memories, positions, mask_features, mask_embeds, attend)  # [d, b, q, c]
        class_logits, mask_embeds = self.heads(x)
        return QueryOutputs(mask_features, {GROUP: mask_embeds}, class_logits, x)


def last_set(outputs: QueryOutputs) -> QueryOutputs:
    """The final prediction set alone, `d = 1`; the compiler leaves the heads of the others out."""
    return outputs._replace(
        mask_embeds={name: embeds[-1:] for name, embeds in outputs.mask_embeds.items()},
        class_logits=outputs.class_logits[-1:],
        queries=outputs.queries[-1:],
    )


def from_config(given: Mapping[str, Any] | config.Mask2Former) -> Mask2Former:
    """The model of `config.model`; numbers that it leaves open are those of its size, see `mask2former_sizes`.

    Raises:
      UserError: an unknown size or key, or numbers that do not fit together.
    """
    full = sized(given)
    dtype = DTYPES[full.dtype]
    backbone = ViTAdapter(
        beit=full.beit,
        image_size=full.image_size,
        width=full.width,
        num_heads=full.trunk_heads,
        groups=full.groups,
        mlp_ratio=full.mlp_ratio,
        init_values=full.init_values,
        windows=full.windows,
        drop_path_rate=full.drop_path_rate,
        prior_width=full.prior_width,
        deform_heads=full.deform_heads,
        deform_points=full.deform_points,
        deform_ratio=full.deform_ratio,
        ffn_ratio=full.ffn_ratio,
        remat=full.remat,
        dtype=dtype,
    )
    return Mask2Former(
        backbone=backbone,
        pixel_decoder=PixelDecoder(
            full.hidden_dim, full.encoder_layers, full.num_heads, full.ffn_dim, full.remat, dtype
        ),
        semantic_groups=full.semantic_groups,
        queries=full.queries,
        hidden_dim=full.hidden_dim,
        num_heads=full.num_heads,
        decoder_layers=full.decoder_layers,
        ffn_dim=full.ffn_dim,
        pixel_mean=full.pixel_mean,
        pixel_std=full.pixel_std,
        remat=full.remat,
        dtype=dtype,
    )
