"""The maps of several strides as one row of tokens, level after level, each row-major."""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp

from vps_jax.shapes import Float, Shaped
from vps_jax.types import Array

LEVELS = 3  # maps of strides 32, 16, 8 (finest first in ViT-Adapter), which attention runs over
Shapes = tuple[tuple[int, int], ...]  # (height, width) of each level


def flatten_levels(maps: Sequence[Float[Array, "*lead _ _ c"]]) -> Float[Array, "*lead s c"]:
    """Maps `[..., h, w, c]` to tokens `[..., s, c]`."""
    return jnp.concatenate([m.reshape(*m.shape[:-3], -1, m.shape[-1]) for m in maps], axis=-2)


def split_levels(tokens: Shaped[Array, "*lead s c"], shapes: Shapes) -> list[Shaped[Array, "*lead _ _ c"]]:
    """Undoes `flatten_levels`: tokens `[..., s, c]` to maps `[..., h, w, c]`."""
    ends = list(itertools.accumulate(h * w for h, w in shapes))
    pieces = jnp.split(tokens, ends[:-1], axis=-2)
    return [p.reshape(*p.shape[:-2], *shape, p.shape[-1]) for p, shape in zip(pieces, shapes, strict=True)]


def slice_levels(tokens: Shaped[Array, "*lead s c"], shapes: Shapes) -> list[Shaped[Array, "*lead _ _ c"]]:
    """As `split_levels`, by slices: the gradients of the levels are padded and added instead of concatenated.

    The sums of the layers before then run in the order in which ViT-Adapter's runs were made.
    """
    ends = list(itertools.accumulate(h * w for h, w in shapes))
    starts = [0, *ends[:-1]]
    pieces = [tokens[..., a:b, :] for a, b in zip(starts, ends, strict=True)]
    return [p.reshape(*p.shape[:-2], *shape, p.shape[-1]) for p, shape in zip(pieces, shapes, strict=True)]
