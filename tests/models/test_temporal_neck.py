"""Temporal neck: what attends to what, chunking, refusals and published sizes. Values are compared in tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.models import temporal_neck as neck
from vps_jax.ops.levels import flatten_levels

SHAPES = ((2, 4), (4, 8), (8, 16))


def random_like(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape) * 0.2, jnp.float32), tree)


def maps(channels=(8, 16, 32, 64), frames=2, size=(2, 4), seed=1):
    rng = np.random.default_rng(seed)
    sides = [(size[0] << i, size[1] << i) for i in (3, 2, 1, 0)]
    return [rng.normal(size=(1, frames, *s, c)).astype(np.float32) for s, c in zip(sides, channels, strict=True)]


def test_a_window_holds_the_same_64_pixels_of_every_level_and_frame():
    labels = [np.indices((3, h, w)).astype(np.float32) for h, w in SHAPES]  # (frame, y, x) of every token
    marked = [np.stack([*m, np.full_like(m[0], i)], axis=-1) for i, m in enumerate(labels)]
    tokens = flatten_levels([jnp.asarray(m)[None] for m in marked])  # [1, 3, s, 4]
    found, back = jax.jit(lambda x: (w := neck._to_windows(x, SHAPES), neck._from_windows(w, SHAPES, 3)))(tokens)
    assert found.shape == (1, 2, 3 * 84, 4)
    for window in range(2):
        frame, y, x, level = np.asarray(found[0, window]).T
        cell = np.array([2, 4, 8])[level.astype(int)]
        assert (y // cell == 0).all() and (x // cell == window).all()
        assert len(set(zip(frame, y, x, level, strict=True))) == 3 * 84
    np.testing.assert_array_equal(back, tokens)


def test_temporal_layers_do_not_cross_windows_but_cross_frames():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1, 3, 168, 16)).astype(np.float32)
    codes = rng.normal(size=(168, 16)).astype(np.float32), rng.normal(size=(2, 252, 16)).astype(np.float32)
    layer = neck.TemporalLayer(2, 16)
    windows = neck._to_windows(jnp.asarray(x), SHAPES)
    params = random_like(jax.eval_shape(layer.init, jax.random.key(0), windows, codes[1]))

    @jax.jit
    def change(moved):
        return neck._from_windows(layer.apply(params, neck._to_windows(moved, SHAPES), codes[1]), SHAPES, 3)

    moved = x.copy()
    moved[0, 0, 0] += 1  # frame 0, stride 32, upper left
    gap = np.abs(np.asarray(change(moved) - change(x))).max(axis=-1)[0]  # [t, s]
    coarse = gap[:, :8].reshape(3, 2, 4)
    assert (coarse[:, :, :2] > 1e-6).all() and (coarse[:, :, 2:] == 0).all()


def test_chunks_of_windows_change_nothing():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 3, 168, 16)).astype(np.float32)
    codes = rng.normal(size=(168, 16)).astype(np.float32), rng.normal(size=(2, 252, 16)).astype(np.float32)
    whole, chunked = (neck.LayerPair(2, 16, SHAPES, chunk) for chunk in (2, 1))
    params = random_like(jax.eval_shape(lambda: whole.init(jax.random.key(0), x, codes)))
    one, two = jax.jit(lambda p: (whole.apply(p, x, codes)[0], chunked.apply(p, x, codes)[0]))(params)
    np.testing.assert_allclose(one, two, atol=1e-5)
    assert np.abs(one - x).max() > 0.1


@pytest.mark.parametrize(("count", "limit", "expected"), [(12, 100, 12), (12, 5, 4), (7, 6, 1), (9, 0, 1)])
def test_chunk_is_a_divisor(count, limit, expected):
    assert neck._chunk(count, limit) == expected


def test_shapes_dtypes_and_a_width_that_32_groups_do_not_divide():
    inputs = maps(size=(2, 2))
    model = neck.TemporalNeck(hidden_dim=48, num_heads=2, num_layers=2, ffn_dim=8, dtype=jnp.bfloat16)
    (levels, finest), params = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), inputs))
    assert [m.shape for m in levels] == [(1, 2, n, n, 48) for n in (2, 4, 8)]
    assert finest.shape == (1, 2, 16, 16, 48)
    assert {m.dtype for m in levels} == {jnp.dtype("float32")} and finest.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_odd_sides_are_refused():
    with pytest.raises(ValueError, match="multiples of 64"):
        jax.eval_shape(neck.TemporalNeck(hidden_dim=32).init, jax.random.key(0), maps(size=(3, 4)))


@pytest.mark.parametrize(("embed", "count"), [(96, 10_160_832), (192, 10_529_472)])
def test_parameter_counts(embed, count):
    channels = [embed << i for i in range(4)]
    shapes = jax.eval_shape(neck.TemporalNeck().init, jax.random.key(0), maps(channels, 1, (2, 2)))
    assert sum(a.size for a in jax.tree.leaves(shapes)) == count
