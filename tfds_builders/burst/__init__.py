"""BURST: see README.md."""

from tfds_builders.burst.burst_dataset_builder import Burst as Builder

__all__ = ["Builder"]
