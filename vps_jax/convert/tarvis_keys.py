"""Key table of the published TarViS files (spec: tarvis 10)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vps_jax.config import Tarvis
from vps_jax.convert import neck_keys
from vps_jax.convert.rules import BackboneKeys, Rule, Table, attention, linear, norm
from vps_jax.models.backbones import backbone_row
from vps_jax.models.layers import PIXEL_MEAN, PIXEL_STD
from vps_jax.models.tarvis import GROUPS, VOS_GROUPS
from vps_jax.ops.levels import LEVELS
from vps_jax.parsing import parse, resolve
from vps_jax.types import UserError

OBJECT_ENCODER_LAYERS = 4


def table(given: Mapping[str, Any] | Tarvis) -> Table:
    """Every entry of a published TarViS file.

    Args:
      given: `config.model`. Without `vos` the model has no object encoder and its entries are dropped.

    Raises:
      UserError: no published files of the backbone are known.
    """
    config = parse(Tarvis, given, "model")
    backbone, neck = backbone_keys(config.backbone).table(config.backbone), neck_keys.table(config.neck_layers)
    rules = [*backbone.rules, *neck.rules, *_decoder(config.decoder_layers), *_heads(GROUPS)]
    rules += [Rule(f"embedding_container._{name}_queries", f"params/queries/{name}") for name in GROUPS]
    constants = {**backbone.constants, **neck.constants}
    constants |= {"pixel_mean": np.float32(PIXEL_MEAN), "pixel_std": np.float32(PIXEL_STD)}
    grid = {"vos_query_extractor.bg_grid_size": np.array([4, 4], np.int64)}
    if config.vos:
        return Table((*rules, *_vos()), constants | grid)
    return Table(tuple(rules), constants, frozenset(rule.key for rule in _vos()) | frozenset(grid))


def backbone_keys(name: str) -> BackboneKeys:
    """What is known of the files of a backbone.

    Raises:
      UserError: no backbone of that name, or nothing is known.
    """
    keys = backbone_row(name).keys
    if not keys:
        raise UserError(f"model.backbone={name!r}: no published files are known; expected a row of BACKBONES with keys")
    return resolve(keys)


def _decoder(num_layers: int) -> list[Rule]:
    rules = [Rule("decoder.scale_embed.weight", "params/level_embed")]
    for n in range(num_layers):
        path, index = f"params/decoder/rounds/level_{n % LEVELS}", n // LEVELS
        cross, mix = f"decoder.transformer_cross_attention_layers.{n}", f"decoder.transformer_self_attention_layers.{n}"
        ffn = f"decoder.transformer_ffn_layers.{n}"
        rules += attention(f"{cross}.multihead_attn._attn", f"{path}/cross_attention", index=index)
        rules += norm(f"{cross}.norm", f"{path}/cross_norm", index=index)
        rules += attention(f"{mix}.self_attn", f"{path}/self_attention", index=index)
        rules += norm(f"{mix}.norm", f"{path}/self_norm", index=index)
        rules += linear(f"{ffn}.linear1", f"{path}/ffn/linear1", index=index)
        rules += linear(f"{ffn}.linear2", f"{path}/ffn/linear2", index=index)
        rules += norm(f"{ffn}.norm", f"{path}/ffn_norm", index=index)
    return rules + norm("decoder.decoder_norm", "params/heads/norm")


def _heads(groups: tuple[str, ...]) -> list[Rule]:
    rules = []
    for group in groups:
        rules += _mask_embed(group) + linear(f"decoder.proj_layers.{group}", f"params/heads/proj_{group}")
    return rules


def _mask_embed(group: str) -> list[Rule]:
    rules = []
    for i in range(3):
        rules += linear(f"decoder.mask_embeds.{group}.layers.{i}", f"params/heads/mask_embed_{group}/layers_{i}")
    return rules


def _vos() -> list[Rule]:
    """What only the exemplar tasks use."""
    rules = _heads(VOS_GROUPS) + _mask_embed("free")
    rules += [Rule(f"embedding_container._{name}_queries", f"params/queries/{name}") for name in VOS_GROUPS]
    key, path = "vos_query_extractor", "params/object_encoder"
    for name in ("bg", "mask_object", "point_object"):
        rules.append(Rule(f"{key}.{name}_query_embed", f"{path}/{name}_embed"))
    for n in range(OBJECT_ENCODER_LAYERS):
        layer = f"{path}/layers"
        for name in ("self", "cross"):
            rules += attention(f"{key}.{name}_attn_layers.{n}.attn", f"{layer}/{name}_attention", index=n)
            rules += norm(f"{key}.{name}_attn_layers.{n}.norm", f"{layer}/{name}_norm", index=n)
        rules += linear(f"{key}.ffn_layers.{n}.mlp.0", f"{layer}/ffn/linear1", index=n)
        rules += linear(f"{key}.ffn_layers.{n}.mlp.2", f"{layer}/ffn/linear2", index=n)
        rules += norm(f"{key}.ffn_layers.{n}.norm", f"{layer}/ffn_norm", index=n)
    for i in range(4):
        rules += linear(f"{key}.proj_point_features.{i}", f"{path}/point_keys_{i}")
    for i in range(3):
        rules += linear(f"{key}.point_vos_query_extractor.layers.{2 * i}", f"{path}/point_content/layers_{i}")
    return rules
