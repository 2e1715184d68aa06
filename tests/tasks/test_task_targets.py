"""Targets of every task from one id map, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax import tasks
from vps_jax.losses.mask_losses import Objects
from vps_jax.tasks import targets as making
from vps_jax.types import IGNORE, Clip, UserError

# two rows of pixels; table of 3 rows, 5 classes: 1..3 instances, 4.. classes without instance
IDS = np.array([[[[0, 1, 2, 3], [4, 6, 8, 1]]]], np.uint16)  # [b, t, h, w]
CLASSES = np.array([[3, 0, -1]], np.int32)  # the third row is empty, though a pixel has its id
CLIP = Clip(None, jnp.asarray(IDS), jnp.asarray(CLASSES))


id_map_targets = jax.jit(making.id_map_targets, static_argnums=(1, 2))
covers = jax.jit(Objects.covers)


def make_targets(task, clip):
    return jax.jit(task.make_targets)(clip)


def check(targets, instance_ids, instance_classes, semantic):
    assert targets.instance_ids.tolist() == [[instance_ids]]
    assert targets.instance_classes.tolist() == [instance_classes]
    assert targets.semantic.tolist() == [[semantic]]
    assert targets.overlaps is None and all(a.dtype == jnp.int32 for a in targets[:3])


def test_panoptic():
    targets = make_targets(tasks.make_task("panoptic", num_classes=5), CLIP)
    check(targets, [[0, 1, 2, 0], [0, 0, 0, 1]], [3, 0, -1], [[IGNORE, 3, 0, IGNORE], [0, 2, 4, 3]])


def test_semantic_folds_things_into_classes():
    targets = make_targets(tasks.make_task("semantic", num_classes=5), CLIP)
    check(targets, [[0] * 4] * 2, [-1] * 3, [[IGNORE, 3, 0, IGNORE], [0, 2, 4, 3]])


def test_instance_keeps_its_things():
    # things are the classes 3 and 4; the rest is background
    classes = {"num_classes": 2, "class_map": (-1, -1, -1, 0, 1)}
    targets = make_targets(tasks.make_task("instance", **classes), CLIP)
    check(targets, [[0, 1, 0, 0], [0, 0, 0, 1]], [0, -1, -1], [[IGNORE, 1, 0, IGNORE], [0, 0, 2, 1]])
    targets = make_targets(tasks.make_task("instance", {"void_is_background": True}, **classes), CLIP)
    assert targets.semantic.tolist() == [[[[0, 1, 0, 0], [0, 0, 2, 1]]]]


def test_vos_needs_no_class():
    targets = make_targets(tasks.make_task("vos"), CLIP)
    check(targets, [[0, 1, 2, 0], [0, 0, 0, 1]], [0, 0, -1], [[IGNORE] * 4] * 2)


def test_mask_classification_has_a_row_per_class():
    targets = make_targets(tasks.make_task("mask_classification", num_classes=5), CLIP)
    check(targets, [[0, 4, 1, 0], [1, 3, 5, 4]], [0, -1, 2, 3, 4], [[IGNORE, 3, 0, IGNORE], [0, 2, 4, 3]])


def test_a_row_without_pixels_is_empty_and_an_id_beyond_the_table_is_void():
    ids = jnp.array([[[[2, 2], [9, 60000]]]], jnp.uint16)
    targets = make_targets(tasks.make_task("panoptic", num_classes=5), Clip(None, ids, jnp.array([[3, 0]])))
    check(targets, [[2, 2], [0, 0]], [-1, 0], [[0, 0], [IGNORE, IGNORE]])


@pytest.mark.parametrize(
    ("name", "numbers", "classes", "message"),
    [
        ("panoptic", {"mask_pionts": 3}, 5, "tasks.panoptic.mask_pionts: no such key"),
        ("semantic", {}, None, "tasks.semantic: num_classes=None"),
        ("semantic", {"regularization": True, "ignore_null_classes": True}, 5, "tasks.semantic.regularization and ign"),
        ("vss", {}, 5, "tasks.vss: no such task"),
    ],
)
def test_wrong_settings_are_named(name, numbers, classes, message):
    with pytest.raises(UserError, match=message):
        tasks.make_task(name, numbers, num_classes=classes)


def test_tasks_can_be_compared_and_kept_as_keys():
    first, again = (tasks.make_task("instance", {}, num_classes=2, class_map=[0, 1, -1]) for _ in range(2))
    assert first == again and len({first, again}) == 1
    assert first != tasks.make_task("instance", {"mask_points": 3}, num_classes=2, class_map=[0, 1, -1])


def overlapping_clip():
    """Rows of class 3, 1 and 0, the last never alone; pixels of 65535 are of rows 0 and 1, of 65534 of all three."""
    overlaps = np.zeros((1, 4, 4), bool)
    overlaps[0, 0, [0, 1]] = True
    overlaps[0, 1, [0, 1, 2]] = True
    ids = np.array([[[[1, 65535, 2], [0, 65534, 5 + 2]]]], np.uint16)
    return Clip(np.zeros((1, 1, 2, 3, 3), np.uint8), ids, np.array([[3, 1, 0, -1]], np.int32), overlaps)


def test_overlapping_instances():
    targets = id_map_targets(overlapping_clip(), 5)
    objects = Objects.of_targets(targets)
    ids = targets.instance_ids
    for row, expected in enumerate(([1, 1, 0, 0, 1, 0], [0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 1, 0], [0] * 6)):
        covered = covers(objects, ids, np.full(ids.shape, row))
        assert np.ravel(covered).astype(int).tolist() == expected
    background = covers(objects, ids, np.full(ids.shape, -1))
    assert np.ravel(background).tolist() == [False, False, False, True, False, True]
    assert targets.instance_classes.tolist() == [[3, 1, 0, -1]]
    # a shared pixel has the class of the smallest instance
    assert np.ravel(targets.semantic).tolist() == [3, 1, 1, -1, 0, 2]


def test_overlapping_instances_of_a_class_that_the_task_lacks():
    targets = id_map_targets(overlapping_clip(), 2, (0, -1, -1, 1, -1))
    objects = Objects.of_targets(targets)
    ids = targets.instance_ids
    assert targets.instance_classes.tolist() == [[1, -1, 0, -1]]
    covered = [np.ravel(covers(objects, ids, np.full(ids.shape, row))).astype(int).tolist() for row in range(3)]
    assert covered == [[1, 1, 0, 0, 1, 0], [0] * 6, [0, 0, 0, 0, 1, 0]]


def test_exemplars_are_whole_masks():
    task = tasks.make_task("vos")
    clip = overlapping_clip()
    shown = jax.jit(task.exemplars, static_argnames="point_objects")(clip, point_objects=1)
    masks = np.asarray(shown["masks"]).astype(int).reshape(3, -1).tolist()
    assert masks == [[1, 1, 0, 0, 1, 0], [0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 1, 0]]
    assert shown["points"].shape == (1, 1, 2)


def test_a_table_without_overlaps_changes_no_target():
    clip = overlapping_clip()
    plain = clip._replace(ids=np.where(clip.ids > 60000, 0, clip.ids).astype(np.uint16), overlaps=None)
    beside = plain._replace(overlaps=np.zeros((1, 4, 4), bool))
    first, second = (id_map_targets(c, 5) for c in (plain, beside))
    for a, b in zip(first[:3], second[:3], strict=True):
        assert a.tolist() == b.tolist()
