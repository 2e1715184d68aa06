"""Exemplars and object logits of video object segmentation."""

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.tasks import make_task, vos
from vps_jax.types import Clip

exemplars = jax.jit(make_task("vos").exemplars, static_argnames="point_objects")


def test_exemplars_are_the_objects_of_the_first_frame():
    ids = np.zeros((1, 2, 8, 8), np.uint16)
    ids[0, 0, :2, :2], ids[0, 1, 4:, 4:] = 1, 1  # the second frame shows another part
    ids[0, 0, 3:6, 2:7] = 2
    clip = Clip(None, jnp.asarray(ids), jnp.array([[5, 7, -1]]))
    shown = exemplars(clip, point_objects=0)
    assert shown["frames"].tolist() == [[0]] and shown["masks"].shape == (1, 3, 1, 8, 8)
    masks = np.asarray(shown["masks"])
    np.testing.assert_array_equal(masks[0, 0, 0], ids[0, 0] == 1)
    assert "points" not in shown and not masks[0, 2].any()
    shown = exemplars(clip, point_objects=2)
    assert shown["masks"].shape == (1, 1, 1, 8, 8) and shown["point_frames"].tolist() == [[0, 0]]
    # the middle of the rectangle, and nothing for the empty row
    np.testing.assert_allclose(np.asarray(shown["points"])[0], [[4.5 / 8, 4.5 / 8], [0, 0]])


def test_exemplars_are_of_each_clips_reference_frame():
    ids = np.zeros((2, 3, 8, 8), np.uint16)
    ids[0, 2, :2, 1:4], ids[0, 2, 3:6, 4:7] = 1, 2
    ids[1, 0, :2, :2], ids[1, 1] = 1, 2
    classes = jnp.zeros((2, 2), jnp.int32)
    clip = Clip(None, jnp.asarray(ids), classes, reference=jnp.array([2, 0], jnp.int32))
    shown = exemplars(clip, point_objects=1)
    assert shown["frames"].tolist() == shown["point_frames"].tolist() == [[2], [0]]
    np.testing.assert_array_equal(np.asarray(shown["masks"])[:, 0, 0], [ids[0, 2] == 1, ids[1, 0] == 1])
    np.testing.assert_allclose(shown["points"], [[[4.5 / 8, 5.5 / 8]], [[0, 0]]])


def test_object_logits_of_masks_and_points():
    features = jnp.array([[[[[1.0]]]]])
    objects = jnp.arange(9.0).reshape(1, 9, 1)  # two objects of four queries, one of one
    logits = vos.object_logits(features, jnp.array([[[-3.0], [-2.0]]]), objects, 3, 4)
    assert logits[0, :, 0, 0, 0].tolist() == [-2, 3, 7, 8]
