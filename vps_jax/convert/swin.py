"""Key table of the Swin backbone (spec: tarvis 10)."""

import numpy as np

from vps_jax.convert.rules import LINEAR, SAME, Rule, Table, conv, linear, norm
from vps_jax.models.swin import SwinSize
from vps_jax.ops.windows import relative_position_index


def table(size: SwinSize, *, key: str = "backbone.backbone.", path: str = "params/backbone") -> Table:
    """Every entry of a published Swin in a TarViS file.

    Args:
      size: a row of `vps_jax.models.swin.SIZES`.
      key: what the published names begin with (empty for a file that holds the backbone alone).
      path: where our backbone's parameters are.
    """
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
