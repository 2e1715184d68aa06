"""Key table of ViT-Adapter with the Mask2Former head (spec: vit_adapter 9)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vps_jax.config import Mask2Former
from vps_jax.convert.rules import CONV, POINTWISE, Rule, Table, Transform, attention, conv, linear, norm
from vps_jax.models.mask2former_sizes import sized
from vps_jax.ops.levels import LEVELS
from vps_jax.ops.relative_tables import beit_index

PATCH = 16
BACKBONE, HEAD = "backbone.", "decode_head."
# transposed convolution [in, out, 2, 2] <-> [in, 2, 2, out]
UP = Transform(lambda a: a.transpose(0, 2, 3, 1), lambda a: a.transpose(0, 3, 1, 2))


def table(given: Mapping[str, Any] | Mask2Former) -> Table:
    """Every entry of a published segmentor; `given` is `config.model`."""
    backbone, head = backbone_table(given), head_table(given)
    return Table(backbone.rules + head.rules, {**backbone.constants, **head.constants})


def backbone_table(given: Mapping[str, Any] | Mask2Former) -> Table:
    """The entries that begin with `backbone.`."""
    n = sized(given)
    depth, path = sum(n.groups), "params/backbone"
    rules = conv(f"{BACKBONE}patch_embed.proj", f"{path}/patch_embed/proj")
    rules.append(Rule(f"{BACKBONE}level_embed", f"{path}/level_embed"))
    first = "cls_token" if n.beit else "pos_embed"
    rules.append(Rule(BACKBONE + first, f"{path}/{first}"))
    for i in range(depth):
        rules += _block(f"{BACKBONE}blocks.{i}", f"{path}/blocks", i, beit=n.beit)
    for i in range(len(n.groups)):
        rules += _injector(f"{BACKBONE}interactions.{i}.injector", f"{path}/injectors", i)
        rules += _extractor(f"{BACKBONE}interactions.{i}.extractor", f"{path}/extractors", i)
    for i in range(2):
        last = f"{BACKBONE}interactions.{len(n.groups) - 1}.extra_extractors.{i}"
        rules += _extractor(last, f"{path}/extra_extractors", i)
    rules += conv(f"{BACKBONE}up", f"{path}/up", transform=UP)
    norms = {f"{BACKBONE}norm{i}": f"backbone/norm{i}" for i in range(1, 5)}
    convs = {f"stem.{3 * i}": f"stem_{i}" for i in range(3)} | {f"conv{i}.0": f"conv{i}" for i in range(2, 5)}
    for key, name in convs.items():
        rules += conv(f"{BACKBONE}spm.{key}", f"{path}/spm/{name}/conv", bias=False)
        stage, number = key.split(".")
        norms[f"{BACKBONE}spm.{stage}.{int(number) + 1}"] = f"backbone/spm/{name}/norm"
    for i in range(1, 5):
        rules += conv(f"{BACKBONE}spm.fc{i}", f"{path}/spm/fc{i}", transform=POINTWISE)
    constants = {f"{key}.num_batches_tracked": np.zeros((), np.int64) for key in norms}
    for key, name in norms.items():
        rules += norm(key, f"params/{name}")
        rules += [Rule(f"{key}.running_{what}", f"batch_stats/{name}/{what}") for what in ("mean", "var")]
    if n.beit:
        index = beit_index(grid(n.image_size))
        constants |= {f"{BACKBONE}blocks.{i}.attn.relative_position_index": index for i in range(depth)}
    return Table(tuple(rules), constants)


def head_table(given: Mapping[str, Any] | Mask2Former) -> Table:
    """The entries that begin with `decode_head.`."""
    n = sized(given)
    rules = [Rule(f"{HEAD}{name}.weight", f"params/{name}") for name in ("query_feat", "query_embed", "level_embed")]
    rules += linear(f"{HEAD}cls_embed", "params/heads/cls_embed")
    for i in range(3):
        rules += linear(f"{HEAD}mask_embed.{2 * i}", f"params/heads/mask_embed/layers_{i}")
    rules += _pixel_decoder(n.encoder_layers) + norm(f"{HEAD}transformer_decoder.post_norm", "params/heads/norm")
    for i in range(n.decoder_layers):
        key, path = f"{HEAD}transformer_decoder.layers.{i}", f"params/decoder/rounds/level_{i % LEVELS}"
        row = i // LEVELS
        rules += attention(f"{key}.attentions.0.attn", f"{path}/cross_attention", index=row)
        rules += attention(f"{key}.attentions.1.attn", f"{path}/self_attention", index=row)
        rules += _ffn(f"{key}.ffns.0", f"{path}/ffn", row)
        for j, name in enumerate(("cross_norm", "self_norm", "ffn_norm")):
            rules += norm(f"{key}.norms.{j}", f"{path}/{name}", index=row)
    return Table(tuple(rules))


def grid(image_size) -> tuple[int, int]:
    """Patches (h, w) of an image."""
    return image_size[0] // PATCH, image_size[1] // PATCH


def _block(key: str, path: str, i: int, *, beit: bool) -> list[Rule]:
    """One trunk block: slice `i` of the stack at `path`."""
    rules = norm(f"{key}.norm1", f"{path}/norm1", index=i) + norm(f"{key}.norm2", f"{path}/norm2", index=i)
    for name in ("fc1", "fc2"):
        rules += linear(f"{key}.mlp.{name}", f"{path}/{name}", index=i)
    rules += linear(f"{key}.attn.proj", f"{path}/attn/proj", index=i)
    rules += linear(f"{key}.attn.qkv", f"{path}/attn/qkv", bias=not beit, index=i)
    if beit:
        names = ("q_bias", "v_bias", "relative_position_bias_table")
        rules += [Rule(f"{key}.attn.{name}", f"{path}/attn/{name}", index=i) for name in names]
    for number in "12":
        rules.append(Rule(f"{key}.gamma{'_' if beit else ''}{number}", f"{path}/gamma{number}", index=i))
    return rules


def _deformable(key: str, path: str, i: int) -> list[Rule]:
    names = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    return [rule for name in names for rule in linear(f"{key}.{name}", f"{path}/{name}", index=i)]


def _injector(key: str, path: str, i: int) -> list[Rule]:
    rules = [Rule(f"{key}.gamma", f"{path}/gamma", index=i)] + _deformable(f"{key}.attn", f"{path}/attn", i)
    return rules + [r for name in ("query_norm", "feat_norm") for r in norm(f"{key}.{name}", f"{path}/{name}", index=i)]


def _extractor(key: str, path: str, i: int) -> list[Rule]:
    rules = _deformable(f"{key}.attn", f"{path}/attn", i)
    for name in ("query_norm", "feat_norm", "ffn_norm"):
        rules += norm(f"{key}.{name}", f"{path}/{name}", index=i)
    for name in ("fc1", "fc2"):
        rules += linear(f"{key}.ffn.{name}", f"{path}/ffn/{name}", index=i)
    return rules + conv(f"{key}.ffn.dwconv.dwconv", f"{path}/ffn/dwconv", index=i)


def _pixel_decoder(num_layers: int) -> list[Rule]:
    key, path = f"{HEAD}pixel_decoder", "params/pixel_decoder"
    rules = [Rule(f"{key}.level_encoding.weight", f"{path}/level_encoding")]
    for i in range(LEVELS):
        rules += conv(f"{key}.input_convs.{i}.conv", f"{path}/input_{i}/conv", transform=POINTWISE)
        rules += norm(f"{key}.input_convs.{i}.gn", f"{path}/input_{i}/norm")
    for i in range(num_layers):
        layer = f"{key}.encoder.layers.{i}"
        rules += _deformable(f"{layer}.attentions.0", f"{path}/encoder/attn", i)
        rules += _ffn(f"{layer}.ffns.0", f"{path}/encoder/ffn", i)
        for j, name in enumerate(("attn_norm", "ffn_norm")):
            rules += norm(f"{layer}.norms.{j}", f"{path}/encoder/{name}", index=i)
    for name, transform in (("lateral", POINTWISE), ("output", CONV)):
        rules += conv(f"{key}.{name}_convs.0.conv", f"{path}/{name}/conv", bias=False, transform=transform)
        rules += norm(f"{key}.{name}_convs.0.gn", f"{path}/{name}/norm")
    return rules + conv(f"{key}.mask_feature", f"{path}/mask_features", transform=POINTWISE)


def _ffn(key: str, path: str, i: int) -> list[Rule]:
    return linear(f"{key}.layers.0.0", f"{path}/linear1", index=i) + linear(
        f"{key}.layers.1", f"{path}/linear2", index=i
    )
