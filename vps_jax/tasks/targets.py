"""Padded targets from the id map of a clip, on the device."""

from collections.abc import Sequence

import jax.numpy as jnp

from vps_jax.ops.masks import ids_present, look_up
from vps_jax.shapes import Bool, Int32, Integer
from vps_jax.types import IGNORE, LAST_ID, Array, Clip, Targets


def task_classes(classes: Integer[Array, "*at"], class_map: Sequence[int] | None) -> Int32[Array, "*at"]:
    """Class of the data set -> class of the task, -1 where the task does not have it; a map of None changes nothing."""
    classes = jnp.asarray(classes, jnp.int32)
    if class_map is None:
        return classes
    table = jnp.asarray(class_map, jnp.int32)
    known = (classes >= 0) & (classes < table.size)
    return jnp.where(known, table[jnp.clip(classes, 0, table.size - 1)], -1)


def id_map_targets(
    clip: Clip, num_classes: int, class_map: Sequence[int] | None = None, *, outside: int = IGNORE, void: int = IGNORE
) -> Targets:
    """Targets of a batch of clips.

    Args:
      clip: with leading `b`, see `types.Clip`.
      num_classes: classes of the task.
      class_map: class of the task for every class of the data set, -1 for none; None when the lists are the same.
      outside: semantic label of a pixel whose class the task does not have.
      void: semantic label of a pixel without a class.

    Returns:
      `types.Targets`; a row without pixels, or whose class the task does not have, is empty.
    """
    batch, rows = clip.instance_classes.shape
    of_rows = task_classes(clip.instance_classes, class_map)
    of_classes = task_classes(jnp.arange(num_classes if class_map is None else len(class_map)), class_map)
    classes = jnp.concatenate([of_rows, jnp.broadcast_to(of_classes, (batch, of_classes.size))], axis=1)
    table = jnp.where(classes < 0, outside, classes)
    # an empty row says nothing of its pixels
    empty = jnp.pad(clip.instance_classes < 0, ((0, 0), (0, of_classes.size)))
    table = jnp.pad(jnp.where(empty, void, table), ((0, 0), (1, 0)), constant_values=void)
    instance_ids, present, overlaps = instances_of(clip, of_rows >= 0)
    semantic = look_up(clip.ids, table, void)
    if overlaps is not None:
        # a pixel of several instances has the class of the smallest: rows are sorted by area
        last = jnp.max(jnp.where(clip.overlaps, jnp.arange(rows), -1), axis=-1)  # [b, m]
        of_combinations = jnp.take_along_axis(table[:, 1 : rows + 1], jnp.maximum(last, 0), axis=1)
        number = combination_numbers(clip)
        own = look_up(number, of_combinations, void)
        semantic = jnp.where(number < clip.overlaps.shape[1], own, semantic)
    return Targets(instance_ids, jnp.where(present, of_rows, -1), semantic, overlaps)


def instances_of(
    clip: Clip, in_task: Bool[Array, "b n"]
) -> tuple[Int32[Array, "b t h w"], Bool[Array, "b n"], Bool[Array, "b v i"] | None]:
    """Instances of a batch of clips.

    Args:
      clip: with leading `b`.
      in_task: bool `[b, n]`, rows that the task has; pixels of others belong to no instance.

    Returns:
      instance ids int32 `[b, t, h, w]`; bool `[b, n]`, rows that have a pixel; and `overlaps` of `types.Targets`.
    """
    rows = in_task.shape[1]
    table = jnp.pad(jnp.where(in_task, jnp.arange(1, rows + 1), 0), ((0, 0), (1, 0)))
    ids = look_up(clip.ids, table, 0)
    if clip.overlaps is None:
        return ids, ids_present(ids, rows), None
    overlaps = clip.overlaps & in_task[:, None]  # [b, m, n]
    number, count = combination_numbers(clip), overlaps.shape[1]
    ids = jnp.where(number < count, 1 + rows + number, ids)
    alone = jnp.broadcast_to(jnp.eye(rows, dtype=bool), (len(in_task), rows, rows))
    belongs = jnp.concatenate([jnp.zeros_like(alone[:, :1]), alone, overlaps], axis=1)  # [b, 1 + n + m, n]
    present = jnp.any(belongs[:, 1:] & ids_present(ids, rows + count)[..., None], axis=1)
    background = ~jnp.any(belongs, axis=2, keepdims=True)
    return ids, present, jnp.concatenate([belongs, background], axis=2)


def combination_numbers(clip: Clip) -> Int32[Array, "b t h w"]:
    """Combination that every pixel names, int32 `[b, t, h, w]`; beyond the table for pixels that name none."""
    return LAST_ID - clip.ids.astype(jnp.int32)
