"""Targets of every task from one id map, worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax import tasks
from vps_jax.types import IGNORE, Clip, UserError

# two rows of pixels; table of 3 rows, 5 classes: 1..3 instances, 4.. classes without instance
IDS = np.array([[[[0, 1, 2, 3], [4, 6, 8, 1]]]], np.uint16)  # [b, t, h, w]
CLASSES = np.array([[3, 0, -1]], np.int32)  # the third row is empty, though a pixel has its id
CLIP = Clip(None, jnp.asarray(IDS), jnp.asarray(CLASSES))


def check(targets, instance_ids, instance_classes, semantic):
    assert targets.instance_ids.tolist() == [[instance_ids]]
    assert targets.instance_classes.tolist() == [instance_classes]
    assert targets.semantic.tolist() == [[semantic]]
    assert all(a.dtype == jnp.int32 for a in targets)


def test_panoptic():
    targets = tasks.make_task("panoptic", num_classes=5).make_targets(CLIP)
    check(targets, [[0, 1, 2, 0], [0, 0, 0, 1]], [3, 0, -1], [[IGNORE, 3, 0, IGNORE], [0, 2, 4, 3]])


def test_semantic_folds_things_into_classes():
    targets = tasks.make_task("semantic", num_classes=5).make_targets(CLIP)
    check(targets, [[0] * 4] * 2, [-1] * 3, [[IGNORE, 3, 0, IGNORE], [0, 2, 4, 3]])


def test_instance_keeps_its_things():
    # things are the classes 3 and 4; the rest is background
    classes = {"num_classes": 2, "class_map": (-1, -1, -1, 0, 1)}
    targets = tasks.make_task("instance", **classes).make_targets(CLIP)
    check(targets, [[0, 1, 0, 0], [0, 0, 0, 1]], [0, -1, -1], [[IGNORE, 1, 0, IGNORE], [0, 0, 2, 1]])
    targets = tasks.make_task("instance", {"void_is_background": True}, **classes).make_targets(CLIP)
    assert targets.semantic.tolist() == [[[[0, 1, 0, 0], [0, 0, 2, 1]]]]


def test_vos_needs_no_class():
    targets = tasks.make_task("vos").make_targets(CLIP)
    check(targets, [[0, 1, 2, 0], [0, 0, 0, 1]], [0, 0, -1], [[IGNORE] * 4] * 2)


def test_mask_classification_has_a_row_per_class():
    targets = tasks.make_task("mask_classification", num_classes=5).make_targets(CLIP)
    check(targets, [[0, 4, 1, 0], [1, 3, 5, 4]], [0, -1, 2, 3, 4], [[IGNORE, 3, 0, IGNORE], [0, 2, 4, 3]])


def test_a_row_without_pixels_is_empty_and_an_id_beyond_the_table_is_void():
    ids = jnp.array([[[[2, 2], [9, 60000]]]], jnp.uint16)
    targets = tasks.make_task("panoptic", num_classes=5).make_targets(Clip(None, ids, jnp.array([[3, 0]])))
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
