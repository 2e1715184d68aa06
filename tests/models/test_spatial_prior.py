import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vps_jax.models.spatial_prior import BatchNorm, ConvNormReLU, SpatialPrior

START = {"params": {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])}}


def test_training_normalises_with_the_biased_variance_and_keeps_the_unbiased_one():
    x = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(2, 2, 1)  # mean 4, variance 5 biased, 20/3 unbiased
    variables = START | {"batch_stats": {"mean": jnp.array([10.0]), "var": jnp.array([2.0])}}
    y, kept = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.ravel(), 1 + 2 * np.array([-3, -1, 1, 3]) / np.sqrt(5 + 1e-5), rtol=1e-6)
    np.testing.assert_allclose(kept["batch_stats"]["mean"], [0.9 * 10 + 0.1 * 4], rtol=1e-6)
    np.testing.assert_allclose(kept["batch_stats"]["var"], [0.9 * 2 + 0.1 * 20 / 3], rtol=1e-6)


def test_evaluation_uses_and_keeps_the_running_statistics():
    variables = START | {"batch_stats": {"mean": jnp.array([10.0]), "var": jnp.array([4.0])}}
    y, kept = BatchNorm().apply(variables, jnp.array([[12.0]]), train=False, mutable=["batch_stats"])
    np.testing.assert_allclose(y, [[1 + 2 * 2 / np.sqrt(4 + 1e-5)]], rtol=1e-6)
    assert kept["batch_stats"] == variables["batch_stats"]


def test_initialisation_keeps_the_statistics_at_their_start():
    variables = BatchNorm().init(jax.random.key(0), jnp.array([[5.0], [9.0]]), train=True)
    assert variables["batch_stats"]["mean"] == 0 and variables["batch_stats"]["var"] == 1


def test_statistics_are_those_of_the_global_batch():
    x = np.random.default_rng(0).normal(size=(8, 3, 1)).astype(np.float32) * np.arange(8)[:, None, None]
    variables = START | {"batch_stats": {"mean": jnp.zeros(1), "var": jnp.ones(1)}}
    run = jax.jit(lambda v, x: BatchNorm().apply(v, x, train=True, mutable=["batch_stats"]))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = run(variables, jax.device_put(x, NamedSharding(mesh, P("data"))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), sharded, run(variables, x))


def test_strided_convolution_pads_both_sides():
    # one centre tap: PyTorch's padding 1 reads pixels 0, 2, 4; SAME would read 1, 3, 5
    x = jnp.arange(36, dtype=jnp.float32).reshape(1, 6, 6, 1)
    module = ConvNormReLU(1, stride=2)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    variables = jax.tree.map(lambda a: np.ones(a.shape, np.float32), variables)
    variables["params"]["conv"]["kernel"] = np.zeros((3, 3, 1, 1), np.float32)
    variables["params"]["conv"]["kernel"][1, 1] = 1.0
    variables["params"]["norm"]["bias"][:] = 0.0
    variables["batch_stats"]["norm"]["mean"][:] = 0.0
    y = module.apply(variables, x, train=False)
    np.testing.assert_allclose(y[0, :, :, 0], np.asarray(x)[0, ::2, ::2, 0], rtol=1e-4)


def test_prior_has_four_strides():
    module = SpatialPrior(width=8, inner=4)
    images = jnp.zeros((2, 64, 96, 3))
    maps = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), images, train=False)[0])
    assert [m.shape for m in maps] == [(2, 64 // s, 96 // s, 8) for s in (4, 8, 16, 32)]
