"""Mask2Former on a ViT-Adapter: per-frame semantic segmentation by mask classification (spec: vit_adapter 4, 5, 8)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from vps_jax.models.layers import LayerNorm
from vps_jax.models.mask_decoder import LEVELS, MaskedDecoder, torch_dense
from vps_jax.models.pixel_decoder import PixelDecoder
from vps_jax.models.tarvis import PIXEL_MEAN, PIXEL_STD, MaskEmbed
from vps_jax.models.vit_adapter import ViTAdapter
from vps_jax.ops.position import sine_2d
from vps_jax.types import QueryOutputs, UserError

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
TASK = "mask_classification"
GROUP = "object"

# Rows of numbers; every key may be overridden in a config. Source: spec vit_adapter 8.
_HEAD_LARGE = dict(hidden_dim=1024, num_heads=32, encoder_layers=6, decoder_layers=9, ffn_dim=4096, queries=100)
_LARGE = dict(width=1024, trunk_heads=16, groups=(6, 6, 6, 6), deform_heads=16, drop_path_rate=0.3, **_HEAD_LARGE)
_BEIT_LARGE = dict(beit=True, init_values=1e-6, **_LARGE)
_SMALL = dict(
    width=192, trunk_heads=3, groups=(3, 3, 3, 3), deform_heads=6, drop_path_rate=0.0, hidden_dim=128, num_heads=8,
    encoder_layers=6, decoder_layers=9, ffn_dim=512, queries=30,
)  # fmt: skip
SIZES: dict[str, dict] = {
    "beit_large_640": dict(_BEIT_LARGE, image_size=(640, 640)),
    "beit_large_896": dict(_BEIT_LARGE, image_size=(896, 896), queries=200),
    "vit_large_384": dict(
        _LARGE,
        beit=False,
        image_size=(384, 384),
        drop_path_rate=0.4,
        pixel_mean=(127.5,) * 3,
        pixel_std=(127.5,) * 3,
    ),
    # the golden files' own
    "beit_small_128": dict(_SMALL, beit=True, image_size=(128, 128), init_values=1e-6),
    "vit_small_224": dict(_SMALL, beit=False, image_size=(224, 224)),
    # trains on two cores
    "beit_tiny_96": dict(
        beit=True,
        image_size=(96, 96),
        init_values=1.0,
        width=96,
        trunk_heads=3,
        groups=(1, 1, 1, 1),
        deform_heads=6,
        prior_width=16,
        drop_path_rate=0.0,
        hidden_dim=96,
        num_heads=4,
        encoder_layers=2,
        decoder_layers=3,
        ffn_dim=192,
        queries=40,
    ),  # fmt: skip
}
DEFAULTS = dict(
    semantic_groups=(("VSPW", 124),),
    mlp_ratio=4.0,
    init_values=1.0,
    windows=(),
    prior_width=64,
    deform_points=4,
    deform_ratio=0.5,
    ffn_ratio=0.25,
    pixel_mean=PIXEL_MEAN,
    pixel_std=PIXEL_STD,
    remat=True,
    dtype="float32",
)


class Heads(nn.Module):
    """Norm, class logits (no-object last) and mask embeddings, in float32 whatever the compute dtype."""

    width: int
    classes: int

    def setup(self):
        self.norm = LayerNorm()
        self.cls_embed = torch_dense(self.classes + 1, self.width, jnp.float32, None)
        self.mask_embed = MaskEmbed(self.width)

    def __call__(self, x):
        """Queries `[..., q, c]` to class logits `[..., q, k + 1]` and mask embeddings `[..., q, c]`."""
        y = self.norm(x)
        return self.cls_embed(y), self.mask_embed(y)

    def mask_embeds(self, x):
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
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        normal = nn.initializers.normal(1.0)
        rows = (self.queries, self.hidden_dim)
        self.query_feat = self.param("query_feat", normal, rows)
        self.query_embed = self.param("query_embed", normal, rows)
        self.level_embed = self.param("level_embed", normal, (3, self.hidden_dim))
        self.decoder = MaskedDecoder(self.decoder_layers, self.num_heads, self.ffn_dim, self.remat, self.dtype)
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

    def backbone_features(self, images, *, train: bool = False):
        """Maps `[b, 1, h_i, w_i, c]` at strides 4, 8, 16, 32 of images `[b, 1, h, w, 3]`."""
        if images.shape[1] != 1:
            raise UserError(f"clip of {images.shape[1]} frames: this model takes frames one by one; set clip_frames 1")
        maps = self.backbone(self.normalize(images[:, 0]), train=train)
        return tuple(m[:, None] for m in maps)

    def decode_features(self, features, *, task: str = TASK, group: str | None = None):
        """The last prediction set only (`d = 1`) from the maps of `backbone_features`."""
        self.check(task, group)
        return last_set(self.decode(features))

    def semantic_scores(self, frames):
        """Class scores of frames, the last prediction set's.

        Args:
          frames: uint8 or float `[n, h, w, 3]`.

        Returns:
          float32 `[n, h/4, w/4, k]`: sum over queries of class probability times mask probability, 0..q.
        """
        return semantic_scores(self.decode_features(self.backbone_features(frames[:, None])))[:, 0]

    def normalize(self, images):
        images = images.astype(jnp.float32)
        return (images - jnp.asarray(self.pixel_mean, jnp.float32)) / jnp.asarray(self.pixel_std, jnp.float32)

    def decode(self, maps, *, attend=None) -> QueryOutputs:
        """Maps `[b, 1, h_i, w_i, c]` to predictions."""
        mask_features, levels = self.pixel_decoder([m[:, 0] for m in maps])
        b = mask_features.shape[0]
        x, embed = (jnp.broadcast_to(a, (b, *a.shape)) for a in (self.query_feat, self.query_embed))
        if self.is_initializing():
            self.heads(x)
        heads, variables = self.heads.unbind()  # pure, for use inside the decoder's scan
        memories, positions = zip(*(self.memory(i, level) for i, level in enumerate(levels)), strict=True)
        mask_features = mask_features[:, None]
        x = self.decoder(
            x,
            embed,
            memories,
            positions,
            mask_features,
            lambda x: heads.apply(variables, x, method="mask_embeds"),
            attend,
        )  # [d, b, q, c]
        class_logits, mask_embeds = self.heads(x)
        return QueryOutputs(mask_features, {GROUP: mask_embeds}, class_logits, x)

    def memory(self, i: int, level):
        """Tokens with level embedding and their positions: `[b, h w, c]` and `[1, h w, c]`."""
        b, h, w, c = level.shape
        tokens = level.reshape(b, -1, c) + self.level_embed[i].astype(level.dtype)
        return tokens, sine_2d(h, w, c).reshape(1, -1, c).astype(level.dtype)


def last_set(outputs: QueryOutputs) -> QueryOutputs:
    """The final prediction set alone, `d = 1`; the compiler leaves the heads of the others out."""
    return outputs._replace(
        mask_embeds={name: embeds[-1:] for name, embeds in outputs.mask_embeds.items()},
        class_logits=outputs.class_logits[-1:],
        queries=outputs.queries[-1:],
    )


def semantic_scores(outputs: QueryOutputs):
    """Scores `[b, t, h4, w4, k]` of the last prediction set; see `Mask2Former.semantic_scores`."""
    classes = jax.nn.softmax(outputs.class_logits[-1], axis=-1)[..., :-1]  # [b, q, k]
    features = outputs.mask_features.astype(jnp.float32)
    masks = jax.nn.sigmoid(jnp.einsum("bthwc,bqc->bthwq", features, outputs.mask_embeds[GROUP][-1]))
    return jnp.einsum("bthwq,bqk->bthwk", masks, classes)


def from_config(config_model: Mapping) -> Mask2Former:
    """The model of a config.

    Args:
      config_model: `name='mask2former'`, `size` (a row of `SIZES`), and any of
        `image_size` (h, w) of BEiT's tables, or of the images that a plain ViT's positions come from;
        `semantic_groups` ((label set, classes),);
        `queries`, `hidden_dim`, `num_heads`, `ffn_dim`, `encoder_layers`, `decoder_layers` of the head;
        `beit`, `width`, `trunk_heads`, `groups` (blocks per interaction), `mlp_ratio`, `init_values`, `windows` of the
        trunk; `prior_width`, `deform_heads`, `deform_points`, `deform_ratio`, `ffn_ratio` of the adapter;
        `drop_path_rate`, `pixel_mean`, `pixel_std`, `remat`, `dtype`.

    Raises:
      UserError: an unknown size or key, or numbers that do not fit together.
    """
    n = numbers(config_model)
    check_numbers(n)
    dtype = DTYPES[n["dtype"]]
    backbone = ViTAdapter(
        beit=n["beit"],
        image_size=tuple(n["image_size"]),
        width=n["width"],
        num_heads=n["trunk_heads"],
        groups=tuple(n["groups"]),
        mlp_ratio=n["mlp_ratio"],
        init_values=n["init_values"],
        windows=tuple(n["windows"]),
        drop_path_rate=n["drop_path_rate"],
        prior_width=n["prior_width"],
        deform_heads=n["deform_heads"],
        deform_points=n["deform_points"],
        deform_ratio=n["deform_ratio"],
        ffn_ratio=n["ffn_ratio"],
        remat=n["remat"],
        dtype=dtype,
    )
    pixel_decoder = PixelDecoder(n["hidden_dim"], n["encoder_layers"], n["num_heads"], n["ffn_dim"], n["remat"], dtype)
    head = {key: n[key] for key in ("queries", "hidden_dim", "num_heads", "decoder_layers", "ffn_dim", "remat")}
    groups = tuple((str(name), int(classes)) for name, classes in n["semantic_groups"])
    pixels = {key: tuple(n[key]) for key in ("pixel_mean", "pixel_std")}
    return Mask2Former(backbone, pixel_decoder, groups, **head, **pixels, dtype=dtype)


def check_numbers(n: Mapping) -> None:
    """Refuse numbers that do not fit together."""
    depth, points = sum(n["groups"]), int(n["width"] * n["deform_ratio"])
    rules = (
        (len(n["semantic_groups"]) == 1, "semantic_groups", "one label set, one pair (name, classes)"),
        (not (n["beit"] and n["windows"]), "windows", "() for BEiT, which has no windows; set beit=False for a ViT"),
        (len(n["windows"]) in (0, depth), "windows", f"one for each of the {depth} blocks, or ()"),
        (len(n["groups"]) == 4, "groups", "the blocks of four interactions, one per map"),
        (n["width"] % n["trunk_heads"] == 0, "trunk_heads", f"a divisor of width={n['width']}"),
        (points % n["deform_heads"] == 0, "deform_heads", f"a divisor of width * deform_ratio = {points}"),
        (n["hidden_dim"] % 32 == 0, "hidden_dim", "a multiple of 32, the groups of its norms"),
        (n["hidden_dim"] % n["num_heads"] == 0, "num_heads", f"a divisor of hidden_dim={n['hidden_dim']}"),
        (n["decoder_layers"] % LEVELS == 0, "decoder_layers", f"a multiple of {LEVELS}"),
        (n["dtype"] in DTYPES, "dtype", " or ".join(DTYPES)),
    )
    for holds, key, expected in rules:
        if not holds:
            raise UserError(f"model.{key}={n[key]!r}: expected {expected}; change it in the config")


def numbers(config_model: Mapping) -> dict:
    """All numbers of a config: defaults, the row of its size, and its own."""
    own = {key: value for key, value in dict(config_model).items() if key not in ("name", "size")}
    size = config_model.get("size")
    if size not in SIZES:
        raise UserError(f"model.size={size!r}; choose one of {', '.join(SIZES)}")
    row = DEFAULTS | SIZES[size]
    unknown = sorted(set(own) - set(row))
    if unknown:
        raise UserError(f"model keys {unknown} are not of Mask2Former; expected some of {', '.join(sorted(row))}")
    return row | own
