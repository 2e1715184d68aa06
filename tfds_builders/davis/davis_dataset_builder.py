"""DAVIS 2017: see README.md."""

from tfds_builders import frames
from vps_jax import datasets


class Davis(frames.FrameBuilder):
    """One record per frame; the label is 256 + object, 0 for background and void."""

    SPEC = datasets.dataset("davis")
