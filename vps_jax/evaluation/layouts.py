"""The layouts of truth folders, told apart by what lies there."""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vps_jax.evaluation import vipseg_folders, vspw_folders, ytvis_folders
from vps_jax.evaluation.plan import Plan
from vps_jax.types import UserError


class Layout(NamedTuple):
    """How one layout is recognised and read.

    Attributes:
      found: `(root, split)` whether it lies there.
      plan: `(root, predictions, split, videos) -> Plan`.
      expected: what would lie there, for the message.
    """

    found: Callable[[pathlib.Path, str], bool]
    plan: Callable[..., Plan]
    expected: str


LAYOUTS = (
    Layout(
        lambda root, split: vipseg_folders.truth_json(root, split).is_file(),
        vipseg_folders.plan,
        "panoptic_gt_VIPSeg_{split}.json (VIPSeg)",
    ),
    Layout(vspw_folders.is_root, vspw_folders.plan, "{split}.txt and data/ (VSPW)"),
    Layout(
        lambda root, split: ytvis_folders.truth_json(root, split) is not None,
        ytvis_folders.plan,
        "{split}/instances.json (YouTube-VIS)",
    ),
)


def read(
    truth: pathlib.Path, predictions: pathlib.Path, split: str, videos: Sequence[str] | None = None
) -> Plan:
    """The plan of whichever layout the truth has.

    Raises:
      UserError: no layout, or the layout's own complaint.
    """
    for layout in LAYOUTS:
        if layout.found(truth, split):
            return layout.plan(truth, predictions, split, videos)
    expected = ", ".join(layout.expected.format(split=split) for layout in LAYOUTS)
    raise UserError(f"{truth}: no truth of split {split!r} there; expected one of {expected}")
