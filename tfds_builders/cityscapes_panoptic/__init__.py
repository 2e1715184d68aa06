"""Cityscapes panoptic: see README.md."""

from tfds_builders.cityscapes_panoptic.cityscapes_panoptic_dataset_builder import CityscapesPanoptic as Builder

__all__ = ["Builder"]
