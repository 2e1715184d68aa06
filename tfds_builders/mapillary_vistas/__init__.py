"""Mapillary Vistas: see README.md."""

from tfds_builders.mapillary_vistas.mapillary_vistas_dataset_builder import MapillaryVistas as Builder

__all__ = ["Builder"]
