"""Key table of the Swin backbone (spec: tarvis 10)."""

from collections.abc import Mapping

import numpy as np

from vps_jax.convert.rules import (
    LINEAR,
    SAME,
    BackboneKeys,
    Rule,
    Table,
    conv,
    linear,
    norm,
    without_classifier,
)
from vps_jax.models.swin import SIZES
from vps_jax.ops.resize import resize
from vps_jax.ops.windows import relative_position_index
from vps_jax.types import UserError

CLASSIFIER = ("norm.", "head.")  # of ImageNet: nothing here takes their place
BIAS_TABLE = "attn.relative_position_bias_table"


def table(name: str, *, key: str = "backbone.backbone.", path: str = "backbone") -> Table:
    """Every entry of a published Swin in a TarViS file.

    Args:
      name: of a row of `vps_jax.models.swin.SIZES`.
      key: what the published names begin with (empty for a file that holds the backbone alone).
      path: where our backbone's parameters are inside the collection `params`.
    """
    size, path = SIZES[name], f"params/{path}"
    rules = conv(f"{key}patch_embed.proj", f"{path}/patch") + norm(f"{key}patch_embed.norm", f"{path}/patch_norm")
    constants = {}
    for i, depth in enumerate(size.depths):
        for j in range(depth):
            block = f"{key}layers.{i}.blocks.{j}"
            rules += _block(block, f"{path}/stages_{i}/blocks", j)
            index = relative_position_index(size.window).astype(np.int64)
            constants[f"{block}.attn.relative_position_index"] = index
        if i < 3:
            merging = f"{key}layers.{i}.downsample"
            rules += norm(f"{merging}.norm", f"{path}/downsample_{i}/norm")
            rules += linear(f"{merging}.reduction", f"{path}/downsample_{i}/reduction", bias=False)
        rules += norm(f"{key}norm{i}", f"{path}/norm_{i}")
    return Table(tuple(rules), constants)


def _block(key: str, path: str, number: int) -> list[Rule]:
    """One block: slice `number` of the stacked parameters at `path`."""
    rules = norm(f"{key}.norm1", f"{path}/norm1", index=number) + norm(f"{key}.norm2", f"{path}/norm2", index=number)
    for name in ("fc1", "fc2"):
        rules += linear(f"{key}.mlp.{name}", f"{path}/{name}", index=number)
    rules += linear(f"{key}.attn.proj", f"{path}/attn/proj", index=number)
    bias_table = "attn/relative_position_bias_table"
    return rules + [
        Rule(f"{key}.attn.qkv.weight", f"{path}/attn/qkv/kernel", LINEAR, index=number),
        Rule(f"{key}.attn.qkv.bias", f"{path}/attn/qkv_bias", SAME, index=number),
        Rule(f"{key}.attn.relative_position_bias_table", f"{path}/{bias_table}", SAME, index=number),
    ]


def bare(arrays: Mapping[str, np.ndarray], name: str, notes: list[str]) -> dict[str, np.ndarray]:
    """Entries of a file that holds the backbone alone, with the output norms that such files lack."""
    trunk = {key: value for key, value in arrays.items() if not key.endswith(".attn_mask")}  # follows from the size
    trunk = without_classifier(trunk, CLASSIFIER, notes)
    if "norm0.weight" not in trunk:
        for i, width in enumerate(SIZES[name].channels):
            trunk |= {f"norm{i}.weight": np.ones(width, np.float32), f"norm{i}.bias": np.zeros(width, np.float32)}
        notes.append("output norms 0..3 are not in the file and start as identity")
    return trunk


def resized(arrays: Mapping[str, np.ndarray], name: str, notes: list[str]) -> dict[str, np.ndarray]:
    """Relative position tables at the model's window, by bicubic interpolation as in the Swin repository."""
    window = SIZES[name].window
    out, sources, side = dict(arrays), set(), 2 * window - 1
    for key, value in arrays.items():
        if not key.endswith(BIAS_TABLE) or value.ndim != 2 or value.shape[0] == side * side:
            continue
        old = round(value.shape[0] ** 0.5)
        if old * old != value.shape[0] or old % 2 == 0:
            raise UserError(f"{key} has {value.shape[0]} rows, which is no (2 w - 1)^2; expected {side * side}")
        grid = value.astype(np.float32).reshape(old, old, -1)
        out[key] = np.asarray(resize(grid, (side, side), method="bicubic")).reshape(side * side, -1)
        sources.add((old + 1) // 2)
    if sources:
        notes.append(f"relative position tables resampled from window {sorted(sources)} to {window}")
    return out


KEYS = BackboneKeys(table, "patch_embed.proj.weight", bare, resized)
