"""Deformable attention: value by value, against plain autodiff and finite differences, and the bytes it keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.ops import deformable_attention as ops

SHAPES = ((2, 3), (4, 5))


def inputs(seed=0, batch=2, queries=7, heads=4, points=3, channels=4, shapes=SHAPES):
    """Samples inside, on the border and outside; none within 1e-3 px of a kink of the location gradient."""
    rng = np.random.default_rng(seed)
    tokens = sum(h * w for h, w in shapes)
    value = rng.normal(size=(batch, tokens, heads, channels))
    size = np.array(shapes)[:, None, ::-1]
    pixels = rng.uniform(-2, size + 1, size=(batch, queries, heads, len(shapes), points, 2))
    near = np.abs(pixels - np.round(pixels)) < 1e-3
    locations = (pixels + 0.01 * near + 0.5) / size
    weights = rng.normal(size=(batch, queries, heads, len(shapes), points))
    return tuple(jnp.asarray(a, jnp.float32) for a in (value, locations, weights))


def plain(value, locations, weights, shapes=SHAPES):
    """The same sum with ordinary gathers, differentiated by jax itself."""
    batch, heads = value.shape[0], value.shape[2]
    rows, columns = np.arange(batch)[:, None, None, None], np.arange(heads)[:, None]
    out, start = 0.0, 0
    for level, (h, w) in enumerate(shapes):
        image = value[:, start : start + h * w].reshape(batch, h, w, heads, -1)
        start += h * w
        x, y = locations[:, :, :, level, :, 0] * w - 0.5, locations[:, :, :, level, :, 1] * h - 0.5
        for j in (jnp.floor(y), jnp.floor(y) + 1):
            for i in (jnp.floor(x), jnp.floor(x) + 1):
                weight = (1 - abs(x - i)) * (1 - abs(y - j)) * weights[:, :, :, level]
                weight *= (i >= 0) & (i < w) & (j >= 0) & (j < h)
                at = (jnp.clip(j, 0, h - 1).astype(int), jnp.clip(i, 0, w - 1).astype(int))
                out += jnp.sum(image[rows, at[0], at[1], columns] * weight[..., None], axis=3)
    return out


def test_by_hand():
    value = jnp.arange(6.0).reshape(1, 6, 1, 1)  # a 2 x 3 map: 0 1 2 / 3 4 5
    place = jnp.asarray([[0.5, 0.5], [1 / 6, 0.25], [0.0, 0.0], [-0.2, 0.5], [0.5, 1.0]]).reshape(1, 5, 1, 1, 1, 2)
    sample = jax.jit(functools.partial(ops.deformable_attention, shapes=((2, 3),)))
    found = sample(value, place, jnp.ones((1, 5, 1, 1, 1)))
    # centre of the map; first pixel; corner of the map: a quarter of the first pixel; outside; half of the bottom pixel
    np.testing.assert_allclose(found.ravel(), [2.5, 0.0, 0.0, 0.0, 2.0], atol=1e-6)
    moved = sample(value + 1, place, jnp.full((1, 5, 1, 1, 1), 2.0))
    np.testing.assert_allclose(moved.ravel(), [7.0, 2.0, 0.5, 0.0, 5.0], atol=1e-6)


def test_cell_centres():
    np.testing.assert_allclose(ops.cell_centres(((1, 2), (2, 1))), [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]])


def value_and_gradients(function, args):
    gradient = np.random.default_rng(9).normal(size=(2, 7, 4, 4)).astype(np.float32)

    @jax.jit
    def run(*args):
        value, pull = jax.vjp(function, *args)
        return value, *pull(gradient)

    return run(*args)


@functools.cache
def expected_value_and_gradients():
    return value_and_gradients(plain, inputs())


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_value_and_gradients_equal_plain_autodiff(chunk):
    ours = functools.partial(ops.deformable_attention, shapes=SHAPES, chunk=chunk)
    names = ("value", "d_value", "d_locations", "d_weights")
    pairs = zip(value_and_gradients(ours, inputs()), expected_value_and_gradients(), strict=True)
    for name, (found, expected) in zip(names, pairs, strict=True):
        gap = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert gap <= 1e-6, (name, gap)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradients_equal_finite_differences(which):
    args = inputs(seed=1, batch=1, queries=2, heads=1, points=2, channels=2)
    target = np.random.default_rng(3).normal(size=(1, 2, 1, 2))

    def total(array):
        moved = (*args[:which], array, *args[which + 1 :])
        return jnp.sum(ops.deformable_attention(*moved, shapes=SHAPES) * target)

    step = 5e-4
    size = args[which].size
    steps = step * np.eye(size, dtype=np.float32).reshape(size, *args[which].shape)
    ends = jax.jit(jax.vmap(total))(jnp.concatenate([args[which] + steps, args[which] - steps]))
    slopes = (ends[:size] - ends[size:]) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(args[which]).ravel(), slopes, atol=1e-2)


def test_half_precision_values_are_summed_in_float32():
    value, locations, weights = inputs(seed=2)
    half = value.astype(jnp.bfloat16)

    @jax.jit
    def run(value):
        function = functools.partial(ops.deformable_attention, shapes=SHAPES)
        found, pull = jax.vjp(lambda v: function(v, locations, weights), value)
        return found, pull(found)[0], function(value.astype(jnp.float32), locations, weights)

    found, gradient, exact = run(half)
    assert found.dtype == gradient.dtype == jnp.bfloat16 and exact.dtype == jnp.float32
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


def test_shapes_that_do_not_fit_are_refused():
    args = inputs()
    with pytest.raises(ValueError, match="26 tokens"):
        ops.deformable_attention(*args, shapes=((2, 3),))
    with pytest.raises(ValueError, match="chunk 3"):
        ops.deformable_attention(*args, shapes=SHAPES, chunk=3)


def bytes_of(tree) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))


def layer_at_full_size():
    """Shapes of the neck's layer on three frames of 512 x 960."""
    shapes = ((16, 30), (32, 60), (64, 120))
    struct = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    table = (3, 10080, 8, 3, 4)
    return shapes, (struct((3, 10080, 8, 32)), struct((*table, 2)), struct(table))


def test_only_the_inputs_are_kept_for_the_backward_pass():
    shapes, args = layer_at_full_size()
    function = functools.partial(ops.deformable_attention, shapes=shapes)
    kept = jax.eval_shape(lambda *a: jax.vjp(function, *a)[1], *args)
    assert bytes_of(kept) <= 1.1 * bytes_of(args)


def test_working_memory_at_full_size():
    shapes, args = layer_at_full_size()
    total = lambda *a: jnp.sum(ops.deformable_attention(*a, shapes=shapes))  # noqa: E731
    compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(*args).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 400 * 2**20
