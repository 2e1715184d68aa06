import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.models import mask2former
from vps_jax.models.adapter_layers import ConvFFN, Upsample2x
from vps_jax.models.layers import gelu
from vps_jax.models.vit_adapter import Tokens, ViTAdapter, over_interactions
from vps_jax.types import UserError

RNG = np.random.default_rng(0)
SMALL = dict(image_size=(64, 64), width=16, num_heads=2, deform_heads=2, prior_width=4, mlp_ratio=2.0)


def random_like(tree):
    """Values of a network that has learned something: offsets, relative tables and scales are not at their start."""
    return jax.tree.map(lambda a: 0.2 * RNG.normal(size=a.shape).astype(np.float32), tree)


def variables_of(model, images):
    variables = random_like(jax.eval_shape(lambda: model.init(jax.random.key(0), images)))
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    return variables


def test_upsampling_gives_every_pixel_its_own_block():
    x = jnp.array([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # [1, 2, 1, c = 2]
    kernel = np.arange(8.0, dtype=np.float32).reshape(2, 2, 2, 1)
    variables = {"params": {"kernel": kernel, "bias": np.array([100.0], np.float32)}}
    y = Upsample2x(1).apply(variables, x)
    # out[2 i + a, 2 j + b] = x[i, j, 0] * k[0, a, b] + x[i, j, 1] * k[1, a, b]
    np.testing.assert_array_equal(y[0, :, :, 0], [[108, 111], [114, 117], [116, 123], [130, 137]])
    np.testing.assert_array_equal(Upsample2x(1, activation=jnp.negative).apply(variables, x), -y)


def test_levels_of_the_feed_forward_layer_share_one_depthwise_convolution():
    shapes = ((2, 2), (1, 1))
    x = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]).reshape(1, 5, 1)
    one = np.ones((1, 1), np.float32)
    dense = {"kernel": one, "bias": np.zeros(1, np.float32)}
    taps = np.arange(9.0, dtype=np.float32).reshape(3, 3, 1, 1)  # centre 4, right 5, below 7, right below 8
    params = {"fc1": dense, "fc2": dense, "dwconv": {"kernel": taps, "bias": np.zeros(1, np.float32)}}
    y = ConvFFN(1, shapes).apply({"params": params}, x)
    pixels = [
        4 * 1 + 5 * 2 + 7 * 3 + 8 * 4,
        3 * 1 + 4 * 2 + 6 * 3 + 7 * 4,
        1 * 1 + 2 * 2 + 4 * 3 + 5 * 4,
        0 * 1 + 1 * 2 + 3 * 3 + 4 * 4,
        4 * 5,  # the other level sees nothing of the first
    ]
    np.testing.assert_allclose(y.ravel(), gelu(jnp.array(pixels, jnp.float32)), rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "shape", "count"),
    [("beit_large_640", (640, 640), 568_178_237), ("beit_large_896", (896, 896), 570_717_757)],
)
def test_published_sizes(size, shape, count):
    model = mask2former.from_config({"name": "mask2former", "size": size})
    images = jnp.zeros((1, 1, *shape, 3), jnp.uint8)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])) == count


def test_plain_vit_large_takes_any_multiple_of_32():
    model = mask2former.from_config({"name": "mask2former", "size": "vit_large_384"})
    images = jnp.zeros((1, 1, 64, 96, 3), jnp.uint8)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    outputs = jax.eval_shape(model.apply, variables, images)
    backbone = variables["params"]["backbone"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(backbone)) == 326_973_632
    assert outputs.mask_features.shape == (1, 1, 16, 24, 1024)


def test_beit_refuses_another_size_before_anything_compiles():
    model = ViTAdapter(beit=True, groups=(1, 1, 1, 1), **SMALL)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    with pytest.raises(UserError, match=r"image of 64x96: .* 64x64 alone; crop to 64x64 or slide"):
        jax.eval_shape(model.apply, variables, jnp.zeros((1, 64, 96, 3)))


def test_vit_refuses_sides_that_are_no_multiples_of_32():
    model = ViTAdapter(beit=False, groups=(1, 1, 1, 1), **SMALL)
    with pytest.raises(UserError, match="image of 64x72: .* multiples of 32"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 72, 3))))


class Recorder(NamedTuple):
    """Stands for an interaction: writes down which rows of the parameters it was given."""

    blocks: tuple
    tag: int = 0

    def __call__(self, tokens, params, rates, key):
        assert key is None
        digits = jnp.concatenate([params["injector"][None], params["blocks"] + rates, params["extractor"][None]])
        patches = tokens.patches
        for digit in digits:
            patches = patches * 10 + digit
        return tokens._replace(patches=patches), tokens.patches


def test_scanned_interactions_are_those_run_one_by_one():
    params = {"injector": jnp.array([1, 2]), "extractor": jnp.array([3, 4]), "blocks": jnp.array([5, 6, 7, 8])}
    tokens = Tokens(jnp.array(0), jnp.array(0), None)
    results = []
    for tag in (0, 1):  # alike: scanned; unlike: one by one
        interactions = [Recorder((0, 0)), Recorder((0, 0), tag)]
        last, kept = over_interactions(interactions, tokens, params, jnp.array([0, 1, 0, 1]), None, record=True)
        results.append((int(last.patches), kept["patches"].tolist(), kept["injected"].tolist()))
    assert results[0] == results[1] == (1573_2794, [1573, 15732794], [0, 1573])


def test_groups_may_be_of_unequal_length():
    params = {"injector": jnp.array([1, 2]), "extractor": jnp.array([3, 4]), "blocks": jnp.array([5, 6, 7])}
    tokens = Tokens(jnp.array(0), jnp.array(0), None)
    interactions = [Recorder((0,)), Recorder((0, 0))]
    last, kept = over_interactions(interactions, tokens, params, jnp.array([0, 1, 0]), None, record=False)
    assert int(last.patches) == 153_2774 and set(kept) == {"patches"}


def test_class_token_reaches_the_features():
    images = RNG.normal(size=(1, 64, 64, 3)).astype(np.float32)
    model = ViTAdapter(beit=True, groups=(1, 1, 1, 1), **SMALL)
    variables = variables_of(model, images)
    apply = jax.jit(model.apply)
    before = apply(variables, images)
    variables["params"]["cls_token"] = RNG.normal(size=(1, 1, 16)).astype(np.float32)
    after = apply(variables, images)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(before, after, strict=True))
