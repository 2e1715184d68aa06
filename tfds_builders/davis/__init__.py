"""DAVIS 2017: see README.md."""

from tfds_builders.davis.davis_dataset_builder import Davis as Builder

__all__ = ["Builder"]
