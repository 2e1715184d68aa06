"""ViT-Adapter: a plain ViT or BEiT trunk that exchanges tokens with a feature pyramid (spec: vit_adapter 4).

The pyramid starts as the spatial prior. Before each group of blocks an injector lets the patch tokens look at the
pyramid; after it an extractor lets the pyramid look at the patch tokens.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.models.adapter_layers import Extractor, Injector, Upsample2x
from vps_jax.models.initializers import linear_init, normal
from vps_jax.models.layers import Maps
from vps_jax.models.spatial_prior import BatchNorm, SpatialPrior
from vps_jax.models.vit import Block, PatchEmbed, position_map, run_blocks, stacked_init
from vps_jax.ops.levels import LEVELS, slice_levels
from vps_jax.ops.resize import resize
from vps_jax.shapes import Float
from vps_jax.types import Array, UserError

EXTRAS = 2  # extractors after the last interaction


class Tokens(NamedTuple):
    """What the interactions pass on: patches `[b, h w, c]`, pyramid `[b, s, c]`, class token `[b, 1, c]` or None."""

    patches: jax.Array
    pyramid: jax.Array
    cls: jax.Array | None


class Interaction(NamedTuple):
    """The unbound layers of one interaction: injector, its group of blocks, extractor.

    Called with parameters; `remat` keeps only the inputs of each layer for the backward pass.
    """

    injector: Injector
    blocks: tuple[Block, ...]
    extractor: Extractor
    remat: bool
    train: bool

    def __call__(self, tokens: Tokens, params, rates, key):
        """Run.

        Args:
          tokens: before.
          params: of `injector` and `extractor`, and of `blocks` stacked `[n, ...]`.
          rates: stochastic depth of each block `[n]`.
          key: random key, None when not training.

        Returns:
          Tokens after, and the patch tokens after the injector.
        """
        inject = self.keep_inputs(lambda p, x, c: self.injector.apply({"params": p}, x, c))
        injected = inject(params["injector"], tokens.patches, tokens.pyramid)
        x = injected if tokens.cls is None else jnp.concatenate([tokens.cls, injected], axis=1)
        start = 0
        for block, run in itertools.groupby(self.blocks):  # blocks of one kind are scanned together
            stop = start + len(list(run))
            part = jax.tree.map(lambda a, s=start, e=stop: a[s:e], (params["blocks"], rates))
            x = run_blocks(block, *part, x, _fold(key, start), train=self.train, remat=self.remat)
            start = stop
        cls, patches = (None, x) if tokens.cls is None else (x[:, :1], x[:, 1:])
        pyramid = self.extract(params["extractor"], tokens.pyramid, patches, _fold(key, start))
        return Tokens(patches, pyramid, cls), injected

    def extract(self, params, pyramid, patches, key):
        def extractor(p, c, x):
            rngs = {"drop_path": key} if self.train else {}
            return self.extractor.apply({"params": p}, c, x, train=self.train, rngs=rngs)

        return self.keep_inputs(extractor)(params, pyramid, patches)

    def keep_inputs(self, function):
        return jax.checkpoint(function, prevent_cse=False) if self.remat else function


class ViTAdapter(nn.Module):
    """Backbone with four maps, all of the trunk's width.

    Attributes:
      beit: BEiT trunk (class token, relative tables, one image size) or plain ViT (absolute positions, any size).
      image_size: `(h, w)` that a BEiT runs at; of the pretraining images for a plain ViT.
      width: channels c.
      num_heads: heads of the trunk.
      groups: number of blocks of each interaction; their sum is the depth.
      mlp_ratio: of the trunk.
      init_values: initial layer scale and, in BEiT, injector gamma (0 in plain ViT).
      windows: side of every block's attention window, 0 for none; empty for no windows at all (plain ViT only).
      drop_path_rate: of the last block and of every extractor; the blocks' rates rise linearly from 0.
      prior_width: stem channels of the spatial prior.
      deform_heads, deform_points, deform_ratio: of the injectors' and extractors' attention.
      ffn_ratio: of the extractors.
      remat: keep only the inputs of blocks, injectors and extractors for the backward pass.
      dtype: compute dtype.
      patch: side of a patch.
    """

    beit: bool
    image_size: tuple[int, int]
    width: int
    num_heads: int
    groups: tuple[int, ...]
    mlp_ratio: float = 4.0
    init_values: float = 1.0
    windows: tuple[int, ...] = ()
    drop_path_rate: float = 0.0
    prior_width: int = 64
    deform_heads: int = 16
    deform_points: int = 4
    deform_ratio: float = 0.5
    ffn_ratio: float = 0.25
    remat: bool = True
    dtype: DTypeLike = jnp.float32
    patch: int = 16

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool = False) -> Maps:
        """Extract features.

        Args:
          images: normalised `[b, h, w, 3]`, sides multiples of 32.
          train: batch statistics and stochastic depth (rng `drop_path`).

        Returns:
          Four maps `[b, h/s, w/s, c]` for s = 4, 8, 16, 32.

        Raises:
          UserError: an image size that the trunk cannot take.
        """
        self.check_size(images.shape[1:3])
        h, w = grid = (images.shape[1] // self.patch, images.shape[2] // self.patch)
        shapes = ((2 * h, 2 * w), grid, (h // 2, w // 2))
        prior = SpatialPrior(self.width, self.prior_width, self.dtype, name="spm")(images, train=train)
        tokens = self.first_tokens(images, prior, grid)
        pyramid, patches = self.interact(tokens, shapes, train=train)
        self.sow("intermediates", "prior", prior)
        patches = patches.reshape(*patches.shape[:2], h, w, self.width)  # [interactions, b, h, w, c]
        return self.outputs(prior[0], slice_levels(pyramid, shapes), patches, train=train)

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse, before anything compiles, an image that the trunk cannot take."""
        if self.beit and tuple(size) != tuple(self.image_size):
            given, expected = ("x".join(map(str, s)) for s in (size, self.image_size))
            raise UserError(
                f"image of {given}: this BEiT's relative position tables are for {expected} alone; "
                f"crop to {expected} or slide a window of it, or build the model with another image_size"
            )
        if any(side % 32 for side in size):
            raise UserError(
                f"image of {size[0]}x{size[1]}: ViT-Adapter needs sides that are multiples of 32; resize or pad it"
            )

    def first_tokens(self, images, prior, grid) -> Tokens:
        """Patch tokens with their positions, the prior as pyramid, and BEiT's class token."""
        b = images.shape[0]
        x = PatchEmbed(self.width, self.patch, self.dtype, name="patch_embed")(images)
        if self.beit:
            cls = self.param("cls_token", linear_init, (1, 1, self.width)).astype(self.dtype)
            cls = jnp.broadcast_to(cls, (b, 1, self.width))
        else:
            cls = None
            pretrained = self.image_size[0] // self.patch, self.image_size[1] // self.patch
            pos_embed = self.param("pos_embed", linear_init, (1, 1 + pretrained[0] * pretrained[1], self.width))
            x = x + position_map(pos_embed, pretrained, grid).astype(x.dtype)
        level = self.param("level_embed", normal, (LEVELS, self.width)).astype(self.dtype)
        pyramid = [m.reshape(b, -1, self.width) + level[i] for i, m in enumerate(prior[1:])]
        return Tokens(x.reshape(b, -1, self.width), jnp.concatenate(pyramid, axis=1), cls)

    def interact(self, tokens: Tokens, shapes, *, train: bool):
        """All interactions and the extra extractors.

        Returns:
          The last pyramid, and the patch tokens after each interaction `[interactions, b, h w, c]`.
        """
        interactions = self.interactions(shapes, train=train)
        params, extras = self.interaction_params(interactions[0], tokens)
        rates = jnp.linspace(0.0, self.drop_path_rate, sum(self.groups))
        key = self.make_rng("drop_path") if train else None
        record = self.is_mutable_collection("intermediates")
        tokens, recorded = over_interactions(interactions, tokens, params, rates, key, record)
        self.sow("intermediates", "interactions", recorded)

        def extra(pyramid, step):
            p, i = step
            return interactions[-1].extract(p, pyramid, tokens.patches, _fold(key, i)), None

        numbers = len(interactions) + jnp.arange(EXTRAS)
        pyramid, _ = jax.lax.scan(extra, tokens.pyramid, (extras, numbers))
        self.sow("intermediates", "pyramid", pyramid)
        return pyramid, recorded["patches"]

    def interactions(self, shapes, *, train: bool) -> list[Interaction]:
        """The unbound layers of every interaction."""
        attention = (self.deform_heads, self.deform_points, self.deform_ratio)
        gamma = self.init_values if self.beit else 0.0
        injector = Injector(*attention, gamma, shapes, self.dtype, parent=None)
        extractor = Extractor(*attention, self.ffn_ratio, self.drop_path_rate, shapes, self.dtype, parent=None)
        windows = self.windows or (0,) * sum(self.groups)
        trunk = (self.mlp_ratio, self.init_values, self.dtype)
        blocks = [Block(self.num_heads, shapes[1], self.beit, window, *trunk, parent=None) for window in windows]
        return [
            Interaction(injector, tuple(blocks[a:b]), extractor, self.remat, train)
            for a, b in itertools.pairwise(itertools.accumulate(self.groups, initial=0))
        ]

    def interaction_params(self, first: Interaction, tokens: Tokens):
        """Parameters of all interactions stacked along their first axis, and those of the extra extractors."""
        x, c, cls = tokens
        count, depth = len(self.groups), sum(self.groups)
        both = x if cls is None else jnp.concatenate([cls, x], axis=1)
        extractor = lambda n: stacked_init(first.extractor, n, c, x)  # noqa: E731
        params = {
            "injector": self.param("injectors", stacked_init(first.injector, count, x, c)),
            "blocks": self.param("blocks", stacked_init(first.blocks[0], depth, both)),
            "extractor": self.param("extractors", extractor(count)),
        }
        return params, self.param("extra_extractors", extractor(EXTRAS))

    def outputs(self, prior, pyramid, patches, *, train: bool):
        """Four normalised maps from the prior at stride 4, the pyramid's maps and the patches of each interaction."""
        size = prior.shape[1:3]
        up = Upsample2x(self.width, self.dtype, name="up")(pyramid[0])
        maps = [up + prior, *pyramid]
        maps = [
            m + resize(x, (size[0] // 2**i, size[1] // 2**i))
            for i, (m, x) in enumerate(zip(maps, patches, strict=True))
        ]
        return [BatchNorm(dtype=self.dtype, name=f"norm{i + 1}")(m, train=train) for i, m in enumerate(maps)]


def over_interactions(interactions: list, tokens: Tokens, params, rates, key, record: bool):
    """Scan when all interactions are alike, as in every published model; else one after another.

    Returns:
      The last tokens and what each interaction left, stacked: `patches`, and with `record` all the rest too.
    """

    def step(interaction, tokens, p, rates, number):
        tokens, injected = interaction(tokens, p, rates, _fold(key, number))
        recordings = {**tokens._asdict(), "injected": injected} if record else {"patches": tokens.patches}
        return tokens, recordings

    count, first = len(interactions), interactions[0]
    if all(interaction == first for interaction in interactions):
        blocks, rates = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), (params["blocks"], rates))
        steps = ({**params, "blocks": blocks}, rates, jnp.arange(count))
        return jax.lax.scan(lambda tokens, s: step(first, tokens, *s), tokens, steps)
    recorded, start = [], 0
    for number, interaction in enumerate(interactions):
        stop = start + len(interaction.blocks)
        own = {name: jax.tree.map(lambda a, n=number: a[n], params[name]) for name in ("injector", "extractor")}
        own["blocks"] = jax.tree.map(lambda a, s=start, e=stop: a[s:e], params["blocks"])
        tokens, recordings = step(interaction, tokens, own, rates[start:stop], number)
        recorded.append(recordings)
        start = stop
    return tokens, jax.tree.map(lambda *a: jnp.stack(a), *recorded)


def _fold(key, number):
    """Key of a numbered part; None stays None (no training, no randomness)."""
    return None if key is None else jax.random.fold_in(key, number)
