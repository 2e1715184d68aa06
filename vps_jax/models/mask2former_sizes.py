"""Published sizes of ViT-Adapter with the Mask2Former head, and ours for two cores (spec: vit_adapter 8)."""

import dataclasses
from typing import Any

from vps_jax.config import Mask2Former
from vps_jax.models.layers import PIXEL_MEAN, PIXEL_STD
from vps_jax.ops.levels import LEVELS
from vps_jax.parsing import check_rules, parse
from vps_jax.types import UserError

BASE = Mask2Former(
    mlp_ratio=4.0, init_values=1.0, windows=(), prior_width=64, deform_points=4, deform_ratio=0.5, ffn_ratio=0.25,
    pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD,
)  # fmt: skip
LARGE = dataclasses.replace(
    BASE, width=1024, trunk_heads=16, groups=(6, 6, 6, 6), deform_heads=16, drop_path_rate=0.3, hidden_dim=1024,
    num_heads=32, encoder_layers=6, decoder_layers=9, ffn_dim=4096, queries=100,
)  # fmt: skip
BEIT_LARGE = dataclasses.replace(LARGE, beit=True, init_values=1e-6)
SMALL = dataclasses.replace(
    BASE, width=192, trunk_heads=3, groups=(3, 3, 3, 3), deform_heads=6, drop_path_rate=0.0, hidden_dim=128,
    num_heads=8, encoder_layers=6, decoder_layers=9, ffn_dim=512, queries=30,
)  # fmt: skip
SIZES: dict[str, Mask2Former] = {
    "beit_large_640": dataclasses.replace(BEIT_LARGE, image_size=(640, 640)),
    "beit_large_896": dataclasses.replace(BEIT_LARGE, image_size=(896, 896), queries=200),
    "vit_large_384": dataclasses.replace(
        LARGE, beit=False, image_size=(384, 384), drop_path_rate=0.4, pixel_mean=(127.5,) * 3, pixel_std=(127.5,) * 3
    ),
    # the golden files' own
    "beit_small_128": dataclasses.replace(SMALL, beit=True, image_size=(128, 128), init_values=1e-6),
    "vit_small_224": dataclasses.replace(SMALL, beit=False, image_size=(224, 224)),
    # trains on two cores
    "beit_tiny_96": dataclasses.replace(
        BASE, beit=True, image_size=(96, 96), width=96, trunk_heads=3, groups=(1, 1, 1, 1), deform_heads=6,
        prior_width=16, drop_path_rate=0.0, hidden_dim=96, num_heads=4, encoder_layers=2, decoder_layers=3,
        ffn_dim=192, queries=40,
    ),
}  # fmt: skip


def sized(given: Any) -> Mask2Former:
    """All numbers of a config, a mapping or the dataclass: its own, and those of its size for what it leaves open.

    Raises:
      UserError: an unknown size or key, or numbers that do not fit together.
    """
    own = parse(Mask2Former, given, "model")
    if own.size not in SIZES:
        raise UserError(f"model.size={own.size!r}: expected one of {', '.join(SIZES)}; set config.model.size")
    stated = {key: value for key, value in vars(own).items() if value is not None}
    full = dataclasses.replace(SIZES[own.size], **stated)
    check(full)
    return full


def check(full: Mask2Former) -> None:
    """Refuse numbers that do not fit together."""
    depth, points = sum(full.groups), int(full.width * full.deform_ratio)
    rules = (
        (len(full.semantic_groups) == 1, "semantic_groups", "one label set, one pair (name, classes)"),
        (not (full.beit and full.windows), "windows", "() for BEiT, which has no windows; set beit=False for a ViT"),
        (len(full.windows) in (0, depth), "windows", f"one for each of the {depth} blocks, or ()"),
        (len(full.groups) == 4, "groups", "the blocks of four interactions, one per map"),
        (full.width % full.trunk_heads == 0, "trunk_heads", f"a divisor of width={full.width}"),
        (points % full.deform_heads == 0, "deform_heads", f"a divisor of width * deform_ratio = {points}"),
        (full.hidden_dim % 32 == 0, "hidden_dim", "a multiple of 32, the groups of its norms"),
        (full.hidden_dim % full.num_heads == 0, "num_heads", f"a divisor of hidden_dim={full.hidden_dim}"),
        (full.decoder_layers % LEVELS == 0, "decoder_layers", f"a multiple of {LEVELS}"),
    )
    check_rules(full, rules, "model")
