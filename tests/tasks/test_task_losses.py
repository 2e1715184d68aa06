"""Losses of whole tasks: finite where there is nothing to learn, means over clips, no callback, equal on any device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import equations

from vps_jax import config, parsing, tasks
from vps_jax.losses.matcher import STATISTICS
from vps_jax.types import Clip, QueryOutputs

B, T, H, W, C, Q, K, N, D = 4, 1, 4, 8, 8, 3, 5, 6, 2  # six rows for three queries
POINTS = {"match_points": 16, "mask_points": 16, "semantic_points": 16}


def task_of(name: str):
    """A task with few points."""
    known = parsing.field_names(config.TASKS[name].numbers)
    return tasks.make_task(name, {key: n for key, n in POINTS.items() if key in known}, num_classes=K)


panoptic = task_of("panoptic")


def outputs_of(seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    embeds = {"instance": normal(D, B, Q, C), "background": normal(D, B, 1, C), "semantic": normal(D, B, K, C)}
    return QueryOutputs(normal(B, T, H, W, C), embeds, normal(D, B, Q, 1 + K), None)


def clip_of(ids, classes):
    ids = np.broadcast_to(ids, (B, T, 4 * H, 4 * W)).astype(np.uint16)
    return Clip(None, jnp.asarray(ids), jnp.broadcast_to(jnp.asarray(classes, jnp.int32), (B, N)))


def stripes(values):
    return np.resize(np.repeat(values, 3), 4 * W)


@functools.cache
def program(mesh=None):
    def loss(trained, clip, key):
        outputs = QueryOutputs(*trained, None)
        return panoptic.loss(outputs, panoptic.make_targets(clip), key, mesh=mesh)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.fixture(scope="module")
def step():
    outputs = outputs_of()
    return lambda clip, key=0: program()(outputs[:3], clip, jax.random.key(key))


CASES = {
    "objects with an empty row between": ([0, 1, 3, 8], [1, -1, 4, -1, -1, -1]),
    "no instances": ([0, 7, 9, 11], [-1] * N),
    "all ignored": ([0], [-1] * N),
    "more objects than queries": ([1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 0]),
}


@pytest.mark.parametrize("name", CASES)
def test_defined_and_finite(step, name):
    ids, classes = CASES[name]
    (loss, terms), grads = step(clip_of(stripes(ids), classes))
    assert jnp.isfinite(loss) and loss > 0
    weighted = [term for name, term in terms.items() if not name.startswith(STATISTICS)]
    np.testing.assert_allclose(sum(weighted), loss, rtol=1e-5)
    assert terms["matched/objects"] == min(sum(c >= 0 for c in classes), Q)
    assert 0 <= terms["matched/same_query"] <= 1
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
    has_objects, has_labels = max(classes) >= 0, ids != [0]
    assert (terms["mask"] > 0) == (terms["dice"] > 0) == has_objects
    assert (terms["semantic"] > 0) == has_labels
    assert terms["class"] > 0 and terms["regularization"] > 0
    assert bool(jnp.any(grads[1]["instance"])) == has_objects and not jnp.any(grads[1]["background"])


NOTHING = {"no instances": ([0, 7, 9, 11], [-1] * N), "all ignored": ([0], [-1] * N)}


@pytest.mark.parametrize("name", ["instance", "semantic", "vos"])
def test_the_other_tasks_are_finite_where_there_is_nothing_to_learn(name):
    task, outputs = task_of(name), outputs_of()
    embeds = outputs.mask_embeds
    if name == "vos":
        embeds = {"background_vos": embeds["background"], "vos": jnp.tile(embeds["instance"], (1, 1, 4 * N // Q, 1))}

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def step(trained, clip):
        outputs = QueryOutputs(*trained, None)
        return task.loss(outputs, task.make_targets(clip), jax.random.key(0))

    for case, (ids, classes) in NOTHING.items():
        trained = outputs.mask_features, embeds, outputs.class_logits
        (loss, terms), grads = step(trained, clip_of(stripes(ids), classes))
        assert jnp.isfinite(loss), case
        assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads)), case
        assert (terms.get("semantic", 0) > 0) == (name != "vos" and ids != [0]), case
        # without an object VOS still learns that all is background
        assert (terms.get("mask", 0) > 0) == (name == "vos"), case


def test_key_draws_the_points(step):
    clip = clip_of(stripes([1, 8, 3]), [1, -1, 4, -1, -1, -1])
    first, again, other = (float(step(clip, key)[0][0]) for key in (1, 1, 2))
    assert first == again != other


def test_full_size_holds_no_callback_and_never_all_mask_logits():
    """Swin-L's training clip: 3 frames of 512x640, 253 queries, ten sets, published numbers of points."""
    d, t, h, w, c, q, k, n = 10, 3, 128, 160, 256, 128, 124, 64
    shape = jax.ShapeDtypeStruct
    embeds = {"instance": shape((d, 1, q, c), jnp.float32), "semantic": shape((d, 1, k, c), jnp.float32)}
    trained = shape((1, t, h, w, c), jnp.bfloat16), embeds, shape((d, 1, q, 1 + k), jnp.float32)
    clip = Clip(None, shape((1, t, 4 * h, 4 * w), jnp.uint16), shape((1, n), jnp.int32))

    task = tasks.make_task("panoptic", num_classes=k)

    def loss(trained, clip, key):
        return task.loss(QueryOutputs(*trained, None), task.make_targets(clip), key)[0]

    traced = jax.make_jaxpr(jax.grad(loss))(trained, clip, jax.random.key(0))
    found = list(equations(traced.jaxpr))
    names = {equation.primitive.name for equation in found}
    assert {"while", "scan", "cumsum", "dot_general"} <= names
    assert not any("callback" in name for name in names)
    largest = max(v.aval.size for equation in found for v in equation.outvars if hasattr(v.aval, "size"))
    assert largest == t * h * w * c  # the features; all mask logits would be ten times as much
    assert 5 * largest < d * (q + 1 + k) * t * h * w


