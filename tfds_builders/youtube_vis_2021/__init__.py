"""YouTube-VIS 2021: see README.md."""

from tfds_builders.youtube_vis_2021.youtube_vis_2021_dataset_builder import YoutubeVis2021 as Builder

__all__ = ["Builder"]
