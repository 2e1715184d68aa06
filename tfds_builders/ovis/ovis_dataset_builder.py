"""OVIS: see README.md."""

from tfds_builders import base
from vps_jax import datasets


class Ovis(base.FrameBuilder):
    """One record per frame; the label is (class + 1) * 256 + instance."""

    SPEC = datasets.dataset("ovis")
