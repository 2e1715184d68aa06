"""DAVIS 2017: see README.md."""

from tfds_builders.davis.davis import Builder

__all__ = ["Builder"]
