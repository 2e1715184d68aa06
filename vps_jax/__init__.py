"""Video panoptic segmentation in JAX: TarViS, ViT-Adapter with Mask2Former, VidEoMT, and their ensemble.

  segmenter = vps_jax.load("runs/stage4")
  for frame in segmenter("clip.mp4"):
      ...

Names are imported when they are asked for: `import vps_jax` alone loads neither jax nor numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vps_jax.datasets import ClassTable
    from vps_jax.runs.segmenter import Segmenter, load
    from vps_jax.types import FrameScores, PanopticFrame, UserError

__all__ = ["ClassTable", "FrameScores", "PanopticFrame", "Segmenter", "UserError", "load"]

_HOMES = {
    "ClassTable": "vps_jax.datasets",
    "FrameScores": "vps_jax.types",
    "PanopticFrame": "vps_jax.types",
    "Segmenter": "vps_jax.runs.segmenter",
    "UserError": "vps_jax.types",
    "load": "vps_jax.runs.segmenter",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("vps-jax")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vps_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
