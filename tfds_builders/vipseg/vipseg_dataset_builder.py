"""VIPSeg: see README.md."""

from tfds_builders import base
from vps_jax import datasets


class Vipseg(base.FrameBuilder):
    """One record per frame; the label is the raw panomask code.

    Val holds a known wrong value 200 (stuff by its number, published as ceiling); it is kept as it is and reported.
    """

    SPEC = datasets.dataset("vipseg")
