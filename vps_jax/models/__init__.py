"""The networks: `build` one from a config, `init` its variables."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vps_jax.models import quick_keys
from vps_jax.types import UserError

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
TARVIS_KEYS = (
    "backbone",
    "semantic_groups",
    "instance_queries",
    "hidden_dim",
    "num_heads",
    "neck_layers",
    "neck_ffn_dim",
    "decoder_layers",
    "decoder_ffn_dim",
    "vos",
    "drop_path_rate",
    "remat",
    "dtype",
)


def build(config: Mapping[str, Any]) -> nn.Module:
    """The network of a config.

    Args:
      config: a mapping with `name` (`tarvis`, `mask2former` or `videomt`) and that network's sizes; see
        docs/architecture.md.

    Raises:
      UserError: unknown name, missing key or a value that does not fit.
    """
    builders = {"tarvis": _tarvis, "mask2former": _mask2former, "videomt": _videomt}
    name = config.get("name")
    if name not in builders:
        raise UserError(f"model name {name!r} is unknown; expected one of {', '.join(builders)}; set config.model.name")
    return builders[name](config)


def init(model: nn.Module, key: jax.Array, image_size: tuple[int, int]) -> dict[str, Any]:
    """Fresh variables, with the parameters of every task the network can do.

    Args:
      model: from `build`.
      key: PRNG key.
      image_size: height and width, multiples of 64. Parameters do not depend on it where the network is convolutional.

    Returns:
      `{'params': ...}` and `'batch_stats'` where the network has them; float32.
    """
    images = jnp.zeros((1, 1, *image_size, 3), jnp.uint8)
    return jax.jit(functools.partial(model.init, task="semantic"))(quick_keys.quick_key(key), images)


def _tarvis(config) -> nn.Module:
    from vps_jax.models import tarvis, temporal_neck

    missing = [key for key in TARVIS_KEYS if key not in config]
    if missing:
        raise UserError(f"config.model lacks {', '.join(missing)}; a tarvis model needs {', '.join(TARVIS_KEYS)}")
    if config["decoder_layers"] % 3 or config["decoder_layers"] < 3:
        raise UserError(
            f"config.model.decoder_layers={config['decoder_layers']} is not a multiple of 3; the layers take the three "
            "maps in turn, set 3, 6 or 9"
        )
    if config["hidden_dim"] % config["num_heads"]:
        raise UserError(
            f"config.model.hidden_dim={config['hidden_dim']} cannot be split over num_heads={config['num_heads']}; "
            "set a multiple"
        )
    dtype = DTYPES.get(config["dtype"])
    if dtype is None:
        raise UserError(f"config.model.dtype={config['dtype']!r}; expected one of {', '.join(DTYPES)}")
    shared = {"remat": bool(config["remat"]), "dtype": dtype}
    return tarvis.TarViS(
        backbone=_backbone(config["backbone"], config["drop_path_rate"], **shared),
        neck=temporal_neck.TemporalNeck(
            hidden_dim=config["hidden_dim"],
            num_heads=config["num_heads"],
            num_layers=config["neck_layers"],
            ffn_dim=config["neck_ffn_dim"],
            **shared,
        ),
        semantic_groups=tuple((str(name), int(classes)) for name, classes in config["semantic_groups"]),
        instance_queries=config["instance_queries"],
        hidden_dim=config["hidden_dim"],
        num_heads=config["num_heads"],
        decoder_layers=config["decoder_layers"],
        decoder_ffn_dim=config["decoder_ffn_dim"],
        vos=bool(config["vos"]),
        **shared,
    )


def _backbone(name: str, drop_path_rate: float, **shared) -> nn.Module:
    from vps_jax.models import resnet, swin

    if name in swin.SIZES:
        return swin.Swin(swin.SIZES[name], drop_path_rate=drop_path_rate, **shared)
    if name in resnet.SIZES:
        return resnet.ResNet(resnet.SIZES[name], dtype=shared["dtype"])
    raise UserError(f"config.model.backbone={name!r}; expected one of {', '.join((*swin.SIZES, *resnet.SIZES))}")


def _mask2former(config) -> nn.Module:
    from vps_jax.models import mask2former

    return mask2former.from_config(config)


def _videomt(config) -> nn.Module:
    from vps_jax.models import videomt

    return videomt.from_config(config)
