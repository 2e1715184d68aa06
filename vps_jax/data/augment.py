"""Augmentations: tuples of small frozen operations, by the name of a recipe or row by row in the config.

An operation is a frozen dataclass with two methods:

* `apply(sample, rng) -> Sample`: the same random numbers for all frames of a clip, unless it says otherwise;
* `output_size(size) -> size`: (height, width) of what `apply` returns for frames of `size`. Sizes never depend on
  pixels: the padded shape of a batch is known before anything is decoded.

A field that a row leaves out and that the source has (`short_side`, `max_side`, `crop`, `flip`, `color`, ...) takes the
source's value; `short_side` is one of the source's, `short_sides` all of them. Operations from outside of the package
are named `module:Class`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vps_jax.config import Source
from vps_jax.data import affine, photometric, transforms
from vps_jax.data.sample import Sample, Size, instances_shown, with_combinations
from vps_jax.parsing import parse, resolve
from vps_jax.types import UserError


class Operation(Protocol):
    """One step of an augmentation."""

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample after the step."""

    def output_size(self, size: Size) -> Size:
        """(height, width) after the step."""


@dataclasses.dataclass(frozen=True)
class ChooseObjects:
    """Let `objects` random instances of the reference frame (all, if they are fewer) be the objects of a VOS clip.

    The reference is the first frame, or with `any_frame` a random one of those that show enough (spec: tarvis 7.8).
    """

    objects: int = 0  # 0: the clip has no given objects
    any_frame: bool = False

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if not self.objects:
            return sample
        shown = [instances_shown(frame, sample) for frame in sample.labels[: None if self.any_frame else 1]]
        enough = min(self.objects, max(map(len, shown)))
        reference = int(rng.choice([t for t, instances in enumerate(shown) if len(instances) >= enough]))
        wanted = np.zeros(len(sample.wanted), bool)
        wanted[rng.permutation(shown[reference])[: self.objects]] = True
        return sample._replace(wanted=with_combinations(wanted, sample.combinations), reference=reference)

    def output_size(self, size: Size) -> Size:
        return size


OPERATIONS: dict[str, type] = {
    "choose_objects": ChooseObjects,
    "flip": transforms.Flip,
    "crop": transforms.Crop,
    "jitter_color": transforms.JitterColor,
    "resize": transforms.Resize,
    "affine_views": affine.AffineViews,
    "random_scale": photometric.RandomScale,
    "mixed_crop": photometric.MixedCrop,
    "distort": photometric.Distort,
    "pad_color": transforms.PadColor,
}
Rows = Sequence[tuple[str, Mapping[str, Any]]]
RECIPES: dict[str, Rows] = {
    # frames of a video; colour acts on single pixels, so it comes after the crop, on fewer of them
    "clip": (("choose_objects", {}), ("flip", {}), ("crop", {}), ("jitter_color", {}), ("resize", {})),
    # the same in the order of VOS; the crop looks at the first frame alone, the reference
    "vos": (
        ("choose_objects", {}), ("jitter_color", {}), ("resize", {}), ("flip", {}), ("crop", {"reference_only": True}),
    ),
    # views of one image; the crop is blind, so objects are chosen among those that it left
    "affine": (("jitter_color", {}), ("flip", {}), ("affine_views", {}), ("choose_objects", {"any_frame": True})),
    # single frames of the ViT-Adapter
    "photometric": (
        ("choose_objects", {}), ("random_scale", {}), ("mixed_crop", {}), ("flip", {}), ("distort", {}),
        ("pad_color", {"color": photometric.PAD_COLOR}),
    ),
}  # fmt: skip


def operations(source: Source, short_side: int, objects: int, where: str) -> tuple[Operation, ...]:
    """The augmentation of a source, for one short side and one number of objects.

    Args:
      source: see `config.Source`; `augment` rows stand in place of the recipe's.
      short_side: pixels, one of the source's.
      objects: number of objects of a VOS clip, else 0.
      where: of the source in the config, for messages.

    Raises:
      UserError: no such recipe or operation, or numbers that it cannot use.
    """
    recipe = source.recipe or ("vos" if source.task == "vos" else "clip")
    if recipe not in RECIPES:
        raise UserError(f"{where}.recipe is {recipe!r}; expected one of {', '.join(RECIPES)}")
    rows = RECIPES[recipe] if source.augment is None else source.augment
    sides = (source.short_side,) if isinstance(source.short_side, int) else source.short_side
    given = {**vars(source), "short_side": short_side, "short_sides": sides, "objects": objects}
    return tuple(operation(name, numbers or {}, given, where) for name, numbers in rows)


def operation(name: str, numbers: Mapping[str, Any], given: Mapping[str, Any], where: str) -> Operation:
    """One operation: its own numbers, then those of the source, then its defaults."""
    if name not in OPERATIONS and ":" not in name:
        raise UserError(
            f"{where}.augment: {name!r} is no operation; expected one of {', '.join(OPERATIONS)} or module:Class"
        )
    cls = OPERATIONS.get(name) or resolve(name)
    if not dataclasses.is_dataclass(cls) or not all(hasattr(cls, method) for method in ("apply", "output_size")):
        raise UserError(
            f"{where}.augment: {name} is no operation; expected a frozen dataclass with apply and output_size"
        )
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values = {key: given[key] for key in fields if key in given} | dict(numbers)
    for key, value in values.items():
        if value is None and key in fields and fields[key].default is dataclasses.MISSING:
            raise UserError(f"{where}.{key} is missing; {name} needs it: set it in the config")
    return parse(cls, values, f"{where}.augment.{name}")


def apply(steps: Sequence[Operation], sample: Sample, rng: np.random.Generator) -> Sample:
    """The sample after all operations in turn."""
    for step in steps:
        sample = step.apply(sample, rng)
    return sample


def output_size(steps: Sequence[Operation], size: Size) -> Size:
    """(height, width) after all operations, before padding."""
    for step in steps:
        size = step.output_size(size)
    return size
