"""COCO panoptic 2017: see README.md."""

from tfds_builders.coco_panoptic.coco_panoptic import Builder

__all__ = ["Builder"]
