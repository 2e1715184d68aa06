"""VSPW: see README.md."""

from tfds_builders.vspw.vspw import Builder

__all__ = ["Builder"]
