"""COCO panoptic 2017: see README.md."""

from tfds_builders.coco_panoptic.coco_panoptic_dataset_builder import CocoPanoptic as Builder

__all__ = ["Builder"]
