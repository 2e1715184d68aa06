"""Key table of the ResNet backbone (spec: tarvis 10). Norm vectors are in the variable collection `frozen`."""

from collections.abc import Mapping

import numpy as np

from vps_jax.convert.rules import CONV, BackboneKeys, Rule, Table, without_classifier
from vps_jax.models.resnet import SIZES

CLASSIFIER = ("fc.", "linear.", "stem.fc.")  # of ImageNet: nothing here takes their place
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def table(name: str, *, key: str = "backbone.backbone.", path: str = "backbone") -> Table:
    """Every entry of a detectron2 ResNet.

    Args:
      name: of a row of `vps_jax.models.resnet.SIZES`.
      key: what the published names begin with.
      path: where our backbone is inside the collections `params` and `frozen`.
    """
    rules = _conv_norm(f"{key}stem.conv1", f"{path}/stem")
    for i, blocks in enumerate(SIZES[name].blocks):
        for j in range(blocks):
            names = ("conv1", "conv2", "conv3") + (("shortcut",) if j == 0 else ())
            for conv in names:
                rules += _conv_norm(f"{key}res{i + 2}.{j}.{conv}", f"{path}/res{i + 2}_{j}/{conv}")
    return Table(tuple(rules))


def _conv_norm(key: str, path: str) -> list[Rule]:
    norms = [Rule(f"{key}.norm.{theirs}", f"frozen/{path}/norm/{ours}") for theirs, ours in NORM.items()]
    return [Rule(f"{key}.weight", f"params/{path}/conv/kernel", CONV), *norms]


def bare(arrays: Mapping[str, np.ndarray], name: str, notes: list[str]) -> dict:
    """Entries of a file that holds the backbone alone."""
    return without_classifier(arrays, CLASSIFIER, notes)


KEYS = BackboneKeys(table, "stem.conv1.weight", bare)
