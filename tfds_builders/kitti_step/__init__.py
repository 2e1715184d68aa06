"""KITTI-STEP: see README.md."""

from tfds_builders.kitti_step.kitti_step_dataset_builder import KittiStep as Builder

__all__ = ["Builder"]
