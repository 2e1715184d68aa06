"""Settings that tasks share: published values, and keys that no task knows are refused."""

from collections.abc import Mapping
from typing import Any

from vps_jax.types import UserError

INSTANCES = {
    "match_points": 12544,
    "mask_points": 12544,
    "class_weight": 2.0,
    "mask_weight": 5.0,
    "dice_weight": 5.0,
    "background_weight": 0.1,
}
SEMANTIC = {
    "semantic_points": 50176,
    "semantic_weight": 1.0,
    "regularization": True,
    "ignore_null_classes": False,
}
CLIPS = {"num_classes": None, "class_map": None, "group": 1}


def complete(settings: Mapping[str, Any], defaults: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The settings with defaults for what they leave out.

    Raises:
      UserError: a key that the task does not have, no number of classes, or a pair of options that excludes itself.
    """
    unknown = sorted(set(settings) - set(defaults))
    if unknown:
        raise UserError(
            f"{task}: unknown setting {unknown[0]!r}; it has {', '.join(sorted(defaults))}; correct the config"
        )
    full = {**defaults, **settings}
    if "num_classes" in defaults and full["num_classes"] is None:
        raise UserError(
            f"{task}: num_classes is missing, expected the number of classes of the task; add it to the config"
        )
    if full.get("regularization") and full.get("ignore_null_classes"):
        # a null class's logit is -1000, and the norm would be of it (spec: tarvis 9.22)
        raise UserError(f"{task}: regularization and ignore_null_classes are both on; turn one off in the config")
    return full
