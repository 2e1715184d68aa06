"""TarViS: one network for every video segmentation task; only the queries differ (spec: tarvis 1-5).

frames -> backbone (per frame) -> temporal neck (per clip) -> query decoder -> mask embeddings and class logits.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.config import Tarvis
from vps_jax.models import mask_decoder
from vps_jax.models.backbones import STRIDES, backbone_row
from vps_jax.models.initializers import normal
from vps_jax.models.layers import DTYPES, MLP, LayerNorm, normalize, torch_dense
from vps_jax.models.object_encoder import ObjectEncoder
from vps_jax.models.query_bank import QueryBank, QuerySet, SemanticGroups
from vps_jax.models.temporal_neck import TemporalNeck
from vps_jax.ops.levels import LEVELS
from vps_jax.ops.position import sine_3d
from vps_jax.parsing import check_rules, parse
from vps_jax.shapes import Float, Shaped
from vps_jax.types import Array, QueryOutputs, UserError

GROUPS = ("background", "semantic", "instance")
VOS_GROUPS = ("background_vos", "vos")


class Heads(nn.Module):
    """Norm, mask embedding per query group and class projections, in float32 whatever the compute dtype.

    `free` and the projections of the VOS groups never run; the published files hold them.
    """

    width: int
    vos: bool

    def setup(self):
        groups = GROUPS + (VOS_GROUPS if self.vos else ())
        self.norm = LayerNorm()
        self.mask_embed = {g: MLP(self.width) for g in groups + (("free",) if self.vos else ())}
        linear = functools.partial(torch_dense, self.width, self.width, jnp.float32)
        self.proj = {g: linear(None) for g in groups}

    def __call__(self, x):
        """Runs every layer once, so that initialisation makes all parameters."""
        y = self.norm(x)
        return [head(y) for head in (*self.mask_embed.values(), *self.proj.values())]

    def mask_embeds(self, x: Float[Array, "*n q c"], groups: SemanticGroups) -> dict[str, Float[Array, "*n _ c"]]:
        """Queries `[..., q, c]` to mask embeddings, group name -> `[..., q_group, c]`."""
        return {name: self.mask_embed[name](part) for name, part in split(self.norm(x), groups).items()}

    def class_logits(self, x: Float[Array, "*n q c"], groups: SemanticGroups) -> Float[Array, "*n i k"] | None:
        """Products of instance queries with background (their maximum, first) and semantic queries.

        Args:
          x: `[..., q, c]`.

        Returns:
          `[..., instances, 1 + k]`, or None where the set has no instance queries.
        """
        parts = split(self.norm(x), groups)
        if not {"instance", "semantic"} <= set(parts):
            return None
        instance, background, semantic = (self.proj[g](parts[g]) for g in ("instance", "background", "semantic"))
        product = functools.partial(jnp.einsum, "...ic,...kc->...ik", instance)
        return jnp.concatenate([product(background).max(axis=-1, keepdims=True), product(semantic)], axis=-1)


def split(x: Float[Array, "*n q c"], groups: SemanticGroups) -> dict[str, Float[Array, "*n _ c"]]:
    """Cut `[..., q, c]` into its groups."""
    parts, start = {}, 0
    for name, size in groups:
        parts[name] = x[..., start : start + size, :]
        start += size
    return parts


class TarViS(nn.Module):
    """The network. `backbone` and `neck` are modules; see `from_config` for the sizes.

    `backbone(frames [n, h, w, 3], train=...)` gives four maps of strides 4..32; `neck` makes of them, as
    `[b, t, h_i, w_i, c_i]`, the levels of strides 32, 16, 8 and the mask features, with `hidden_dim` channels.
    """

    backbone: nn.Module
    neck: nn.Module
    semantic_groups: SemanticGroups
    instance_queries: int
    hidden_dim: int
    num_heads: int
    decoder_layers: int
    decoder_ffn_dim: int
    vos: bool
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.queries = QueryBank(self.semantic_groups, self.instance_queries, self.hidden_dim, self.vos)
        self.level_embed = self.param("level_embed", normal, (LEVELS, self.hidden_dim))
        self.decoder = mask_decoder.MaskedDecoder(
            self.decoder_layers, self.num_heads, self.decoder_ffn_dim, self.remat, self.dtype
        )
        self.heads = Heads(self.hidden_dim, self.vos)
        if self.vos:
            self.object_encoder = ObjectEncoder(self.hidden_dim, self.num_heads, self.decoder_ffn_dim, dtype=self.dtype)

    def __call__(
        self,
        images: Shaped[Array, "b t h w 3"],
        *,
        task: str,
        group: str | None = None,
        train: bool = False,
        exemplars: Mapping[str, Any] | None = None,
    ) -> QueryOutputs:
        """Predict from every set of queries: the initial ones and those after each decoder layer.

        Args:
          images: uint8 or float `[b, t, h, w, 3]`, RGB 0..255, sides multiples of 64.
          task: `panoptic`, `instance`, `semantic` or `vos`.
          group: semantic group; the first one when left out.
          train: turns drop path on (needs the rng `drop_path`) and makes fewer queries per object for `vos`.
          exemplars: the objects of `vos`; see `ObjectEncoder`.

        Returns:
          `types.QueryOutputs` with `d = 1 + decoder_layers`.

        Raises:
          UserError: no such task or group, or `vos` on a model without object encoder.
        """
        maps = self.neck(self.backbone_features(images, train=train))
        return self.decode(maps, task=task, group=group, exemplars=exemplars, train=train)

    def backbone_features(
        self, images: Shaped[Array, "b t h w 3"], *, train: bool = False
    ) -> tuple[Float[Array, "b t _ _ _"], ...]:
        """Per-frame maps `[b, t, h_i, w_i, c_i]` at strides 4, 8, 16, 32."""
        b, t = images.shape[:2]
        frames = normalize(images).reshape(b * t, *images.shape[2:])
        return tuple(x.reshape(b, t, *x.shape[1:]) for x in self.backbone(frames, train=train))

    def decode_features(
        self,
        features: Sequence[Float[Array, "b t _ _ _"]],
        *,
        task: str,
        group: str | None = None,
        exemplars: Mapping[str, Any] | None = None,
    ) -> QueryOutputs:
        """The last prediction set only (`d = 1`) from the maps of `backbone_features`."""
        return self.decode(self.neck(features), task=task, group=group, exemplars=exemplars, last=True)

    def neck_maps(self, features):
        """The neck's levels of strides 32, 16, 8 and mask features of stride 4, from `backbone_features`."""
        return self.neck(features)

    def decode(self, maps, *, task, group=None, exemplars=None, attend=None, train=False, last=False) -> QueryOutputs:
        """Predict from the maps of the neck.

        Args:
          maps: levels of strides 32, 16, 8 and the mask features, each `[b, t, h, w, c]`.
          task, group, exemplars, train: see `__call__`.
          attend: attention masks to use in place of one's own; see `MaskedDecoder`.
          last: keep the last prediction set only.
        """
        levels, mask_features = maps
        query_set = self.query_set(maps, task, group, exemplars, train)
        if self.is_initializing():
            self.heads(query_set.content)
        embed_groups = mask_decoder.pure(self.heads, "mask_embeds")

        def mask_embeds(x):
            return jnp.concatenate(list(embed_groups(x, query_set.groups).values()), axis=1)

        memories, positions = mask_decoder.level_memories(levels, self.level_embed, sine_3d, self.dtype)
        x = self.decoder(
            query_set.content, query_set.embed, memories, positions, mask_features, mask_embeds, attend
        )  # [d, b, q, c]
        x = x[-1:] if last else x
        return QueryOutputs(
            mask_features=mask_features,
            mask_embeds=self.heads.mask_embeds(x, query_set.groups),
            class_logits=self.heads.class_logits(x, query_set.groups),
            queries=x,
        )

    def query_set(self, maps, task: str, group: str | None = None, exemplars=None, train: bool = False) -> QuerySet:
        """Initial queries of a task; for `vos` made from the exemplars."""
        batch, _, h, w, _ = maps[1].shape
        if self.vos and self.is_initializing():
            shown = {"masks": jnp.zeros((batch, 1, 1, 4 * h, 4 * w), bool), "frames": jnp.zeros((batch, 1), jnp.int32)}
            self.object_encoder(maps, shown)
        if task != "vos":
            return self.queries.task_set(task, group or self.semantic_groups[0][0], batch)
        if not self.vos or exemplars is None:
            raise UserError("task 'vos' needs exemplars and a model with an object encoder; set config.model.vos=True")
        return self.queries.object_set(*self.object_encoder(maps, exemplars, train=train))


