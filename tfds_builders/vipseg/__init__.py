"""VIPSeg: see README.md."""

from tfds_builders.vipseg.vipseg import Builder

__all__ = ["Builder"]
