"""Key table of VidEoMT in the authors' names, and the port's names for the same entries (spec: videomt 7).

The class rows of a file are in the order of its data set (VIPSeg: things first) and in the official order here.
"""

from collections.abc import Mapping

import numpy as np

from vps_jax.config import VidEoMT as Config
from vps_jax.convert import rules
from vps_jax.convert.rules import CONV, Rule, Table, Transform, conv, linear, norm
from vps_jax.convert.vit_adapter_keys import UP
from vps_jax.datasets import class_table
from vps_jax.models.videomt import sized

MODEL = "backbone."
TRUNK = "backbone.encoder.backbone."
MASK_TOKEN = f"{TRUNK}mask_token"  # the port's files have it, the authors' have not
MASK_PROBABILITIES = f"{MODEL}attn_mask_probs"
EMPTY_WEIGHT = "criterion.empty_weight"  # the port's alone
THINGS_FIRST = {"VIPSEG": "vipseg"}  # label set -> its class table; the rows of all others are in official order
NO_OBJECT_WEIGHT = 0.1


def class_order(group: tuple[str, int]) -> np.ndarray:
    """Official class of each row of a file, "no object" last: int `[k + 1]`."""
    name, classes = group
    if name not in THINGS_FIRST:
        return np.arange(classes + 1)
    table = class_table(THINGS_FIRST[name])
    return np.array([*table.thing_ids, *table.stuff_ids, classes])


def table(config: Config) -> Table:
    """Every entry of a published file; see `vps_jax.config.VidEoMT`."""
    n = sized(config)
    rules_ = _trunk(n) + [Rule(f"{MODEL}q.weight", "params/query")]
    rules_ += norm(f"{TRUNK}norm", "params/norm") + linear(f"{MODEL}query_updater", "params/query_updater")
    for i in range(n.trunk_blocks + n.query_blocks):
        carries = i - n.trunk_blocks
        place = ("params/trunk/blocks", i) if carries < 0 else ("params/blocks", carries)
        rules_ += _block(f"{TRUNK}blocks.{i}", *place)
    rules_ += _classes(n.semantic_groups[0])
    for i in range(3):
        rules_ += linear(f"{MODEL}mask_head.{2 * i}", f"params/heads/mask_head/fc{i + 1}")
    for i in range(n.upscales):
        key, path = f"{MODEL}upscale.{i}", f"params/heads/upscale_{i}"
        rules_ += conv(f"{key}.conv1", f"{path}/up", transform=UP)
        rules_ += conv(f"{key}.conv2", f"{path}/depthwise", bias=False)
        rules_ += norm(f"{key}.norm", f"{path}/norm")
    weight = np.ones(n.semantic_groups[0][1] + 1, np.float32)
    weight[-1] = NO_OBJECT_WEIGHT
    constants = {MASK_PROBABILITIES: np.zeros(n.query_blocks, np.float32), EMPTY_WEIGHT: weight}
    return Table(tuple(rules_), constants)


def to_arrays(variables: Mapping, config: Config, *, port: bool = False) -> dict[str, np.ndarray]:
    """The way back: a state dict in the authors' names, or in the port's."""
    arrays = rules.to_arrays(table(config), {"params": variables["params"]})
    if port:
        return port_names(arrays, config)
    return {key: value for key, value in arrays.items() if key not in (MASK_TOKEN, EMPTY_WEIGHT)}


