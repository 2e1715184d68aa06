"""Cityscapes-VPS: see README.md."""

from tfds_builders.cityscapes_vps.cityscapes_vps_dataset_builder import CityscapesVps as Builder

__all__ = ["Builder"]
