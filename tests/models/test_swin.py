"""Swin: window attention against a token-by-token twin, the scan against its unrolled blocks, published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.models import swin


def random_like(tree, seed=0):
    """Random values for every parameter, so that zeros and ones of the initialisation hide nothing."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape) * 0.3, jnp.float32), tree)


def slow_window_attention(x, params, heads, window, shift):
    """One image `[h, w, c]`, query by query: pad, roll, look at the tokens of one's own window."""
    h, w, c = x.shape
    d = c // heads
    padded = np.zeros((-(-h // window) * window, -(-w // window) * window, c))
    padded[:h, :w] = x
    rolled = np.roll(padded, (-shift, -shift), (0, 1))
    size = rolled.shape[:2]
    kernel, bias = np.asarray(params["qkv"]["kernel"], np.float64), np.asarray(params["qkv_bias"], np.float64)
    q, k, v = np.split(rolled @ kernel + bias, 3, axis=-1)
    table = np.asarray(params["relative_position_bias_table"], np.float64)

    def region(y, length):
        return (y >= length - window) + (y >= length - shift) if shift else 0

    out = np.zeros_like(rolled)
    for y in range(size[0]):
        for x_ in range(size[1]):
            top, left = y // window * window, x_ // window * window
            cells = [(top + i, left + j) for i in range(window) for j in range(window)]
            for m in range(heads):
                part = slice(m * d, (m + 1) * d)
                logits = []
                for i, j in cells:
                    row = (y - i + window - 1) * (2 * window - 1) + (x_ - j + window - 1)
                    same = region(i, size[0]) == region(y, size[0]) and region(j, size[1]) == region(x_, size[1])
                    score = q[y, x_, part] @ k[i, j, part] / np.sqrt(d) + table[row, m]
                    logits.append(score + (0 if same else -100))
                weights = np.exp(np.array(logits) - max(logits))
                weights /= weights.sum()
                out[y, x_, part] = sum(a * v[i, j, part] for a, (i, j) in zip(weights, cells, strict=True))
    back = np.roll(out, (shift, shift), (0, 1))[:h, :w]
    return back @ np.asarray(params["proj"]["kernel"], np.float64) + np.asarray(params["proj"]["bias"], np.float64)


@pytest.mark.parametrize(("size", "shift"), [((6, 6), 0), ((5, 7), 1), ((2, 3), 1)])
def test_window_attention_equals_the_slow_twin(size, shift):
    attention = swin.WindowAttention(num_heads=2, window=3)
    x = np.random.default_rng(1).normal(size=(2, *size, 8)).astype(np.float32)
    params = random_like(jax.eval_shape(attention.init, jax.random.key(0), x, True))
    found = jax.jit(attention.apply)(params, x, shift > 0)
    for image, result in zip(x, found, strict=True):
        np.testing.assert_allclose(result, slow_window_attention(image, params["params"], 2, 3, shift), atol=2e-5)


def test_patch_merging_orders_neighbours_down_the_columns():
    x = jnp.arange(12.0).reshape(1, 3, 4, 1) + 1  # odd height: a row of zeros is added
    merging = swin.PatchMerging()
    params = random_like(jax.eval_shape(merging.init, jax.random.key(0), x))["params"]
    cell = np.array([3.0, 7.0, 4.0, 8.0])  # rows 0 and 1 of column 2, then of column 3
    normal = (cell - cell.mean()) / np.sqrt(cell.var() + 1e-5)
    expected = (normal * params["norm"]["scale"] + params["norm"]["bias"]) @ params["reduction"]["kernel"]
    found = jax.jit(merging.apply)({"params": params}, x)
    assert found.shape == (1, 2, 2, 2)
    np.testing.assert_allclose(found[0, 0, 1], expected, rtol=1e-5)


SIZE = swin.SwinSize(8, (2, 4, 2, 2), (1, 2, 2, 4), 2)


def four_blocks(remat=True):
    return swin.Stage(4, num_heads=2, window=2, remat=remat)


@pytest.mark.parametrize("depth, remat", [(4, True), (2, False)])
def test_scanned_blocks_are_applied_in_order(depth, remat):
    """Every block with its own parameters and factors; the second and the fourth are shifted."""
    stage = swin.Stage(depth, num_heads=2, window=2, remat=remat)
    x = np.random.default_rng(2).normal(size=(1, 3, 4, 16)).astype(np.float32)
    params = random_like(jax.eval_shape(lambda: stage.init(jax.random.key(0), x, None)))
    factors = (np.arange(1.0, 9.0, dtype=np.float32).reshape(4, 2, 1) / 8)[:depth]

    @jax.jit
    def both(params, x):
        scanned = stage.apply(params, x, factors)
        for number in range(depth):
            own = jax.tree.map(lambda a, n=number: a[n], params["params"]["blocks"])
            x, _ = swin.Block(2, 2).apply({"params": own}, x, number in (1, 3), factors[number])
        return scanned, x

    scanned, unrolled = both(params, x)
    assert {a.shape[0] for a in jax.tree.leaves(params)} == {depth}
    np.testing.assert_allclose(scanned, unrolled, atol=1e-5)


@pytest.mark.parametrize("depth, remat, loops", [(2, False, 0), (2, True, 2), (3, False, 2)])
def test_two_blocks_are_written_out_unless_they_are_computed_again(depth, remat, loops):
    """Forward and backward pass have a loop each, or none."""
    stage, x = swin.Stage(depth, num_heads=2, window=2, remat=remat), np.zeros((1, 3, 4, 16), np.float32)
    params = random_like(jax.eval_shape(lambda: stage.init(jax.random.key(0), x, None)))
    program = jax.jit(jax.grad(lambda params: stage.apply(params, x, None).sum())).lower(params).as_text()
    assert program.count("stablehlo.while") == loops


def test_maps_have_four_strides_and_the_stem_reads_patches():
    model = swin.Swin(SIZE)
    images = np.random.default_rng(3).normal(size=(2, 32, 64, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images))[0]
    assert [m.shape for m in shapes] == [(2, 8, 16, 8), (2, 4, 8, 16), (2, 2, 4, 32), (2, 1, 2, 64)]


def test_drop_path_keeps_the_mean_and_draws_for_every_branch_and_sample():
    rates = np.array([0.0, 0.3, 0.9])
    found = np.asarray(swin.drop_path_factors(jax.random.key(0), rates, 4000))
    assert found.shape == (3, 2, 4000)
    for block, rate in zip(found, rates, strict=True):
        np.testing.assert_allclose(np.unique(block), sorted({1 / (1 - rate)} | ({0.0} if rate else set())), rtol=1e-6)
        np.testing.assert_allclose(block.mean(axis=1), 1.0, atol=5 * np.sqrt(rate / (1 - rate) / 4000))
    dropped = found[1:] == 0
    assert np.abs(np.corrcoef(dropped.reshape(4, -1)) - np.eye(4)).max() < 0.1


def test_factors_scale_the_branches_of_their_own_sample():
    x = np.random.default_rng(3).normal(size=(3, 4, 4, 8)).astype(np.float32)
    block = swin.Block(2, 2)
    params = random_like(jax.eval_shape(lambda: block.init(jax.random.key(0), x, False, None)))
    run = jax.jit(lambda params, x, factors: block.apply(params, x, False, factors)[0])
    whole = np.asarray(run(params, x, None))
    np.testing.assert_allclose(run(params, x, jnp.ones((2, 3))), whole, atol=1e-6)
    found = np.asarray(run(params, x, jnp.asarray([[1.0, 0.0, 0.0], [1.0, 0.0, 2.0]])))
    np.testing.assert_allclose(found[0], whole[0], atol=1e-6)
    np.testing.assert_allclose(found[1], x[1], atol=1e-6)
    mlp_only = np.asarray(run(params, x, jnp.asarray([[0.0] * 3, [1.0] * 3])))
    np.testing.assert_allclose(found[2] - x[2], 2 * (mlp_only[2] - x[2]), atol=1e-5)


def test_rates_of_the_blocks_rise_linearly_from_zero(monkeypatch):
    seen = []

    def record(key, rates, count):
        seen.append((rates, count))
        return jnp.ones((len(rates), 2, count))

    monkeypatch.setattr(swin, "drop_path_factors", record)
    model = swin.Swin(SIZE, drop_path_rate=0.9)
    images = jnp.zeros((3, 32, 32, 3))
    rngs = {"params": jax.random.key(0), "drop_path": jax.random.key(1)}
    jax.eval_shape(lambda: model.init(rngs, images, train=True))
    np.testing.assert_allclose(seen[0][0], np.arange(10) * 0.1, atol=1e-6)
    assert seen[0][1] == 3 and len(seen) == 1
    jax.eval_shape(lambda: model.init(rngs["params"], images, train=False))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("name", "count"), [("swin_tiny", 27_520_698), ("swin_large", 195_201_204), ("swin_micro", 1_285_926)]
)
def test_parameter_counts(name, count):
    model = swin.Swin(swin.SIZES[name])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(a.size for a in jax.tree.leaves(shapes)) == count
    assert {a.dtype for a in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


def test_remat_keeps_only_the_input_of_each_block():
    x = jax.ShapeDtypeStruct((1, 16, 16, 16), jnp.float32)
    params = jax.eval_shape(lambda x: four_blocks().init(jax.random.key(0), x, None), x)

    def kept(remat):
        stage = four_blocks(remat)
        saved = jax.eval_shape(lambda p, x: jax.vjp(lambda p, x: stage.apply(p, x, None), p, x)[1], params, x)
        sizes = [a.size for a in jax.tree.leaves(saved)]
        return sum(sizes) - sum(a.size for a in jax.tree.leaves(params))

    pixels = 16 * 16
    assert kept(remat=True) <= 4 * x.size + 8 * pixels  # and the index tables
    assert kept(remat=False) >= 40 * x.size
