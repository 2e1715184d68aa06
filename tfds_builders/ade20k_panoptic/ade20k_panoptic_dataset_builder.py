"""ADE20K panoptic: see README.md."""

from tfds_builders import base
from vps_jax import datasets


class Ade20kPanoptic(base.FrameBuilder):
    """One record per frame; the label is (class + 1) * 256 + instance."""

    name = "ade20k_panoptic"
    SPEC = datasets.dataset("ade20k_panoptic")
