"""The quick generator: reproducible, independent streams, uniform bits."""

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.models.quick_keys import mix, quick_key


def draw(key, n=4096):
    return np.asarray(jax.random.uniform(key, (n,)))


def test_same_seed_same_numbers_and_other_seeds_others():
    key = quick_key(jax.random.key(3))
    np.testing.assert_array_equal(draw(key), draw(quick_key(jax.random.key(3))))
    others = [quick_key(jax.random.key(4)), jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)]
    others += list(jax.random.split(key, 3))
    streams = np.stack([draw(k) for k in [key, *others]])
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / np.sqrt(4096)


def test_numbers_are_uniform_and_uncorrelated_along_the_stream():
    x = draw(quick_key(jax.random.key(0)), 1 << 16)
    counts = np.histogram(x, bins=64, range=(0, 1))[0]
    assert ((counts - 1024.0) ** 2 / 1024).sum() < 120  # chi-squared, 63 degrees of freedom
    for lag in (1, 2, 64):
        assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < 5 / 256
    normal = np.asarray(jax.random.normal(quick_key(jax.random.key(1)), (1 << 16,)))
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02


def test_every_input_bit_changes_about_half_of_the_output_bits():
    x = np.random.default_rng(0).integers(0, 2**32, 512, np.uint32)
    for bit in range(32):
        changed = np.asarray(mix(jnp.asarray(x)) ^ mix(jnp.asarray(x ^ np.uint32(1 << bit))))
        assert abs(np.unpackbits(changed.view(np.uint8)).mean() - 0.5) < 0.03
