"""The narrow ResNet: its blocks, its maps, and that frames do not see each other."""

import jax
import numpy as np

from vps_jax.models import basic_resnet, resnet

IMAGES = np.random.default_rng(0).normal(size=(2, 64, 128, 3)).astype(np.float32)


def changed(variables):
    """The variables with every group norm at work: the branches of a fresh net are zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: rng.normal(0.3, 0.3, a.shape).astype(np.float32), variables)


def group_norm(x, p):
    """`[h, w, c]`, eight groups, in float64."""
    grouped = np.float64(x).reshape(-1, 8, x.shape[-1] // 8)
    mean, variance = (f(grouped, axis=(0, 2), keepdims=True) for f in (np.mean, np.var))
    return ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * p["scale"] + p["bias"]


def test_a_fresh_block_is_its_shortcut_and_a_trained_one_adds_the_branch():
    block = basic_resnet.BasicBlock(16)
    x = np.random.default_rng(2).normal(size=(1, 5, 6, 16)).astype(np.float32)
    fresh = block.init(jax.random.key(0), x)
    np.testing.assert_allclose(block.apply(fresh, x), np.maximum(x, 0))
    p = changed(fresh)["params"]

    def conv(y, kernel):
        padded = np.pad(np.float64(y), ((1, 1), (1, 1), (0, 0)))
        return sum(padded[i : i + 5, j : j + 6] @ kernel[i, j] for i in range(3) for j in range(3))

    y = np.maximum(group_norm(conv(x[0], p["conv1"]["conv"]["kernel"]), p["conv1"]["norm"]), 0)
    y = group_norm(conv(y, p["conv2"]["conv"]["kernel"]), p["conv2"]["norm"])
    np.testing.assert_allclose(block.apply({"params": p}, x)[0], np.maximum(x[0] + y, 0), rtol=1e-4, atol=1e-4)


def test_frames_do_not_see_each_other_and_the_shortcut_is_projected():
    model = basic_resnet.BasicResNet(resnet.ResNetSize((1, 1, 0, 0), 16))
    variables = jax.jit(model.init)(jax.random.key(0), IMAGES)
    assert set(variables) == {"params"}  # no statistics
    params = variables["params"]
    assert "shortcut" in params["res3_0"] and "shortcut" not in params["res2_0"]
    apply = jax.jit(model.apply)
    both, alone = apply(changed(variables), IMAGES), apply(changed(variables), IMAGES[1:])
    for a, b in zip(both, alone, strict=True):
        np.testing.assert_allclose(a[1:], b, rtol=1e-5, atol=1e-5)


def test_size():
    model = basic_resnet.BasicResNet(basic_resnet.SIZES["resnet_micro"])
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert sum(a.size for a in jax.tree.leaves(variables)) == parameters((2, 2, 2, 2), 32)


def parameters(blocks, width):
    """By hand: the stem's two convolutions, then per block two, and a projection where a stage begins narrower."""

    def conv(kernel, before, after):
        return kernel**2 * before * after + 2 * after

    count, before = conv(3, 3, width // 2) + conv(3, width // 2, width), width
    for i, number in enumerate(blocks):
        for _ in range(number):
            after = width * 2**i
            count += conv(3, before, after) + conv(3, after, after) + (conv(1, before, after) if before != after else 0)
            before = after
    return count
