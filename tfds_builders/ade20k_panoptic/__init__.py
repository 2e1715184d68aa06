"""ADE20K panoptic: see README.md."""

from tfds_builders.ade20k_panoptic.ade20k_panoptic_dataset_builder import Ade20kPanoptic as Builder

__all__ = ["Builder"]
