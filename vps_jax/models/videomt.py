"""VidEoMT: a plain ViT whose last blocks carry queries from frame to frame (spec: videomt 1 to 4).

The trunk sees all frames of a chunk as one batch. The last blocks run frame by frame over [queries, class token,
registers, patches]; only the queries pass on, so any cut into chunks gives the same numbers.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from vps_jax.config import VidEoMT as Config
from vps_jax.config import model_config
from vps_jax.models.layers import DTYPES, normalize, torch_dense
from vps_jax.models.videomt_layers import Heads, Trunk, keep_probability, mask_bias
from vps_jax.models.vit import stacked_init
from vps_jax.ops.resize import resize
from vps_jax.parsing import check_rules
from vps_jax.shapes import Float, Shaped
from vps_jax.types import Array, FrameQueryOutputs, UserError

TASK = "video_masks"
MULTIPLE = 32  # sides are padded to it

# Rows of numbers; every key may be overridden in a config. Source: spec videomt 6.
_DINOV2 = dict(queries=200, registers=4, image_size=1280, norm_eps=1e-6, norm_queries=False, init_values=1e-5)
_DINOV3 = dict(queries=200, registers=4, image_size=0, norm_eps=1e-5, norm_queries=True, init_values=1.0)
_LARGE = dict(width=1024, num_heads=16, trunk_blocks=20, query_blocks=4)
SIZES: dict[str, dict] = {
    "small": dict(width=384, num_heads=6, trunk_blocks=9, query_blocks=3, **_DINOV2),
    "base": dict(width=768, num_heads=12, trunk_blocks=9, query_blocks=3, **_DINOV2),
    "large": dict(**_LARGE, **_DINOV2),
    "dinov3_large": dict(**_LARGE, **_DINOV3),
    # trains on two cores
    "tiny": dict(
        width=96, num_heads=3, trunk_blocks=3, query_blocks=3, queries=40, registers=1, image_size=128, norm_eps=1e-6,
        norm_queries=False, init_values=1.0,
    ),
}  # fmt: skip


class VidEoMT(nn.Module):
    """The network; see `SIZES` and `vps_jax.config.VidEoMT`.

    Attributes:
      trunk: blocks that see each frame alone.
      classes: k.
      semantic_groups: one `(name, classes)`, the label set.
      queries: learned queries q.
      query_blocks: blocks that carry them. As many blocks fewer in the trunk make the published model; a whole trunk
        with blocks of its own behind it is a decoder (spec: videomt 13).
      upscales: doublings of the patch grid for the masks.
      norm_queries: the final norm comes before the queries pass on, and before the auxiliary predictions (DINOv3).
      auxiliary_sets: in training, predictions from the tokens before each of the first so many query blocks.
      norm_auxiliary: the final norm comes before the auxiliary predictions (EoMT).
      masked_steps: `(start, end)` of each query block: training steps between which its masked attention fades
        (EoMT); empty for no masks. A collection `schedule` counts the steps.
      frozen_trunk: no gradient reaches the trunk.
      remat: keep only the inputs of blocks and heads for the backward pass.
      dtype: compute dtype.
    """

    trunk: Trunk
    semantic_groups: tuple[tuple[str, int], ...]
    queries: int
    query_blocks: int
    upscales: int
    norm_queries: bool = False
    auxiliary_sets: int = 3
    norm_auxiliary: bool = False
    masked_steps: tuple[tuple[int, int], ...] = ()
    frozen_trunk: bool = False
    remat: bool = True
    dtype: DTypeLike = jnp.float32

    def setup(self):
        width = self.trunk.width
        self.query = self.param("query", nn.initializers.normal(1.0), (self.queries, width))
        self.query_updater = torch_dense(width, width, jnp.float32, None)
        tokens = jnp.zeros((1, 1, width))
        self.blocks = self.param("blocks", stacked_init(self.trunk.block, self.query_blocks, tokens))
        self.norm = nn.LayerNorm(epsilon=self.trunk.eps)
        if self.masked_steps:
            self.steps = self.variable("schedule", "steps", lambda: jnp.zeros((), jnp.float32))
        heads = nn.remat(Heads) if self.remat else Heads
        self.heads = heads(width, self.semantic_groups[0][1], self.upscales, self.dtype)

    def __call__(
        self,
        images: Shaped[Array, "b t h w 3"],
        *,
        task: str = TASK,
        group: str | None = None,
        train: bool = False,
        queries: Float[Array, "b q c"] | None = None,
    ) -> FrameQueryOutputs:
        """Predict every frame of a clip.

        Args:
          images: uint8 or float `[b, t, h, w, 3]`, RGB 0..255, of any size: zeros fill it up to multiples of 32 after
            normalisation, and take part as everything else.
          task: `video_masks`.
          group: name of the label set, or None.
          train: give the auxiliary predictions too, and mask attention where the model does (rng `drop_path`).
          queries: `[b, q, c]` that the frame before left, or None at the start of a video.

        Returns:
          `types.FrameQueryOutputs`, `d` sets of which the last is the final prediction; `d = 1` unless training.

        Raises:
          UserError: another task or label set.
        """
        if not self.is_initializing():
            self.check_task(task, group)
        return self.decode(self.backbone_features(images), queries, train=train)

    def check_task(self, task: str, group: str | None) -> None:
        name = self.semantic_groups[0][0]
        if task != TASK:
            raise UserError(f"task {task!r}: VidEoMT does {TASK!r} only; choose a TarViS config for others")
        if group not in (None, name):
            raise UserError(f"label set {group!r} is not in the model; expected {name!r}")

    def backbone_features(
        self, images: Shaped[Array, "b t h w 3"]
    ) -> tuple[Float[Array, "b t r c"], Float[Array, "b t gh gw c"]]:
        """Tokens of the trunk for images `[b, t, h, w, 3]`: `[b, t, 1 + registers, c]` and `[b, t, h', w', c]`."""
        b, t, h, w, _ = images.shape
        pixels = normalize(images)
        pixels = jnp.pad(pixels.reshape(b * t, h, w, 3), ((0, 0), (0, -h % MULTIPLE), (0, -w % MULTIPLE), (0, 0)))
        tokens = self.trunk(pixels)
        if self.frozen_trunk:
            tokens = jax.lax.stop_gradient(tokens)
        grid = [side // self.trunk.patch for side in pixels.shape[1:3]]
        tokens = tokens.reshape(b, t, *tokens.shape[1:])
        prefix = self.trunk.prefix
        return tokens[:, :, :prefix], tokens[:, :, prefix:].reshape(b, t, *grid, -1)

    def decode(
        self,
        features: tuple[Float[Array, "b t r c"], Float[Array, "b t gh gw c"]],
        queries: Float[Array, "b q c"] | None = None,
        *,
        train: bool = False,
    ) -> FrameQueryOutputs:
        """Predictions from the tokens of `backbone_features`; see `__call__`."""
        states, queries = self.states(features, queries, train=train)
        return self.predict(states, features[1].shape[2:4], queries)

    def predict(
        self,
        states: Float[Array, "d b t s c"],
        grid: tuple[int, int],
        queries: Float[Array, "b q c"] | None = None,
    ) -> FrameQueryOutputs:
        """Predictions from the tokens of `states` with patches `(h, w)`; the queries are passed on as they are."""
        normed = self.norm(states[-1:])
        if states.shape[0] > 1:
            others = states[:-1]
            others = self.norm(others) if self.norm_queries or self.norm_auxiliary else others
            normed = jnp.concatenate([others, normed])
        d, b, t, _, c = normed.shape
        flat = normed.reshape(d * b * t, -1, c)
        outputs = self.heads(flat[:, : self.queries], self.patches(flat, grid))
        classes, masks, maps = (a.reshape(d, b, t, *a.shape[1:]) for a in outputs)
        return FrameQueryOutputs(maps, masks, classes, queries)

    def states(
        self,
        features: tuple[Float[Array, "b t r c"], Float[Array, "b t gh gw c"]],
        queries: Float[Array, "b q c"] | None = None,
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "d b t s c"], Float[Array, "b q c"]]:
        """Tokens [queries, class token, registers, patches] of every frame.

        Args:
          features: see `backbone_features`.
          queries: `[b, q, c]` or None.
          train: give those before the first query blocks too.

        Returns:
          `[d, b, t, q + 1 + registers + h w, c]`, the last ones after the last block; and the queries for the next
          frame `[b, q, c]`.
        """
        first, patches = features
        b, t, h, w, c = patches.shape
        tokens = jnp.concatenate([first, patches.reshape(b, t, h * w, c)], axis=2)
        start = jnp.broadcast_to(self.query, (b, *self.query.shape)) if queries is None else queries
        if self.is_initializing():
            self.heads(start, patches[:, 0])
            self.query_updater(self.norm(start))
        frame = self.frame_step((h, w), self.keep(train), train)
        keys = jax.random.split(self.make_rng("drop_path"), t) if train and self.masked_steps else jnp.zeros(t)
        queries, states = jax.lax.scan(frame, start, (jnp.moveaxis(tokens, 1, 0), keys))
        return jnp.moveaxis(states, 0, 2), queries  # [t, d, b, ...] -> [d, b, t, ...]

    def frame_step(self, grid: tuple[int, int], keep, train: bool):
        """A pure step of a scan: queries and a frame's (tokens, key) to the next queries and states `[d, b, s, c]`."""
        norm, heads, updater = (_pure(module) for module in (self.norm, self.heads, self.query_updater))
        query, params = self.query, self.blocks
        block = self.trunk.block
        rotary = self.trunk.rotary(grid, self.queries + self.trunk.prefix)
        numbers = jnp.arange(self.query_blocks)
        sets = min(self.auxiliary_sets, self.query_blocks) if train else 0

        def hide(x, key, keep):
            """Attention bias of one block from the masks that its input predicts."""
            y = norm(x)
            vectors = heads(y[:, : self.queries], method="mask_vectors")
            maps = heads(self.patches(y, grid), method="features")
            maps = resize(maps.astype(jnp.float32), grid).reshape(x.shape[0], -1, x.shape[-1])
            logits = jnp.einsum("bqc,bsc->bqs", vectors, maps)
            open_rows = jax.random.uniform(key, logits.shape[:2]) >= keep
            return mask_bias(logits, open_rows, self.trunk.prefix)

        def one_block(x, step, key):
            p, number = step
            bias = None if keep is None else hide(x, jax.random.fold_in(key, number), keep[number])
            return block.apply({"params": p}, x, rotary=rotary, bias=bias)

        if self.remat:
            one_block = jax.checkpoint(one_block, prevent_cse=False)

        def frame(queries, frame):
            tokens, key = frame
            x = jnp.concatenate([queries.astype(tokens.dtype), tokens], axis=1)
            x, before = jax.lax.scan(lambda x, step: (one_block(x, step, key), x), x, (params, numbers))
            left = x[:, : self.queries]
            following = updater(norm(left) if self.norm_queries else left) + query
            return following, jnp.concatenate([before[:sets], x[None]])

        return frame

    def patches(self, states: Float[Array, "n s c"], grid: tuple[int, int]) -> Float[Array, "n gh gw c"]:
        """The patches `[n, h, w, c]` of tokens `[n, q + 1 + registers + h w, c]`."""
        patches = states[:, self.queries + self.trunk.prefix :]
        return patches.reshape(states.shape[0], *grid, -1)

    def keep(self, train: bool):
        """How likely each block masks a query's attention `[query_blocks]`, and count the step; None for never."""
        if not (self.masked_steps and train):
            return None
        now = self.steps.value
        self.steps.value = now + 1
        return keep_probability(now, *jnp.asarray(self.masked_steps, jnp.float32).T)


