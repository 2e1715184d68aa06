"""Sine position encodings, against the formula written out number by number."""

import math

import numpy as np

from vps_jax.ops import position


def number(u: float, k: int, width: int) -> float:
    phase = u / 10000 ** (2 * (k // 2) / width)
    return math.sin(phase) if k % 2 == 0 else math.cos(phase)


def test_encode_number_by_number():
    found = position.encode(np.array([0.5, 3.0]), 6)
    expected = [[number(u, k, 6) for k in range(6)] for u in (0.5, 3.0)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(position.encode(np.float32([0.5, 3.0])[:, None].view(), 6)[:, 0], expected, atol=1e-6)


def test_two_dimensions_put_y_before_x():
    found = np.asarray(position.sine_2d(3, 5, 8))
    assert found.shape == (3, 5, 8) and found.dtype == np.float32
    y, x = 2 * 2 * math.pi / (3 + 1e-6), 4 * 2 * math.pi / (5 + 1e-6)
    expected = [number(y, k, 4) for k in range(4)] + [number(x, k, 4) for k in range(4)]
    np.testing.assert_allclose(found[1, 3], expected, atol=1e-6)


def test_two_dimensions_without_normalisation_count_from_one():
    found = np.asarray(position.sine_2d(3, 5, 8, normalize=False))
    expected = [number(1, k, 4) for k in range(4)] + [number(5, k, 4) for k in range(4)]
    np.testing.assert_allclose(found[0, 4], expected, atol=1e-6)


def test_three_dimensions_add_time_and_normalise_it_by_the_clip():
    found = np.asarray(position.sine_3d(3, 2, 2, 8))
    z = 2 * 2 * math.pi / (3 + 1e-6)
    time = [number(z, k, 8) for k in range(8)]
    np.testing.assert_allclose(found[1], np.asarray(position.sine_2d(2, 2, 8)) + time, atol=1e-6)
    assert not np.allclose(found[0], np.asarray(position.sine_3d(4, 2, 2, 8))[0], atol=1e-2)
