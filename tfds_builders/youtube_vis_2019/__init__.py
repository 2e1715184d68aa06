"""YouTube-VIS 2019: see README.md."""

from tfds_builders.youtube_vis_2019.youtube_vis_2019_dataset_builder import YoutubeVis2019 as Builder

__all__ = ["Builder"]
