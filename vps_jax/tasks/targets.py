"""Padded targets from the id map of a clip, on the device."""

import jax.numpy as jnp

from vps_jax.ops.masks import ids_present, look_up
from vps_jax.types import IGNORE, Clip, Targets


def task_classes(classes, class_map):
    """Class of the data set -> class of the task, -1 where the task does not have it; a map of None changes nothing."""
    classes = jnp.asarray(classes, jnp.int32)
    if class_map is None:
        return classes
    table = jnp.asarray(class_map, jnp.int32)
    known = (classes >= 0) & (classes < table.size)
    return jnp.where(known, table[jnp.clip(classes, 0, table.size - 1)], -1)


def id_map_targets(
    clip: Clip, num_classes: int, class_map=None, *, outside: int = IGNORE, void: int = IGNORE
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
    kept = jnp.pad(jnp.where(of_rows < 0, 0, jnp.arange(1, rows + 1)), ((0, 0), (1, 0)))
    instance_ids = look_up(clip.ids, kept, 0)
    present = ids_present(instance_ids, rows)
    return Targets(instance_ids, jnp.where(present, of_rows, -1), look_up(clip.ids, table, void))
