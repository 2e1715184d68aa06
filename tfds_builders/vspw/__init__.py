"""VSPW: see README.md."""

from tfds_builders.vspw.vspw_dataset_builder import Vspw as Builder

__all__ = ["Builder"]
