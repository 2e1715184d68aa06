"""Files that a TarViS model can start from: whole models, of another query list or window too, and bare backbones.

Everything is brought to the published names and the model's sizes first, so that one key table serves all files.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vps_jax.convert import rules, tarvis
from vps_jax.models.queries import group_rows
from vps_jax.models.swin import SIZES as swin_sizes
from vps_jax.ops.resize import resize
from vps_jax.types import UserError

BACKBONE = "backbone.backbone."
SEMANTIC = "embedding_container._semantic_queries"
TABLE = "attn.relative_position_bias_table"
BARE = ("patch_embed.proj.weight", "stem.conv1.weight")  # keys that a Swin or a ResNet file begins with
CLASSIFIER = ("norm.", "head.", "fc.", "linear.", "stem.fc.")  # of ImageNet: nothing here takes their place
# the two published models know these data sets, in the order of their rows (spec: tarvis 4.2)
PUBLISHED_GROUPS = (
    (("ADE20K", 150), ("CITYSCAPES", 34), ("COCO", 133), ("MAPILLARY", 65)),
    (("CITYSCAPES_VPS", 19), ("KITTI_STEP", 19), ("OVIS", 25), ("VIPSEG", 124), ("YOUTUBE_VIS", 40)),
)


def fill(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any], expected: Mapping[str, Any]) -> rules.Filled:
    """Variables of a TarViS model from a file of any of these kinds.

    Args:
      arrays: published name -> array.
      config: `config.model`.
      expected: all variables of that model with `.shape` and `.dtype` at the leaves.

    Raises:
      UserError: not a file of these, or of other sizes (`rules.MismatchError` names what does not fit).
    """
    notes: list[str] = []
    table = tarvis.table(config)
    bare = any(key in arrays for key in BARE)
    if bare:
        arrays = backbone_names(arrays, config, notes)
        expected = {room: {"backbone": tree["backbone"]} for room, tree in expected.items() if "backbone" in tree}
    else:
        arrays = choose_groups(arrays, config["semantic_groups"], notes)
    if config["backbone"] in swin_sizes:
        arrays = resample_tables(arrays, swin_sizes[config["backbone"]].window, notes)
    return rules.Filled(rules.apply(table, arrays, expected), not bare, tuple(notes))


def backbone_names(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any], notes: list[str]) -> dict:
    """The entries of a bare backbone under TarViS's names, without its classifier."""
    kept = {key: value for key, value in arrays.items() if not key.startswith(CLASSIFIER)}
    kept = {key: value for key, value in kept.items() if not key.endswith(".attn_mask")}  # follows from the size
    dropped = sorted({key.split(".")[0] for key in set(arrays) - set(kept) if not key.endswith(".attn_mask")})
    if dropped:
        notes.append(f"left out, of the classifier: {', '.join(dropped)}")
    if config["backbone"] in swin_sizes and "norm0.weight" not in kept:
        for i, width in enumerate(swin_sizes[config["backbone"]].channels):
            kept |= {f"norm{i}.weight": np.ones(width, np.float32), f"norm{i}.bias": np.zeros(width, np.float32)}
        notes.append("output norms 0..3 are not in the file and start as identity")
    notes.append("the file holds a backbone alone: everything else starts fresh")
    return {BACKBONE + key: value for key, value in kept.items()}


def resample_tables(arrays: Mapping[str, np.ndarray], window: int, notes: list[str]) -> dict[str, np.ndarray]:
    """Swin's relative position tables at the model's window, by bicubic interpolation as in the Swin repository."""
    out, sources, side = dict(arrays), set(), 2 * window - 1
    for key, value in arrays.items():
        if not key.endswith(TABLE) or value.ndim != 2 or value.shape[0] == side * side:
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


def choose_groups(arrays: Mapping[str, np.ndarray], wanted, notes: list[str]) -> dict[str, np.ndarray]:
    """Rows of the semantic queries by group name, where a published file knows more data sets than the model.

    Raises:
      UserError: the file has some of the model's groups but not all.
    """
    wanted = tuple((str(name), int(classes)) for name, classes in wanted)
    rows = arrays[SEMANTIC].shape[0] if SEMANTIC in arrays else 0
    theirs = next((groups for groups in PUBLISHED_GROUPS if 1 + sum(n for _, n in groups) == rows), ())
    common = [group for group in wanted if group in theirs]
    if wanted == theirs or not common:
        return dict(arrays)  # sizes that differ are met by the key table
    if len(common) < len(wanted):
        lacks = ", ".join(name for name, _ in wanted if (name, _) not in common)
        raise UserError(
            f"the file has no semantic group {lacks}; it knows {', '.join(name for name, _ in theirs)}. Convert "
            "it with these groups and let training hand them over (train.init_from)"
        )
    matrix = arrays[SEMANTIC]
    parts = [matrix[:1]] + [matrix[group_rows(theirs, name)] for name, _ in wanted]
    notes.append(f"semantic groups kept: {', '.join(name for name, _ in wanted)}")
    return dict(arrays) | {SEMANTIC: np.concatenate(parts)}
