"""Configs of earlier versions, as old checkpoints carry them, in today's words."""

from collections.abc import Mapping

from vps_jax.types import UserError

VERSION = 2  # of the config in a checkpoint
# one class of settings served both kinds of models in version 1; each reads its own keys
CLIP_KEYS = (
    "clip_frames", "overlap_frames", "score_threshold", "max_tracks_per_clip", "association_iou", "instance_overlap",
    "panoptic_score",
)  # fmt: skip
WINDOW_KEYS = ("size_multiple", "window_px", "stride_px", "scales", "cover_window", "window_batch")
OTHERS_KEYS = {"tarvis": WINDOW_KEYS, "mask2former": CLIP_KEYS}  # model -> keys of `infer` that it never read


def upgrade(given: Mapping) -> dict:
    """A config in the words of `VERSION`; what it leaves out gets its default later.

    Raises:
      UserError: the config is of a later version.
    """
    given = dict(given.items())
    version = given.get("version", 1)
    if version > VERSION:
        raise UserError(f"version={version}: this program reads configs up to version {VERSION}; install a newer one")
    if version == VERSION:
        return given
    given["version"] = VERSION
    given["tasks"] = {name: upgrade_task(numbers) for name, numbers in given.get("tasks", {}).items()}
    model = given.get("model", {})
    unread = OTHERS_KEYS.get(model.get("name") if hasattr(model, "get") else model.name, ())
    given["infer"] = {key: value for key, value in given.get("infer", {}).items() if key not in unread}
    return given


def upgrade_task(numbers: Mapping) -> dict:
    """Version 1 called the clips of one normalisation `group`, and could name classes that the model's group has."""
    numbers = {key: value for key, value in numbers.items() if key != "num_classes"}
    if "group" in numbers:
        numbers["normalize_clips"] = numbers.pop("group")
    return numbers
