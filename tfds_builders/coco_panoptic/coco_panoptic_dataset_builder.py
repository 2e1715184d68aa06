"""COCO panoptic 2017: see README.md."""

from tfds_builders import base
from vps_jax import datasets


class CocoPanoptic(base.FrameBuilder):
    """One record per frame; the label is (class + 1) * 256 + instance."""

    SPEC = datasets.dataset("coco_panoptic")
