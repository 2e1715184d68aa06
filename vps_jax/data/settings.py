"""The keys of `config.data`, their defaults and checks.

Keys of `config.data` (any mapping; defaults in brackets):

* `batch_size`: clips per step over all hosts.
* `clip_frames`: frames per clip, T.
* `max_instances` [64]: rows of the instance table, n.
* `pad_multiple` [64]: both sides of every clip are padded to it.
* `chunk_steps` [8]: consecutive steps of one source and shape.
* `seed` [0]: another seed is another stream.
* `num_workers` [0]: processes that make batches; 0 uses threads of this process.
* `num_threads` [2], `prefetch` [4]: threads per process and batches they make ahead.
* `sources`: name -> mapping of
  `path` prepared folder; `split` ['train'];
  `task` ['panoptic'], `group` [source name]: task and semantic query group of the model;
  `weight` [1.0]: share of the chunks; 0 leaves the source out;
  `recipe` ['clip' or, for task vos, 'vos']: augmentation, see below;
  `short_side`: pixels after the resize, or a tuple to choose from; `max_side` [1333]: bound of the long side;
  `crop` [None]: `(height, width)` factors; `crop_rule` ['containing'] or 'preserving';
  `flip` [0.5]: probability of a mirror image;
  `color` [{}]: numbers of `transforms.Color`, or None for no jitter;
  `frame_window` [5.0]: half width, in clip lengths, of the neighbourhood the frames come from;
  `needs_instances` [False for semantic, mask_classification and video_masks]: leave out videos without instances;
  `objects` [(1, 2, 3, 4)]: numbers of objects in the clips of task vos, in equal parts;
  `shapes` [None]: padded `(height, width)` pairs to use instead of the nearest multiples; a clip takes the smallest
  that holds it.

Recipes: `clip` flips, crops, colours and resizes frames of a video (transforms.py); `vos` does it in VOS order;
`affine` makes T views of one image (affine.py) and needs `crop_px`, with `crop_together` [False]; `photometric` is for
single frames of the ViT-Adapter (photometric.py) and needs `crop_px`, with `ratio` [(0.5, 2.0)].

In a VOS batch every clip has the same number k of objects, all seen in its first frame, and the table has k rows.

A recipe for two cores (frames of 108x192 and 120x160; both aspects crop and resize into one 128x128 program, a third
less pixels than 128x192; predict with a short side of 128, where things have the same size in pixels):

    data = dict(batch_size=8, clip_frames=2, max_instances=8, chunk_steps=1, sources=dict(vipseg=dict(
        path='.../vipseg', short_side=108, max_side=128, crop=(0.75, 0.5), frame_window=2.0)))

Without crop: `short_side=96, max_side=192, crop=None` gives 128x192 and 128x128.
"""

from collections.abc import Mapping
from typing import Any

from vps_jax.types import UserError

DEFAULTS = {
    "max_instances": 64,
    "pad_multiple": 64,
    "chunk_steps": 8,
    "seed": 0,
    "num_workers": 0,
    "num_threads": 2,
    "prefetch": 4,
}
SOURCE_DEFAULTS = {
    "split": "train",
    "task": "panoptic",
    "group": None,
    "weight": 1.0,
    "max_side": 1333,
    "crop": None,
    "crop_rule": "containing",
    "flip": 0.5,
    "color": {},
    "frame_window": 5.0,
    "needs_instances": None,
    "objects": (1, 2, 3, 4),
    "shapes": None,
    "recipe": None,
    "crop_px": None,
    "crop_together": False,
    "ratio": (0.5, 2.0),
}
REQUIRED = ("batch_size", "clip_frames", "sources")
SOURCE_REQUIRED = ("path", "short_side")
TASKS = ("panoptic", "instance", "semantic", "vos", "mask_classification", "video_masks")
RECIPES = ("clip", "vos", "affine", "photometric")


def settings(config: Mapping) -> dict[str, Any]:
    """`config.data` as plain dicts with the defaults filled in.

    Raises:
      UserError: a key is missing, unknown or has an impossible value.
    """
    data = filled(config["data"], DEFAULTS, REQUIRED, "data")
    data["sources"] = {
        name: filled(source, SOURCE_DEFAULTS, SOURCE_REQUIRED, f"data.sources.{name}")
        for name, source in data["sources"].items()
    }
    if not any(source["weight"] > 0 for source in data["sources"].values()):
        raise UserError("data.sources has no source with a weight above 0; expected one or more: set a weight")
    for name, source in data["sources"].items():
        if source["task"] not in TASKS:
            raise UserError(f"data.sources.{name}.task is {source['task']!r}; expected one of {', '.join(TASKS)}")
        if isinstance(source["short_side"], int):
            source["short_side"] = (source["short_side"],)
        source["group"] = source["group"] or name
        if source["needs_instances"] is None:
            source["needs_instances"] = source["task"] not in ("semantic", "mask_classification", "video_masks")
        check_recipe(name, source)
    return data


def check_recipe(name: str, source: dict) -> None:
    """Fill in the recipe of a source and check what it needs."""
    where = f"data.sources.{name}"
    source["recipe"] = source["recipe"] or ("vos" if source["task"] == "vos" else "clip")
    if source["recipe"] not in RECIPES:
        raise UserError(f"{where}.recipe is {source['recipe']!r}; expected one of {', '.join(RECIPES)}")
    if source["recipe"] in ("affine", "photometric"):
        if not source["crop_px"]:
            raise UserError(f"{where}.crop_px is missing; recipe {source['recipe']} needs (height, width) in pixels")
        if isinstance(source["crop_px"], int):
            source["crop_px"] = (source["crop_px"], source["crop_px"])


def filled(given: Mapping, defaults: Mapping, required: tuple[str, ...], where: str) -> dict[str, Any]:
    """A plain copy of a mapping with defaults, complaining about missing and unknown keys."""
    given = {key: plain(given[key]) for key in given}
    for key in required:
        if given.get(key) is None:
            raise UserError(f"{where}.{key} is missing; expected a value: set it in the config")
    unknown = sorted(set(given) - set(defaults) - set(required))
    if unknown:
        known = ", ".join(sorted({*defaults, *required}))
        raise UserError(f"{where}.{unknown[0]} is unknown; expected one of {known}")
    return {**defaults, **given}


def plain(value: Any) -> Any:
    """Config containers as dict and tuple, so that they pickle and hash the same whatever library made them."""
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {k: plain(v) for k, v in value.items()}
    return tuple(plain(v) for v in value) if isinstance(value, (list, tuple)) else value
