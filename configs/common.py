"""What all experiments share: `base()` is a complete config at the published Swin-L fine-tuning values.

Every key, its default and its source are in vps_jax/config.py and vps_jax/model_configs.py; `vps-jax configs NAME`
prints all keys of an experiment. A file here starts from `base` and states only what it changes. Sections in brackets,
as [spec 7.1], are those of docs/reference/tarvis.md; [ours] marks our own choice.
"""

import dataclasses
import types
import typing
from typing import Any

from ml_collections import ConfigDict, FieldReference

from vps_jax import config as keys

VIPSEG_CLASSES = 124
# in published files, but nothing runs them; torch skips parameters without gradient, so they must not decay [spec 6.6]
NEVER_USED = ("never_used", "^heads/(mask_embed_free|proj_vos|proj_background_vos)/", 0.0)

OBJECT_EMBEDS = "^object_encoder/(bg|mask_object|point_object)_embed$"  # of stages with VOS; do not decay [spec 7.1]


def base(*, model: Any = None, infer: Any = None, tasks: dict | None = None) -> ConfigDict:
    """A complete config without data sources, for TarViS on VIPSeg unless told otherwise.

    Args:
      model, infer: dataclasses of vps_jax/config.py; they belong together, see `MODELS` there.
      tasks: name -> dataclass of the task's numbers.
    """
    config = section(
        keys.Experiment(
            name="base",
            model=keys.Tarvis() if model is None else model,
            infer=keys.ClipInference(semantic_group="VIPSEG") if infer is None else infer,
            tasks={"panoptic": keys.Panoptic()} if tasks is None else tasks,
        )
    )
    config.data.batch_size = config.train.get_ref("batch_size")
    config.data.seed = config.train.get_ref("seed")
    return config


def section(settings: Any) -> ConfigDict:
    """A dataclass of vps_jax/config.py as a ConfigDict with all its keys, so that each can be set on the command line.

    A key that may be None, or of several types, takes any literal there; `vps_jax.config` checks it afterwards.
    """
    hints, result = typing.get_type_hints(type(settings)), ConfigDict()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            result[field.name] = section(value)
        elif isinstance(value, dict):
            result[field.name] = ConfigDict({name: section(one) for name, one in value.items()})
        elif typing.get_origin(hints[field.name]) in (typing.Union, types.UnionType):
            result[field.name] = FieldReference(value, field_type=object)
        else:
            result[field.name] = value
    return result


def choose(argument: str, choices) -> str:
    """The argument of an experiment file, if it is one of the choices.

    Raises:
      UserError: it is none.
    """
    if argument not in choices:
        raise keys.UserError(f"argument {argument!r} of the experiment: expected one of {', '.join(choices)}")
    return argument


def source(*, color: dict | None = keys.Color(), **settings) -> ConfigDict:  # noqa: B008
    """A data source with all its keys; `color` may be a dict of the keys of `Color`, or None for no jitter."""
    return section(keys.Source(color=keys.Color(**color) if isinstance(color, dict) else color, **settings))


def tasks(backbone: str, semantic_weight: dict, *, points: int, sharpen: str) -> ConfigDict:
    """Losses of the joint stages [spec 6.6].

    Args:
      backbone: Swin-L has weights of its own.
      semantic_weight: weight of the semantic cross entropy for `swin_large` and for the `other` backbones.
      points: semantic points per frame of panoptic clips.
      sharpen: what Swin-L adds to the semantic loss: `norm`, the regularisation, or `null`, ignored null classes.
    """
    large = backbone == "swin_large"
    shared = {
        "semantic_weight": semantic_weight["swin_large" if large else "other"],
        "regularization": large and sharpen == "norm",
        "ignore_null_classes": large and sharpen == "null",
    }
    return ConfigDict({
        "panoptic": section(keys.Panoptic(semantic_points=points, **shared)),
        # void is background as published, for data sets that label things alone
        "instance": section(keys.Instance(void_is_background=True, **shared)),
        "semantic": section(keys.Semantic(semantic_points=points, **shared)),
        "vos": section(keys.Vos()),
    })  # fmt: skip
