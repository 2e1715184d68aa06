"""One look at `config.data` before anything is opened.

A recipe for two cores (frames of 108x192 and 120x160; both aspects crop and resize into one 128x128 program, a third
less pixels than 128x192; predict with a short side of 128, where things have the same size in pixels):

    data = dict(batch_size=8, clip_frames=2, max_instances=8, chunk_steps=1, sources=dict(vipseg=dict(
        path='.../vipseg', short_side=108, max_side=128, crop=(0.75, 0.5), frame_window=2.0)))

Without crop: `short_side=96, max_side=192, crop=None` gives 128x192 and 128x128.

In a VOS batch every clip has the same number k of objects, all seen in its first frame, and the table has k rows.
"""

import dataclasses
from collections.abc import Mapping

from vps_jax.config import TASKS, Data, Source
from vps_jax.data import augment
from vps_jax.parsing import parse
from vps_jax.types import UserError


def validated(given: Data | Mapping) -> Data:
    """`config.data` with everything said that a source leaves to its name or its task.

    Raises:
      UserError: a key is missing, unknown or has an impossible value, or no source has a weight.
    """
    data = parse(Data, given, "data")
    if not data.used:
        raise UserError("data.sources has no source with a weight above 0; expected one or more: set a weight")
    sources = {name: validated_source(name, source) for name, source in data.sources.items()}
    return dataclasses.replace(data, sources=sources)


def validated_source(name: str, source: Source) -> Source:
    """One source, its augmentation tried."""
    where = f"data.sources.{name}"
    if source.task not in TASKS:
        raise UserError(f"{where}.task is {source.task!r}; expected one of {', '.join(TASKS)}")
    needs = TASKS[source.task].needs_instances if source.needs_instances is None else source.needs_instances
    source = dataclasses.replace(
        source,
        group=source.group or name,
        short_side=(source.short_side,) if isinstance(source.short_side, int) else source.short_side,
        crop_px=(source.crop_px,) * 2 if isinstance(source.crop_px, int) else source.crop_px,
        recipe=source.recipe or ("vos" if source.task == "vos" else "clip"),
        needs_instances=needs,
    )
    augment.operations(source, source.short_side[0], 0, where)
    return source
