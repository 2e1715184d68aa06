"""Backbones of TarViS, one row each.

A row of one's own makes another backbone known to configs, training and conversion:

  BACKBONES["mine"] = Backbone(build=my_module, channels=(64, 128, 256, 512))
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn

from vps_jax.models import basic_resnet, resnet, swin
from vps_jax.types import UserError

STRIDES = (4, 8, 16, 32)


class Backbone(NamedTuple):
    """What a backbone is.

    Attributes:
      build: called with `drop_path_rate`, `remat` and `dtype` by keyword; gives a flax module that makes one map per
        stride, `[n, h / s, w / s, channels]`, of normalised images `[n, h, w, 3]` and takes the keyword `train`.
      channels: widths of the maps.
      strides: of the maps.
      keys: `module:name` of the `convert.rules.BackboneKeys` of published files; empty where there are none.
    """

    build: Callable[..., nn.Module]
    channels: tuple[int, ...]
    strides: tuple[int, ...] = STRIDES
    keys: str = ""


def _without_drops(module: Callable[..., nn.Module], size, *, dtype, **_) -> nn.Module:
    """Nothing in a ResNet is dropped or computed again."""
    return module(size, dtype=dtype)


BACKBONES: dict[str, Backbone] = (
    {
        name: Backbone(functools.partial(swin.Swin, size), size.channels, keys="vps_jax.convert.swin_keys:KEYS")
        for name, size in swin.SIZES.items()
    }
    | {
        name: Backbone(
            functools.partial(_without_drops, resnet.ResNet, size),
            size.channels,
            keys="vps_jax.convert.resnet_keys:KEYS",
        )
        for name, size in resnet.SIZES.items()
    }
    | {
        name: Backbone(functools.partial(_without_drops, basic_resnet.BasicResNet, size), size.channels)
        for name, size in basic_resnet.SIZES.items()
    }
)


def backbone_row(name: str) -> Backbone:
    """The row of a backbone.

    Raises:
      UserError: no backbone has that name.
    """
    if name not in BACKBONES:
        raise UserError(f"model.backbone={name!r}: expected one of {', '.join(BACKBONES)}; set config.model.backbone")
    return BACKBONES[name]
