"""VIPSeg: see README.md."""

from tfds_builders.vipseg.vipseg_dataset_builder import Vipseg as Builder

__all__ = ["Builder"]
