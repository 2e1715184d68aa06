"""YouTube-VIS 2021: see README.md."""

from tfds_builders import base
from vps_jax import datasets


class YoutubeVis2021(base.FrameBuilder):
    """One record per frame; the label is (class + 1) * 256 + instance."""

    name = "youtube_vis_2021"
    SPEC = datasets.dataset("youtube_vis_2021")
