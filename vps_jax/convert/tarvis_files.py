"""Files that a TarViS model can start from: whole models, of another query list or window too, and bare backbones.

Everything is brought to the published names and the model's sizes first, so that one key table serves all files.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vps_jax.config import Tarvis
from vps_jax.convert import rules
from vps_jax.convert.tarvis_keys import backbone_keys, table
from vps_jax.models.backbones import BACKBONES
from vps_jax.models.query_bank import SemanticGroups, group_rows
from vps_jax.parsing import parse
from vps_jax.types import UserError

__all__ = ["fill", "table"]

BACKBONE = "backbone.backbone."
SEMANTIC = "embedding_container._semantic_queries"
# the two published models know these data sets, in the order of their rows (spec: tarvis 4.2)
PUBLISHED_GROUPS = (
    (("ADE20K", 150), ("CITYSCAPES", 34), ("COCO", 133), ("MAPILLARY", 65)),
    (("CITYSCAPES_VPS", 19), ("KITTI_STEP", 19), ("OVIS", 25), ("VIPSEG", 124), ("YOUTUBE_VIS", 40)),
)


def fill(
    arrays: Mapping[str, np.ndarray], given: Mapping[str, Any] | Tarvis, expected: Mapping[str, Any]
) -> rules.Filled:
    """Variables of a TarViS model from a file of any of these kinds.

    Args:
      arrays: published name -> array.
      given: `config.model`.
      expected: all variables of that model with `.shape` and `.dtype` at the leaves.

    Raises:
      UserError: not a file of these, or of other sizes (`rules.MismatchError` names what does not fit).
    """
    config, notes = parse(Tarvis, given, "model"), []
    keys = backbone_keys(config.backbone)
    alone = holds_backbone_alone(arrays)
    if alone:
        own = keys.bare(arrays, config.backbone, notes)
        arrays = {BACKBONE + key: value for key, value in own.items()}
        notes.append("the file holds a backbone alone: everything else starts fresh")
        expected = {room: {"backbone": tree["backbone"]} for room, tree in expected.items() if "backbone" in tree}
    else:
        arrays = choose_groups(arrays, config.semantic_groups, notes)
    arrays = keys.resized(arrays, config.backbone, notes)
    return rules.Filled(rules.apply(table(config), arrays, expected), not alone, tuple(notes))


def holds_backbone_alone(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file begins as one of any backbone, the model's or another."""
    known = (backbone_keys(name).first for name, row in BACKBONES.items() if row.keys)
    return any(first in arrays for first in known if first)


def choose_groups(arrays: Mapping[str, np.ndarray], wanted: SemanticGroups, notes: list[str]) -> dict[str, np.ndarray]:
    """Rows of the semantic queries by group name, where a published file knows more data sets than the model.

    Raises:
      UserError: the file has some of the model's groups but not all.
    """
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