def from_config(given: Mapping[str, Any] | Tarvis) -> TarViS:
    """The model of `config.model`, on any backbone of `models.backbones` with maps of strides 4, 8, 16, 32.

    Raises:
      UserError: an unknown key or backbone, or numbers that do not fit together.
    """
    config = parse(Tarvis, given, "model")
    check(config)
    shared = {"remat": config.remat, "dtype": DTYPES[config.dtype]}
    neck = TemporalNeck(config.hidden_dim, config.num_heads, config.neck_layers, config.neck_ffn_dim, **shared)
    return TarViS(
        backbone=backbone_row(config.backbone).build(drop_path_rate=config.drop_path_rate, **shared),
        neck=neck,
        semantic_groups=config.semantic_groups,
        instance_queries=config.instance_queries,
        hidden_dim=config.hidden_dim,
        num_heads=config.num_heads,
        decoder_layers=config.decoder_layers,
        decoder_ffn_dim=config.decoder_ffn_dim,
        vos=config.vos,
        **shared,
    )


def check(config: Tarvis) -> None:
    """Refuse numbers that do not fit together."""
    strides = backbone_row(config.backbone).strides
    rules = (
        (strides == STRIDES, "backbone", f"one with maps of strides {STRIDES}; this one has {strides}"),
        (config.decoder_layers % LEVELS == 0, "decoder_layers", f"a multiple of {LEVELS}: the maps take turns"),
        (config.hidden_dim % config.num_heads == 0, "hidden_dim", f"a multiple of num_heads={config.num_heads}"),
        (len(config.semantic_groups) > 0, "semantic_groups", "at least one pair (name, classes)"),
    )
    check_rules(config, rules, "model")
