"""OVIS: see README.md."""

from tfds_builders.ovis.ovis_dataset_builder import Ovis as Builder

__all__ = ["Builder"]
