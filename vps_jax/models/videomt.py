"""VidEoMT: a plain ViT whose last blocks carry queries from frame to frame (spec: videomt 1 to 4).

The trunk sees all frames of a chunk as one batch. The last blocks run frame by frame over [queries, class token,
registers, patches]; only the queries pass on, so any cut into chunks gives the same numbers.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from vps_jax.models.mask_decoder import torch_dense
from vps_jax.models.tarvis import PIXEL_MEAN, PIXEL_STD
from vps_jax.models.videomt_layers import Heads, Trunk, keep_probability, mask_bias
from vps_jax.models.vit import stacked_init
from vps_jax.ops.resize import resize
from vps_jax.types import FrameQueryOutputs, UserError

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
TASK = "video_masks"
MULTIPLE = 32  # sides are padded to it

# Rows of numbers; every key may be overridden in a config. Source: spec videomt 6.
_DINOV3 = dict(image_size=0, norm_eps=1e-5, norm_queries=True, init_values=1.0)
SIZES: dict[str, dict] = {
    "small": dict(width=384, num_heads=6, trunk_blocks=9, query_blocks=3),
    "base": dict(width=768, num_heads=12, trunk_blocks=9, query_blocks=3),
    "large": dict(width=1024, num_heads=16, trunk_blocks=20, query_blocks=4),
    "dinov3_large": dict(width=1024, num_heads=16, trunk_blocks=20, query_blocks=4, **_DINOV3),
    # the golden files' own
    "golden": dict(width=192, num_heads=3, trunk_blocks=8, query_blocks=4, image_size=128),
    # trains on two cores
    "tiny": dict(
        width=96, num_heads=3, trunk_blocks=3, query_blocks=3, queries=40, image_size=128, init_values=1.0, registers=1
    ),
}
DEFAULTS = dict(
    semantic_groups=(("VIPSEG", 124),),
    queries=200,
    registers=4,
    patch=16,
    image_size=1280,  # pixels of the square that the position table is for
    mlp_ratio=4.0,
    upscales=2,
    norm_eps=1e-6,
    init_values=1e-5,
    norm_queries=False,
    auxiliary_sets=3,
    norm_auxiliary=False,
    masked_steps=(),
    frozen_trunk=False,
    remat=True,
    dtype="float32",
)


class VidEoMT(nn.Module):
    """The network; see `from_config` for the sizes.

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
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        width = self.trunk.width
        self.query = self.param("query", nn.initializers.normal(1.0), (self.queries, width))
        self.query_updater = torch_dense(width, width, jnp.float32, None)
        tokens = jnp.zeros((1, 1, width))
        self.blocks = self.param("blocks", stacked_init(self.trunk.block, self.query_blocks, tokens))
        self.norm = nn.LayerNorm(epsilon=self.trunk.eps)
        heads = nn.remat(Heads) if self.remat else Heads
        self.heads = heads(width, self.semantic_groups[0][1], self.upscales, self.dtype)

    def __call__(self, images, *, task: str = TASK, group: str | None = None, train: bool = False, queries=None):
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
            self.check(task, group)
        return self.decode(self.backbone_features(images), queries, train=train)

    def check(self, task: str, group: str | None) -> None:
        name = self.semantic_groups[0][0]
        if task != TASK:
            raise UserError(f"task {task!r}: VidEoMT does {TASK!r} only; choose a TarViS config for others")
        if group not in (None, name):
            raise UserError(f"label set {group!r} is not in the model; expected {name!r}")

    def backbone_features(self, images):
        """Tokens of the trunk for images `[b, t, h, w, 3]`: `[b, t, 1 + registers, c]` and `[b, t, h', w', c]`."""
        b, t, h, w, _ = images.shape
        pixels = (images.astype(jnp.float32) - jnp.asarray(PIXEL_MEAN)) / jnp.asarray(PIXEL_STD)
        pixels = jnp.pad(pixels.reshape(b * t, h, w, 3), ((0, 0), (0, -h % MULTIPLE), (0, -w % MULTIPLE), (0, 0)))
        tokens = self.trunk(pixels)
        if self.frozen_trunk:
            tokens = jax.lax.stop_gradient(tokens)
        grid = [side // self.trunk.patch for side in pixels.shape[1:3]]
        tokens = tokens.reshape(b, t, *tokens.shape[1:])
        prefix = self.trunk.prefix
        return tokens[:, :, :prefix], tokens[:, :, prefix:].reshape(b, t, *grid, -1)

    def decode(self, features, queries=None, *, train: bool = False) -> FrameQueryOutputs:
        """Predictions from the tokens of `backbone_features`; see `__call__`."""
        grid = features[1].shape[2:4]
        states, queries = self.states(features, queries, train=train)
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

    def states(self, features, queries=None, *, train: bool = False):
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
        """A pure step of a scan over frames: queries and (tokens, key) to the next queries and states `[d, b, s, c]`."""
        norm, heads, updater = (_pure(module) for module in (self.norm, self.heads, self.query_updater))
        query, params = self.query, self.blocks
        block = self.trunk.block
        rotary = self.trunk.rotary(grid, self.queries + self.trunk.prefix)
        numbers = jnp.arange(self.query_blocks)
        kept = min(self.auxiliary_sets, self.query_blocks) if train else 0

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
            return following, jnp.concatenate([before[:kept], x[None]])

        return frame

    def patches(self, states, grid: tuple[int, int]):
        """The patches `[n, h, w, c]` of tokens `[n, q + 1 + registers + h w, c]`."""
        patches = states[:, self.queries + self.trunk.prefix :]
        return patches.reshape(states.shape[0], *grid, -1)

    def keep(self, train: bool):
        """How likely each query block masks a query's attention `[query_blocks]`, and count the step; None for never."""
        if not self.masked_steps:
            return None
        steps = self.variable("schedule", "steps", lambda: jnp.zeros((), jnp.float32))
        if not train:
            return None
        now = steps.value
        if not self.is_initializing():
            steps.value = now + 1
        return keep_probability(now, *jnp.asarray(self.masked_steps, jnp.float32).T)


def _pure(module: nn.Module):
    """A bound module as a function that any transformation of jax may call."""
    module, variables = module.unbind()
    return lambda *args, **kwargs: module.apply(variables, *args, **kwargs)


def from_config(config_model: Mapping) -> VidEoMT:
    """The model of a config.

    Args:
      config_model: `name='videomt'`, `size` (a row of `SIZES`), and any of
        `semantic_groups` ((label set, classes),);
        `width`, `num_heads`, `trunk_blocks`, `query_blocks`, `mlp_ratio`, `registers`, `patch`, `norm_eps`,
        `init_values` of the ViT; `image_size`, the side of the square image that the position table is for, 0 for
        rotary positions; `queries`, `upscales`, `norm_queries`, `auxiliary_sets`, `norm_auxiliary`, `masked_steps`,
        `frozen_trunk`, `remat`, `dtype`, see `VidEoMT`.

    Raises:
      UserError: an unknown size or key, or numbers that do not fit together.
    """
    n = numbers(config_model)
    check_numbers(n)
    dtype = DTYPES[n["dtype"]]
    trunk = Trunk(
        depth=n["trunk_blocks"],
        width=n["width"],
        num_heads=n["num_heads"],
        mlp_ratio=n["mlp_ratio"],
        init_values=n["init_values"],
        eps=n["norm_eps"],
        patch=n["patch"],
        registers=n["registers"],
        table=n["image_size"] // n["patch"],
        remat=n["remat"],
        dtype=dtype,
    )
    groups = tuple((str(name), int(classes)) for name, classes in n["semantic_groups"])
    masked = tuple((int(start), int(end)) for start, end in n["masked_steps"])
    names = ("queries", "query_blocks", "upscales", "norm_queries", "auxiliary_sets", "norm_auxiliary", "frozen_trunk")
    own = {name: n[name] for name in (*names, "remat")}
    return VidEoMT(trunk, groups, masked_steps=masked, **own, dtype=dtype)


def check_numbers(n: Mapping) -> None:
    """Refuse numbers that do not fit together."""
    head = n["width"] // n["num_heads"]
    rules = (
        (len(n["semantic_groups"]) == 1, "semantic_groups", "one label set, one pair (name, classes)"),
        (n["width"] % n["num_heads"] == 0, "num_heads", f"a divisor of width={n['width']}"),
        (n["image_size"] or head % 4 == 0, "num_heads", "heads of a multiple of 4 channels, for rotary positions"),
        (n["image_size"] % n["patch"] == 0, "image_size", f"a multiple of patch={n['patch']}, or 0"),
        (MULTIPLE % n["patch"] == 0, "patch", f"a divisor of {MULTIPLE}"),
        (len(n["masked_steps"]) in (0, n["query_blocks"]), "masked_steps", "(start, end) for each query block, or ()"),
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
        raise UserError(f"model keys {unknown} are not of VidEoMT; expected some of {', '.join(sorted(row))}")
    return row | own