def authors_names(arrays: Mapping[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    """The port's arrays under the authors' names; an entry that the port does not have keeps its name."""
    out = dict(arrays)
    for key, parts in port_keys(config).items():
        if all(part in out for part in parts):
            value = np.concatenate([out.pop(part) for part in parts]) if len(parts) > 1 else out.pop(parts[0])
            out[key] = value[None] if key == f"{TRUNK}pos_embed" else value
    return out


def port_names(arrays: Mapping[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    """The authors' arrays under the port's names."""
    out = {}
    for key, parts in port_keys(config).items():
        if key in arrays:
            value = arrays[key][0] if key == f"{TRUNK}pos_embed" else arrays[key]
            out |= dict(zip(parts, np.split(value, len(parts)), strict=True))
    return out


def port_keys(config: Config) -> dict[str, tuple[str, ...]]:
    """The port's names for every entry of the authors': three for packed queries, keys and values, else one."""
    n = sized(config)
    same = {MASK_PROBABILITIES: "attn_mask_probs", EMPTY_WEIGHT: EMPTY_WEIGHT, f"{MODEL}q.weight": "query.weight"}
    names = {"cls_token": "cls_token", "reg_token": "register_tokens", "mask_token": "mask_token"}
    same |= {TRUNK + key: f"embeddings.{port}" for key, port in names.items()}
    same[f"{TRUNK}pos_embed"] = "embeddings.position_embeddings.weight"
    modules = {f"{TRUNK}patch_embed.proj": "embeddings.patch_embeddings.projection", f"{TRUNK}norm": "layernorm"}
    modules |= {f"{MODEL}query_updater": "query_updater", f"{MODEL}class_head": "class_predictor"}
    modules |= {f"{MODEL}mask_head.{2 * i}": f"mask_head.fc{i + 1}" for i in range(3)}
    for i in range(n.upscales):
        key, port = f"{MODEL}upscale.{i}", f"upscale_block.block.{i}"
        modules |= {f"{key}.conv1": f"{port}.conv1", f"{key}.norm": f"{port}.layernorm2d"}
        same[f"{key}.conv2.weight"] = f"{port}.conv2.weight"
    packed = {}
    for i in range(n.trunk_blocks + n.query_blocks):
        key, port = f"{TRUNK}blocks.{i}", f"layers.{i}"
        modules |= {f"{key}.{name}": f"{port}.{name}" for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")}
        modules[f"{key}.attn.proj"] = f"{port}.attention.out_proj"
        same |= {f"{key}.ls{j}.gamma": f"{port}.layer_scale{j}.lambda1" for j in (1, 2)}
        for end in ("weight", "bias"):
            packed[f"{key}.attn.qkv.{end}"] = tuple(f"{port}.attention.{part}_proj.{end}" for part in "qkv")
    same |= {f"{key}.{end}": f"{port}.{end}" for key, port in modules.items() for end in ("weight", "bias")}
    return {key: (port,) for key, port in same.items()} | packed


def _trunk(n: Config) -> list[Rule]:
    """Patch embedding, class token, registers and position table."""
    names = ("cls_token", "reg_token", "mask_token", *(("pos_embed",) if n.image_size else ()))
    tokens = [Rule(TRUNK + name, f"params/trunk/{name}") for name in names]
    return tokens + conv(f"{TRUNK}patch_embed.proj", "params/trunk/patch_embed/proj", transform=CONV)


def _block(key: str, path: str, i: int) -> list[Rule]:
    """One block: slice `i` of the stack at `path`."""
    entries = norm(f"{key}.norm1", f"{path}/norm1", index=i) + norm(f"{key}.norm2", f"{path}/norm2", index=i)
    for theirs, ours in (("attn.qkv", "attn/qkv"), ("attn.proj", "attn/proj"), ("mlp.fc1", "fc1"), ("mlp.fc2", "fc2")):
        entries += linear(f"{key}.{theirs}", f"{path}/{ours}", index=i)
    return entries + [Rule(f"{key}.ls{j}.gamma", f"{path}/gamma{j}", index=i) for j in (1, 2)]


def _classes(group: tuple[str, int]) -> list[Rule]:
    """The class head, its rows brought to the official order."""
    order = class_order(group)
    back = np.argsort(order)
    kernel = Transform(lambda a: a[back].T, lambda a: a.T[order])
    bias = Transform(lambda a: a[back], lambda a: a[order])
    key, path = f"{MODEL}class_head", "params/heads/class_head"
    return [Rule(f"{key}.weight", f"{path}/kernel", kernel), Rule(f"{key}.bias", f"{path}/bias", bias)]
