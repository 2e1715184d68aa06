"""YouTube-VIS 2019: see README.md."""

from tfds_builders import base
from vps_jax import datasets


class YoutubeVis2019(base.FrameBuilder):
    """One record per frame; the label is (class + 1) * 256 + instance."""

    name = "youtube_vis_2019"
    SPEC = datasets.dataset("youtube_vis_2019")
