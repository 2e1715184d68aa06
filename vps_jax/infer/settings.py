"""`config.infer`: how a model is run on videos."""

from collections.abc import Mapping
from typing import NamedTuple

from vps_jax.infer.fusion import PANOPTIC_SCORE
from vps_jax.infer.sliding import SlidingSettings
from vps_jax.infer.stitching import StitchSettings
from vps_jax.taxonomy import ClassTable, class_table
from vps_jax.types import UserError

IMAGE_TASK = "mask_classification"
TASKS = ("panoptic", "semantic", IMAGE_TASK)


class Settings(NamedTuple):
    """The defaults are VIPSeg's published values (spec: tarvis 8.1, 8.3) and, for the image model, VSPW's at 640.

    Attributes:
      task, semantic_group: query set of the model; None is its first group. `mask_classification` is the image model.
      taxonomy: class table, `vipseg`.
      short_side_px, max_side_px: size of the network's input.
      clip_frames, overlap_frames: length of a clip and its frames in common with the next.
      score_threshold, max_tracks_per_clip, association_iou, instance_overlap: see `stitching.StitchSettings`.
      panoptic_score: a track is painted when its mean score exceeds this, 0..1.
      size_multiple, window_px, stride_px, scales, cover_window, flip, window_batch: see `sliding.SlidingSettings`.
    """

    task: str = "panoptic"
    semantic_group: str | None = None
    taxonomy: str = "vipseg"
    short_side_px: int = 576
    max_side_px: int = 1333
    clip_frames: int = 12
    overlap_frames: int = 6
    score_threshold: float = 0.5
    max_tracks_per_clip: int = 1000
    association_iou: float = 0.5
    instance_overlap: str = "earlier"
    panoptic_score: float = PANOPTIC_SCORE
    size_multiple: int = 32
    window_px: int = 640
    stride_px: int = 426
    scales: tuple[float, ...] = (1.0,)
    cover_window: bool = False
    flip: bool = False
    window_batch: int = 3

    @classmethod
    def from_config(cls, infer: Mapping) -> "Settings":
        """Checked settings from a mapping.

        Raises:
          UserError: an unknown key, task or overlap rule.
        """
        unknown = sorted(set(infer) - set(cls._fields))
        if unknown:
            raise UserError(f"infer.{unknown[0]}: no such setting; expected one of {', '.join(cls._fields)}")
        settings = cls(**{name: infer[name] for name in infer})
        if settings.task not in TASKS:
            raise UserError(f"infer.task={settings.task!r}: expected one of {', '.join(TASKS)}")
        settings.stitching()
        return settings

    def stitching(self) -> StitchSettings:
        return StitchSettings.from_config(self._asdict())

    def sliding(self) -> SlidingSettings:
        return SlidingSettings(**{name: getattr(self, name) for name in SlidingSettings._fields})

    def classes(self) -> ClassTable:
        return class_table(self.taxonomy)
