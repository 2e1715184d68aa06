"""Video panoptic segmentation in JAX: TarViS, ViT-Adapter with Mask2Former, and their ensemble."""

__version__ = "0.1.0"