def test_batch_is_the_mean_of_its_clips():
    """Every clip has its own means (spec: tarvis 7.3); with equal numbers of objects the batch is their average."""
    outputs, rng = outputs_of(), np.random.default_rng(5)
    ids = np.stack(
        [np.broadcast_to(stripes(row), (T, 4 * H, 4 * W)) for row in ([1, 2, 9], [2, 1, 0], [0, 1, 2], [2, 1])]
    )
    clip = Clip(None, jnp.asarray(ids.astype(np.uint16)), jnp.broadcast_to(jnp.array([1, 4] + [-1] * 4), (B, N)))
    points = {
        "matcher": jnp.asarray(rng.random((D, B, 16, 2)), jnp.float32),
        "instance": jnp.asarray(rng.random((D, B, N, T, 16, 2)), jnp.float32),
        "semantic": jnp.asarray(rng.random((D, B, T, 16, 2)), jnp.float32),
    }

    @jax.jit
    def loss(features, embeds, class_logits, clip, points):
        outputs = QueryOutputs(features, embeds, class_logits, None)
        return panoptic.loss(outputs, panoptic.make_targets(clip), None, points=points)[0]

    together = loss(*outputs[:3], clip, points)
    alone = []
    for b in range(B):
        # four copies of one clip: the same program, and its mean is that clip
        def copy(a, axis, b=b):
            return jnp.repeat(jnp.take(a, jnp.array([b]), axis=axis), B, axis=axis)

        second = functools.partial(copy, axis=1)
        trained = (
            copy(outputs.mask_features, 0),
            jax.tree.map(second, outputs.mask_embeds),
            second(outputs.class_logits),
        )
        clips = Clip(None, copy(clip.ids, 0), copy(clip.instance_classes, 0))
        alone.append(loss(*trained, clips, jax.tree.map(second, points)))
    assert np.ptp(alone) > 0.1
    np.testing.assert_allclose(together, np.mean(alone), rtol=1e-5)


def test_devices_do_not_matter():
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    clip = clip_of(stripes([1, 8, 3]), [1, -1, 4, -1, -1, -1])

    def put(axis):
        spec = jax.sharding.PartitionSpec(*[None] * axis, ("data", "fsdp"))
        return functools.partial(jax.device_put, device=jax.sharding.NamedSharding(mesh, spec))

    outputs = outputs_of()
    sharded = put(0)(outputs.mask_features), jax.tree.map(put(1), outputs.mask_embeds), put(1)(outputs.class_logits)
    one = program()(outputs[:3], clip, jax.random.key(0))
    args = sharded, jax.tree.map(put(0), clip), jax.random.key(0)
    on_four = program(mesh).lower(*args).compile()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, on_four(*args))
    assert "all-gather" not in on_four.as_text()  # no device looks at another's clips


def test_rare_classes_weigh_more():
    """Class 3 has a quarter of the pixels, class 1 the rest; by hand at the centres of 16 cells."""
    outputs, rng = outputs_of(), np.random.default_rng(6)
    cells = np.stack([rng.integers(0, side, (D, B, T, 16)) for side in (W, H)], axis=-1)
    points = {"semantic": jnp.asarray((cells + 0.5) / (W, H), jnp.float32)}
    clip = clip_of(np.repeat([1 + N + 3, *[1 + N + 1] * 3], W), [-1] * N)
    numbers = {"semantic_points": 16, "regularization": False, "class_balance": 0.5}
    task = tasks.make_task("semantic", numbers, num_classes=K)
    loss, _ = jax.jit(lambda o, c: task.loss(o, task.make_targets(c), None, points=points))(outputs, clip)
    expected = 0.0
    for d, b in np.ndindex(D, B):
        x, y = cells[d, b, 0].T
        logits = np.asarray(outputs.mask_features[b, 0])[y, x] @ np.asarray(outputs.mask_embeds["semantic"][d, b]).T
        rare = x < W / 4
        ce = np.log(np.exp(logits).sum(-1)) - np.where(rare, logits[:, 3], logits[:, 1])
        expected += np.average(ce, weights=np.where(rare, 3**0.5, 1)) / B
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_other_tasks_take_the_groups_they_have():
    clip = clip_of(stripes([1, 8, 3]), [1, -1, 4, -1, -1, -1])
    outputs = outputs_of()
    matched = {"matched/objects", "matched/same_query"}
    expected = {
        "instance": {"class", "mask", "dice", "semantic", "regularization", *matched},
        "semantic": {"semantic", "regularization"},
        "vos": {"mask", "dice"},
        "mask_classification": {"class", "mask", "dice", *matched},
    }
    embeds = outputs.mask_embeds | {"background_vos": outputs.mask_embeds["background"]}
    embeds |= {"vos": jnp.ones((D, B, 4 * N, C)), "object": embeds["instance"]}
    for name, terms in expected.items():
        task = task_of(name)
        targets = jax.eval_shape(task.make_targets, clip)
        found = jax.eval_shape(
            lambda f, e, c, t, k, task=task: task.loss(QueryOutputs(f, e, c, None), t, k),
            *(outputs.mask_features, embeds, outputs.class_logits, targets, jax.random.key(0)),
        )
        assert found[0].shape == () and set(found[1]) == terms and all(t.shape == () for t in found[1].values())
