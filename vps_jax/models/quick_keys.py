"""A random generator for initialisation and stochastic depth that compiles quickly.

Jax's own generator becomes a loop of its own for every shape that is drawn: compiling those loops takes four times as
long as everything else in an initialisation. Initial values and dropped branches need independence, not cryptography:
here a bit is an integer hash (two rounds of a 32-bit mixer with low bias) of the key and its position. Equal on every
backend.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random

GOLDEN = np.uint32(0x9E3779B9)


def quick_key(key: jax.Array) -> jax.Array:
    """A key of this generator from a key of any other; give it to `flax` in its place."""
    words = jax.random.bits(key, (1,), jnp.uint32)
    return jax.random.wrap_key_data(words, impl=GENERATOR)


def mix(x):
    """A permutation of the 32-bit numbers in which every input bit changes every output bit about half the time."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _seed(seed):
    return mix(seed.astype(jnp.uint32) + GOLDEN)[None]


def _fold_in(key, data):
    return mix(mix(key + GOLDEN) ^ data.astype(jnp.uint32))


def _stream(key, count: int):
    return mix(mix(key + jnp.arange(1, count + 1, dtype=jnp.uint32) * GOLDEN) ^ key)


def _split(key, shape):
    return _stream(mix(key), math.prod(shape)).reshape(*shape, 1)


def _bits(key, bit_width: int, shape):
    if bit_width != 32:
        raise NotImplementedError(f"{bit_width}-bit draws; initial values are drawn as 32 bits")
    return _stream(key, math.prod(shape)).reshape(shape)


GENERATOR = random.define_prng_impl(
    key_shape=(1,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name="quick_hash", tag="qh"
)
