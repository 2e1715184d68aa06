"""ResNet-50: frozen norms, padding and strides as in PyTorch, published sizes."""

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.models import resnet


def random_like(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(np.abs(rng.normal(size=a.shape)) + 0.1, jnp.float32), tree)


def slow_conv(x, kernel, stride, pad):
    """One image `[h, w, c]`, output pixel by output pixel, zeros around."""
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    size = [(n - kernel.shape[0]) // stride + 1 for n in padded.shape[:2]]
    out = np.zeros((*size, kernel.shape[-1]))
    for y in range(size[0]):
        for i in range(size[1]):
            patch = padded[y * stride : y * stride + kernel.shape[0], i * stride : i * stride + kernel.shape[1]]
            out[y, i] = np.einsum("abi,abio->o", patch, kernel)
    return out


def slow_norm(x, p):
    return (x - p["mean"]) / np.sqrt(np.asarray(p["var"], np.float64) + 1e-5) * p["scale"] + p["bias"]


def test_bottleneck_puts_the_stride_in_its_3x3_convolution():
    block = resnet.Bottleneck(features=8, stride=2, project=True)
    x = np.random.default_rng(1).normal(size=(1, 6, 8, 3)).astype(np.float32)
    variables = random_like(jax.eval_shape(block.init, jax.random.key(0), x))
    p, f = variables["params"], variables["frozen"]

    def conv_norm(y, name, stride, pad):
        return slow_norm(slow_conv(y, np.asarray(p[name]["conv"]["kernel"]), stride, pad), f[name]["norm"])

    y = np.maximum(conv_norm(x[0], "conv1", 1, 0), 0)
    y = np.maximum(conv_norm(y, "conv2", 2, 1), 0)
    expected = np.maximum(conv_norm(y, "conv3", 1, 0) + conv_norm(x[0], "shortcut", 2, 0), 0)
    found = jax.jit(block.apply)(variables, x)
    assert found.shape == (1, 3, 4, 8)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


def test_sizes_and_what_is_trained():
    model = resnet.ResNet(resnet.SIZES["resnet50"])
    images = jax.ShapeDtypeStruct((2, 64, 128, 3), jnp.float32)
    maps, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), images)
    assert [m.shape for m in maps] == [(2, 64 >> i, 128 >> i, 64 << i) for i in range(2, 6)]
    count = {name: sum(a.size for a in jax.tree.leaves(tree)) for name, tree in variables.items()}
    assert count == {"params": 23_454_912, "frozen": 4 * 26_560}


def test_stem_pads_symmetrically_before_the_maximum():
    model = resnet.ResNet(resnet.ResNetSize((1, 0, 0, 0), 8))
    x = np.random.default_rng(2).normal(size=(1, 12, 12, 3)).astype(np.float32)
    variables = random_like(jax.eval_shape(model.init, jax.random.key(0), x))
    p, f = variables["params"]["stem"], variables["frozen"]["stem"]
    y = np.maximum(slow_norm(slow_conv(x[0], np.asarray(p["conv"]["kernel"]), 2, 3), f["norm"]), 0)
    padded = np.pad(y, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    pooled = np.stack([[padded[i : i + 3, j : j + 3].max((0, 1)) for j in (0, 2, 4)] for i in (0, 2, 4)])
    block = {name: tree["res2_0"] for name, tree in variables.items()}
    expected = jax.jit(resnet.Bottleneck(8, 1, True).apply)(block, pooled[None].astype(np.float32))
    np.testing.assert_allclose(jax.jit(model.apply)(variables, x)[0], expected, rtol=1e-4)
