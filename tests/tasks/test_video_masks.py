"""Targets, matching and losses of queries that are carried through a clip."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax import tasks
from vps_jax.losses import first_appearance
from vps_jax.losses.first_appearance import TAKEN, FrameSets
from vps_jax.losses.mask_losses import Objects
from vps_jax.train.sharding import make_mesh
from vps_jax.types import Clip, FrameQueryOutputs

B, T, H, W, C, Q, K, N, D = 8, 2, 4, 6, 8, 5, 4, 3, 2
POINTS = {"match_points": 32, "mask_points": 32}
WEIGHTS = (2.0, 5.0, 5.0)  # of class, mask and dice


def task_of(**numbers):
    return tasks.make_task("video_masks", {**POINTS, **numbers}, num_classes=K)


def targets_of(clip, **numbers):
    return jax.jit(task_of(**numbers).make_targets)(clip)


def clip_of(ids, classes):
    ids = np.broadcast_to(np.asarray(ids, np.uint16), (B, T, 4 * H, 4 * W))
    return Clip(None, ids, np.broadcast_to(np.asarray(classes, np.int32), (B, N)))


def halves(left, right):
    return np.concatenate([np.full((4 * H, 2 * W), left), np.full((4 * H, 2 * W), right)], axis=1)


def outputs_of(seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return FrameQueryOutputs(normal(D, B, T, H, W, C), normal(D, B, T, Q, C), normal(D, B, T, Q, K + 1), None)


def test_every_segment_is_a_row():
    clip = clip_of(halves(1, 1 + N + 2), [3, -1, -1])  # an instance of class 3 beside stuff of class 2
    targets = targets_of(clip)
    np.testing.assert_array_equal(targets.instance_classes[0], [3, -1, -1] + [-1, -1, 2, -1])
    np.testing.assert_array_equal(np.unique(targets.instance_ids), [1, 1 + N + 2])
    semantic = targets_of(clip, segments="semantic")
    np.testing.assert_array_equal(semantic.instance_classes[0], [-1, -1, 2, 3])
    instance = targets_of(clip, segments="instance")
    np.testing.assert_array_equal(instance.instance_classes[0], [3, -1, -1])
    np.testing.assert_array_equal(np.unique(instance.instance_ids), [0, 1])


def test_void_is_no_segment():
    targets = targets_of(clip_of(halves(0, 1), [1, -1, -1]))
    assert (np.asarray(targets.instance_classes) >= 0).sum() == B
    np.testing.assert_array_equal(targets.instance_ids[0, 0], halves(0, 1))


def logits_as_features(masks):
    """Mask logits `[t, q, h, w]` as features and unit vectors of a single clip."""
    t, q = masks.shape[:2]
    embeds = np.broadcast_to(np.eye(q, dtype=np.float32), (1, t, q, q))
    return jnp.asarray(np.moveaxis(masks, 1, -1)[None], jnp.float32), jnp.asarray(embeds)


def late_object():
    """Two objects of class 0 on the left and right half, the second from frame 1 on; three queries.

    In frame 0 query 0 shows the left half and query 1 nothing; in frame 1 query 0 shows the right half best of all, and
    query 2 nearly as well.
    """
    left, right = halves(8.0, -8.0)[::4, ::4], halves(-8.0, 8.0)[::4, ::4]
    nothing = np.full_like(left, -8.0)
    masks = np.stack([np.stack([left, nothing, 0.1 * left]), np.stack([right, nothing, 0.5 * right])])
    ids = np.stack([halves(1, 0), halves(1, 2)])[None]
    objects = Objects(jnp.asarray(ids), jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool))
    return FrameSets(*logits_as_features(masks), jnp.zeros((1, 2, 3, 2))), objects


def test_a_late_object_takes_a_query_that_is_free_when_it_comes():
    one, objects = late_object()
    points = jnp.asarray(np.random.default_rng(0).random((1, 2, 64, 2)), jnp.float32)
    first = first_appearance.first_frames(objects)
    np.testing.assert_array_equal(first, [[0, 1]])
    match = jax.jit(lambda first, points: first_appearance.match(one, objects, first, points, weights=WEIGHTS))
    np.testing.assert_array_equal(match(first, points), [[0, 2]])
    # as published for VIPSeg: matched in frame 0 by its empty mask
    np.testing.assert_array_equal(match(jnp.zeros_like(first), points[:, :1]), [[0, 1]])


def test_objects_beyond_the_queries_get_none():
    one, objects = late_object()
    few = FrameSets(one.features[..., :1], one.embeds[:, :, :1, :1], one.class_logits[:, :, :1])
    points = jnp.full((1, 2, 4, 2), 0.25)
    match = jax.jit(functools.partial(first_appearance.match, weights=WEIGHTS))
    found = match(few, objects, jnp.asarray([[0, 1]]), points)
    np.testing.assert_array_equal(found, [[0, -1]])
    assert TAKEN < 1e5  # of ops.assignment, which cuts costs there


@pytest.fixture(scope="module")
def program():
    task = task_of()

    def loss(trained, clip, key, mesh=None):
        return task.loss(FrameQueryOutputs(*trained, None), task.make_targets(clip), key, mesh=mesh)

    return jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnames="mesh")


def test_loss_is_finite_where_there_is_nothing_to_learn(program):
    (loss, terms), grads = program(outputs_of()[:3], clip_of(halves(0, 0), [-1] * N), jax.random.key(0))
    assert np.isfinite(loss) and float(terms["mask"]) == float(terms["dice"]) == 0
    assert all(np.all(np.isfinite(g)) for g in grads)


def test_loss_does_not_depend_on_the_devices(program):
    clip = clip_of(np.stack([halves(1, 1 + N + 2), halves(2, 1)]), [3, 1, -1])
    outputs = outputs_of()[:3]
    alone = program(outputs, clip, jax.random.key(0))
    spread = program(outputs, clip, jax.random.key(0), mesh=make_mesh(1))
    np.testing.assert_allclose(spread[0][0], alone[0][0], rtol=1e-5)
    for a, b in zip(spread[1], alone[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
    assert np.abs(alone[1][0]).max() > 0 and np.abs(alone[1][1]).max() > 0


def test_a_perfect_prediction_costs_next_to_nothing():
    """Query 0 shows the instance and query 1 the stuff in all frames; the others say nothing."""
    left, right = halves(30.0, -30.0)[::4, ::4], halves(-30.0, 30.0)[::4, ::4]
    masks = np.broadcast_to(np.stack([left, right, *[np.full_like(left, -30.0)] * 3]), (T, 5, H, W))
    features, embeds = logits_as_features(masks)
    classes = np.full((T, 5, K + 1), -30.0)
    classes[:, 0, 3] = classes[:, 1, 2] = classes[:, 2:, K] = 30.0
    one = (features, embeds, jnp.asarray(classes, jnp.float32)[None])
    outputs = FrameQueryOutputs(*(np.broadcast_to(a, (1, B, *a.shape[1:])) for a in one), None)
    task = task_of()
    targets = targets_of(clip_of(halves(1, 1 + N + 2), [3, -1, -1]))
    points = np.array([[0.1, 0.5], [0.4, 0.2], [0.6, 0.5], [0.9, 0.7]], np.float32)  # none on the edge
    given = {
        "matcher": np.broadcast_to(points, (1, B, T, 4, 2)),
        "instance": np.broadcast_to(points, (1, B, N + K, T, 4, 2)),
    }
    loss, terms = jax.jit(lambda o: task.loss(o, targets, None, points=given))(outputs)
    assert float(loss) < 1e-3 and set(terms) == {"class", "mask", "dice", "matched/objects", "matched/same_query"}
    assert float(terms["matched/objects"]) == 2  # a thing and a class of stuff


def test_decode_gives_masks_classes_and_their_sum():
    outputs = outputs_of()
    found = jax.tree.map(np.asarray, jax.jit(task_of().decode)(outputs))
    assert found.instance_masks.shape == (B, Q, T, H, W) and found.instance_classes.shape == (B, T, Q, K + 1)
    expected = np.asarray(outputs.mask_features[-1, 1, 1, 2, 3]) @ np.asarray(outputs.mask_embeds[-1, 1, 1, 4])
    np.testing.assert_allclose(found.instance_masks[1, 4, 1, 2, 3], expected, rtol=1e-4)
    classes = np.asarray(jax.nn.softmax(outputs.class_logits[-1, 1, 1], axis=-1))[:, 2]
    masks = 1 / (1 + np.exp(-np.asarray(found.instance_masks[1, :, 1, 2, 3])))
    np.testing.assert_allclose(found.semantic[1, 2, 1, 2, 3], classes @ masks, rtol=1e-4)