def _pure(module: nn.Module):
    """A bound module as a function that any transformation of jax may call."""
    module, variables = module.unbind()
    return lambda *args, **kwargs: module.apply(variables, *args, **kwargs)


def from_config(config: Config | Mapping) -> VidEoMT:
    """The model of a config, `vps_jax.config.VidEoMT`.

    Raises:
      UserError: an unknown size or key, or numbers that do not fit together.
    """
    n = sized(config)
    check(n)
    dtype = DTYPES[n.dtype]
    trunk = Trunk(
        depth=n.trunk_blocks,
        width=n.width,
        num_heads=n.num_heads,
        mlp_ratio=n.mlp_ratio,
        init_values=n.init_values,
        eps=n.norm_eps,
        patch=n.patch,
        registers=n.registers,
        table=n.image_size // n.patch,
        remat=n.remat,
        dtype=dtype,
    )
    return VidEoMT(
        trunk=trunk,
        semantic_groups=n.semantic_groups,
        queries=n.queries,
        query_blocks=n.query_blocks,
        upscales=n.upscales,
        norm_queries=n.norm_queries,
        auxiliary_sets=n.auxiliary_sets,
        norm_auxiliary=n.norm_auxiliary,
        masked_steps=n.masked_steps,
        frozen_trunk=n.frozen_trunk,
        remat=n.remat,
        dtype=dtype,
    )


def sized(config: Config | Mapping) -> Config:
    """The config with the numbers of its size where it has none of its own."""
    config = model_config(config)
    if config.size not in SIZES:
        raise UserError(f"model.size={config.size!r}; choose one of {', '.join(SIZES)}")
    row = SIZES[config.size]
    return dataclasses.replace(config, **{key: row[key] for key in row if getattr(config, key) is None})


def check(n: Config) -> None:
    """Refuse numbers that do not fit together."""
    rules = (
        (len(n.semantic_groups) == 1, "semantic_groups", "one label set, one pair (name, classes)"),
        (n.width % n.num_heads == 0, "num_heads", f"a divisor of width={n.width}"),
        (n.image_size or n.width // n.num_heads % 4 == 0, "num_heads", "heads of 4, 8, ... channels, to be turned"),
        (n.image_size % n.patch == 0, "image_size", f"a multiple of patch={n.patch}, or 0"),
        (MULTIPLE % n.patch == 0, "patch", f"a divisor of {MULTIPLE}"),
        (len(n.masked_steps) in (0, n.query_blocks), "masked_steps", "(start, end) for each query block, or ()"),
    )
    check_rules(n, rules, "model")
