"""Files that a ViT-Adapter segmentor can start from: whole segmentors of another label set or size, and bare trunks.

Trunks (spec: vit_adapter 2, 3, 6, 8): BEiT-L and BEiTv2-L as released, AugReg ViT-L in timm's names or in the original
`.npz`. Everything is brought to the names of a segmentor first, so that one key table serves all files.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from vps_jax.config import Mask2Former
from vps_jax.convert import resampled_tables, rules, vit_adapter_keys
from vps_jax.convert.vit_adapter_keys import table
from vps_jax.models.mask2former_sizes import sized
from vps_jax.types import UserError

__all__ = ["fill", "table"]
LABEL_SETS = {19: "Cityscapes", 59: "Pascal Context", 124: "VSPW", 150: "ADE20K", 171: "COCO-Stuff"}  # by classes
SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"  # one table for all blocks, in some BEiT files
TABLE = "attn.relative_position_bias_table"
# of a trunk's own task: nothing here takes their place
TRUNK_HEADS = re.compile(
    r"^(mask_token|norm\.|head\.|fc_norm\.|pre_logits\.|head_dist\.|dist_token)|relative_position_index$"
)


def fill(
    arrays: Mapping[str, np.ndarray],
    given: Mapping[str, Any] | Mask2Former,
    expected: Mapping[str, Any],
    *,
    label_set: str = "",
) -> rules.Filled:
    """Variables of a segmentor from any of the files above.

    Args:
      arrays: published name -> array.
      given: `config.model`.
      expected: all variables of that model with `.shape` and `.dtype` at the leaves.
      label_set: whose classes the file knows, when its number of classes does not tell; compared with the model's.

    Raises:
      UserError: not a file of these, or of another size (`rules.MismatchError` names what does not fit).
    """
    n = sized(given)
    notes: list[str] = []
    arrays, trunk_only = segmentor_names(arrays, n, notes)
    arrays = resample_tables(arrays, vit_adapter_keys.grid(n.image_size), notes)
    wanted = traverse_util.flatten_dict(dict(expected), sep="/")
    if trunk_only:
        wanted = {path: leaf for path, leaf in wanted.items() if path in trunk_paths(n)}
    else:
        arrays, empty = without_other_labels(arrays, n.semantic_groups[0], label_set, notes)
        wanted = {path: leaf for path, leaf in wanted.items() if path not in empty}
    variables = rules.apply(table(n), arrays, traverse_util.unflatten_dict(wanted, sep="/"))
    return rules.Filled(variables, len(wanted) == len(traverse_util.flatten_dict(dict(expected))), tuple(notes))


def trunk_paths(config: Mask2Former) -> set[str]:
    """Our paths of patch embedding, positions or class token, and blocks."""
    own = re.compile(r"params/backbone/(patch_embed|cls_token|pos_embed|blocks)")
    return {rule.path for rule in vit_adapter_keys.backbone_table(config).rules if own.match(rule.path)}


def segmentor_names(arrays: Mapping[str, np.ndarray], n: Mask2Former, notes: list[str]) -> tuple[dict, bool]:
    """Arrays under the names of a segmentor, and whether they are a trunk alone."""
    if any(key.startswith(vit_adapter_keys.BACKBONE) for key in arrays):
        return dict(arrays), False
    if "Transformer/encoderblock_0/LayerNorm_0/scale" in arrays:
        arrays = timm_names(arrays)
    if "blocks.0.attn.qkv.weight" not in arrays:
        raise UserError(
            f"a file with the key {next(iter(arrays), None)!r} is neither a ViT-Adapter segmentor (backbone.*) nor "
            "a ViT or BEiT trunk (blocks.*); name the file of one of these"
        )
    has_table = SHARED_TABLE in arrays or f"blocks.0.{TABLE}" in arrays
    if has_table != n.beit:
        kinds = ("a BEiT", "a plain ViT")
        raise UserError(f"the file is {kinds[not has_table]}, the model {kinds[not n.beit]}; choose another model.size")
    return {vit_adapter_keys.BACKBONE + key: value for key, value in trunk_entries(arrays, n, notes).items()}, True


def trunk_entries(arrays: Mapping[str, np.ndarray], n: Mask2Former, notes: list[str]) -> dict[str, np.ndarray]:
    """The entries of a trunk that the model has, with what old files leave implicit written out."""
    depth = sum(n.groups)
    trunk = {key: value for key, value in arrays.items() if not TRUNK_HEADS.search(key)}
    if n.beit and SHARED_TABLE in trunk:
        shared = trunk.pop(SHARED_TABLE)
        trunk |= {f"blocks.{i}.{TABLE}": shared for i in range(depth)}
    if not n.beit:
        trunk.pop("cls_token", None)  # the adapter runs without a class token
        for i in range(depth):
            for name in ("gamma1", "gamma2"):
                trunk.setdefault(f"blocks.{i}.{name}", np.ones(n.width, np.float32))
    dropped = sorted({key.split(".")[0] for key in arrays if key not in trunk and not key.endswith("position_index")})
    if dropped:
        notes.append(f"left out, of the trunk's own task: {', '.join(dropped)}")
    return trunk


def timm_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A ViT in the `.npz` that AugReg was released in, under timm's names."""
    out = {
        "cls_token": arrays["cls"],
        "pos_embed": arrays["Transformer/posembed_input/pos_embedding"],
        "patch_embed.proj.weight": arrays["embedding/kernel"].transpose(3, 2, 0, 1),
        "patch_embed.proj.bias": arrays["embedding/bias"],
    }
    blocks = {int(m[1]) for key in arrays if (m := re.match(r"Transformer/encoderblock_(\d+)/", key))}
    for i in sorted(blocks):
        ours, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        for name, layer in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            out[f"{ours}{name}.weight"] = arrays[f"{theirs}{layer}/scale"]
            out[f"{ours}{name}.bias"] = arrays[f"{theirs}{layer}/bias"]
        for name, layer in (("mlp.fc1", "Dense_0"), ("mlp.fc2", "Dense_1")):
            out[f"{ours}{name}.weight"] = arrays[f"{theirs}MlpBlock_3/{layer}/kernel"].T
            out[f"{ours}{name}.bias"] = arrays[f"{theirs}MlpBlock_3/{layer}/bias"]
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        parts = ("query", "key", "value")
        kernels = [arrays[f"{attention}{part}/kernel"] for part in parts]  # [c, m, d]
        out[f"{ours}attn.qkv.weight"] = np.concatenate([k.reshape(k.shape[0], -1).T for k in kernels])
        out[f"{ours}attn.qkv.bias"] = np.concatenate([arrays[f"{attention}{part}/bias"].ravel() for part in parts])
        kernel = arrays[f"{attention}out/kernel"]  # [m, d, c]
        out[f"{ours}attn.proj.weight"] = kernel.reshape(-1, kernel.shape[-1]).T
        out[f"{ours}attn.proj.bias"] = arrays[f"{attention}out/bias"]
    return out


