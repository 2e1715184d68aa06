"""Resizing, against slow per-pixel twins of PyTorch's rules and values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.ops import resize as ops

resize = jax.jit(ops.resize, static_argnames=("size", "method"))


def slow_linear(row: np.ndarray, new: int) -> np.ndarray:
    """One row, pixel by pixel: source position clamped at 0, the right neighbour repeated at the border."""
    out = []
    for i in range(new):
        at = max((i + 0.5) * len(row) / new - 0.5, 0.0)
        low = int(at)
        high = min(low + 1, len(row) - 1)
        out.append(row[low] * (1 - (at - low)) + row[high] * (at - low))
    return np.array(out)


def slow_cubic(row: np.ndarray, new: int) -> np.ndarray:
    def kernel(d):
        d = abs(d)
        if d <= 1:
            return 1.25 * d**3 - 2.25 * d**2 + 1
        return -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3

    out = []
    for i in range(new):
        at = (i + 0.5) * len(row) / new - 0.5
        low = int(np.floor(at))
        taps = range(low - 1, low + 3)
        out.append(sum(kernel(at - k) * row[min(max(k, 0), len(row) - 1)] for k in taps))
    return np.array(out)


def separable(slow, image: np.ndarray, size) -> np.ndarray:
    rows = np.stack([slow(row, size[1]) for row in image])
    return np.stack([slow(column, size[0]) for column in rows.T]).T


@pytest.mark.parametrize("size", [(5, 7), (10, 14), (3, 4), (1, 1), (12, 3), (15, 7)])
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_equals_the_slow_twin(size, method):
    image = np.random.default_rng(0).normal(size=(5, 7))
    slow = {"bilinear": slow_linear, "bicubic": slow_cubic}[method]
    found = resize(jnp.asarray(image, jnp.float32)[None, ..., None], size, method=method)
    assert found.shape == (1, *size, 1)
    np.testing.assert_allclose(found[0, ..., 0], separable(slow, image, size), atol=2e-6)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_exact_shrinking_equals_the_slow_twin(factor):
    image = np.random.default_rng(1).normal(size=(24, 48))
    size = (24 // factor, 48 // factor)
    found = resize(jnp.asarray(image, jnp.float32)[..., None], size)[..., 0]
    np.testing.assert_allclose(found, separable(slow_linear, image, size), atol=1e-6)


def test_by_hand():
    row = jnp.asarray([0.0, 8.0])[None, :, None]
    np.testing.assert_allclose(resize(row, (1, 4))[0, :, 0], [0, 2, 6, 8])
    # centre of a 2 -> 4 cubic: offset 0.25 from the first pixel; taps (-1, 0) read 0, the others 8
    right = (1.25 * 0.75**3 - 2.25 * 0.75**2 + 1) + (-0.75 * 1.75**3 + 3.75 * 1.75**2 - 6 * 1.75 + 3)
    np.testing.assert_allclose(resize(row, (1, 4), method="bicubic")[0, 1, 0], 8 * right, rtol=1e-6)


def test_nearest_reads_the_floor_of_the_scaled_index_and_keeps_integers():
    labels = np.arange(15, dtype=np.uint16).reshape(3, 5, 1)
    found = resize(labels, (4, 3), method="nearest")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[..., 0], labels[[0, 0, 1, 2]][:, [0, 1, 3], 0])


def test_constant_stays_constant_and_gradient_flows():
    image = jnp.full((4, 6, 2), 3.0)
    for method in ("bilinear", "bicubic"):
        np.testing.assert_allclose(resize(image, (7, 5), method=method), 3.0, rtol=1e-6)
    total = jax.jit(jax.grad(lambda x: ops.resize(x, (8, 12)).sum()))(image)
    np.testing.assert_allclose(total.sum(), 8 * 12 * 2, rtol=1e-5)


def test_half_precision_is_interpolated_in_float32():
    image = jnp.asarray([[1.0, 1.0078125]], jnp.bfloat16)[..., None]
    found = resize(image, (1, 4))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(found[0, ::3, 0], np.float32), [1.0, 1.0078125])


def test_refuses_to_interpolate_integers():
    with pytest.raises(TypeError, match="nearest"):
        ops.resize(np.zeros((2, 2, 1), np.int32), (4, 4))
