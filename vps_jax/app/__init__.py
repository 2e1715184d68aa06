"""The local web page of `vps-jax app`: videos in, overlays, tracks and timelines out."""