def resample_tables(arrays: Mapping[str, np.ndarray], grid: tuple[int, int], notes: list[str]) -> dict[str, np.ndarray]:
    """BEiT's relative position tables at the model's size."""
    rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + resampled_tables.CLASS_ROWS
    out, sources = dict(arrays), set()
    for key, value in arrays.items():
        if key.endswith(TABLE) and value.shape[0] != rows:
            side = (round((value.shape[0] - resampled_tables.CLASS_ROWS) ** 0.5) + 1) // 2
            try:
                out[key] = resampled_tables.resample(value, (side, side), grid)
            except ValueError as error:
                raise UserError(
                    f"{key}: {error}; set model.image_size to the size that the file was made for"
                ) from error
            sources.add(side * vit_adapter_keys.PATCH)
    if sources:
        new = "x".join(str(side * vit_adapter_keys.PATCH) for side in grid)
        notes.append(f"relative position tables resampled from {sorted(sources)} pixels to {new}")
    return out


def without_other_labels(arrays: Mapping[str, np.ndarray], group, label_set: str, notes: list[str]):
    """Arrays without the class rows of another label set, and our paths that stay empty then."""
    prefix = f"{vit_adapter_keys.HEAD}cls_embed."
    name, classes = group
    count = arrays[f"{prefix}bias"].shape[0] - 1 if f"{prefix}bias" in arrays else classes
    theirs = label_set or (name if count == classes else LABEL_SETS.get(count, "another label set"))
    if theirs.lower() == name.lower():
        return arrays, set()
    notes.append(f"class rows of {theirs} ({count} classes) left out; the model's {name} ({classes}) start fresh")
    others = {key: value for key, value in arrays.items() if not key.startswith(prefix)}
    return others, {"params/heads/cls_embed/kernel", "params/heads/cls_embed/bias"}
