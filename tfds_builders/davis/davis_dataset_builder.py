"""DAVIS 2017: see README.md."""

from tfds_builders import base
from vps_jax import datasets


class Davis(base.FrameBuilder):
    """One record per frame; the label is 256 + object, 0 for background and void."""

    SPEC = datasets.dataset("davis")
