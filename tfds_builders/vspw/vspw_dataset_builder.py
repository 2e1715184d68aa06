"""VSPW: see README.md."""

from tfds_builders import base
from vps_jax import datasets


class Vspw(base.FrameBuilder):
    """One record per frame; the label is the mask as it is.

    Real files hold stray values (252, 253): they stay, are reported as unknown and ignored in training.
    """

    SPEC = datasets.dataset("vspw")
