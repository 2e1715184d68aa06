import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.models.pixel_decoder import ConvNorm, EncoderLayer, PixelDecoder
from vps_jax.ops.resize import resize

RNG = np.random.default_rng(0)
WIDTH = 32
MAPS = [RNG.normal(size=(2, 64 // s, 96 // s, 8)).astype(np.float32) for s in (4, 8, 16, 32)]


def group_norm(x, scale, bias):
    """32 groups of one channel each, over the pixels of an image."""
    mean, var = x.mean(axis=(1, 2), keepdims=True), x.var(axis=(1, 2), keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def layer_norm(x, times):
    for _ in range(times):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x


def convolve(x, kernel):
    """3x3, padding 1."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = x.shape[1:3]
    return sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


@pytest.fixture(scope="module")
def case():
    """A decoder whose encoder layers change nothing but the norm: outputs, and its parameters."""
    module = PixelDecoder(WIDTH, num_layers=2, num_heads=2, ffn_dim=4)
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), MAPS))["params"]
    params = jax.tree.map(lambda a: 0.3 * RNG.normal(size=a.shape).astype(np.float32), params)
    encoder = params["encoder"]
    for silent in (encoder["attn"]["output_proj"], encoder["ffn"]["linear2"]):
        jax.tree.map(lambda a: a.fill(0), silent)
    for norm in (encoder["attn_norm"], encoder["ffn_norm"]):
        norm["scale"].fill(1), norm["bias"].fill(0)
    mask_features, memories = jax.jit(module.apply)({"params": params}, MAPS)
    return params, mask_features, memories


def test_memories_are_of_strides_32_16_8(case):
    params, _, memories = case
    assert [m.shape for m in memories] == [(2, 64 // s, 96 // s, WIDTH) for s in (32, 16, 8)]
    for i, (memory, given) in enumerate(zip(memories, MAPS[:0:-1], strict=True)):
        p = params[f"input_{i}"]
        x = group_norm(given @ p["conv"]["kernel"] + p["conv"]["bias"], **p["norm"])
        np.testing.assert_allclose(memory, layer_norm(x, times=4), atol=1e-4)


def test_mask_features_add_the_finest_memory_to_the_finest_map(case):
    params, mask_features, memories = case
    lateral = group_norm(MAPS[0] @ params["lateral"]["conv"]["kernel"], **params["lateral"]["norm"])
    y = lateral + np.asarray(resize(memories[2], (16, 24)))
    y = group_norm(convolve(y, params["output"]["conv"]["kernel"]), **params["output"]["norm"])
    expected = np.maximum(y, 0) @ params["mask_features"]["kernel"] + params["mask_features"]["bias"]
    np.testing.assert_allclose(mask_features, expected, atol=2e-4)


def test_encoder_positions_steer_attention_but_are_no_content():
    layer = EncoderLayer(num_heads=2, ffn_dim=4, shapes=((2, 2),))
    x, position = RNG.normal(size=(1, 4, 8)).astype(np.float32), RNG.normal(size=(1, 4, 8)).astype(np.float32)
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, position))["params"]
    params = jax.tree.map(lambda a: RNG.normal(size=a.shape).astype(np.float32), params)
    apply = jax.jit(layer.apply)
    assert np.abs(apply({"params": params}, x, position) - apply({"params": params}, x, 0 * position)).max() > 1e-2
    for steering in ("sampling_offsets", "attention_weights"):
        jax.tree.map(lambda a: a.fill(0), params["attn"][steering]["kernel"])
    np.testing.assert_allclose(apply({"params": params}, x, position), apply({"params": params}, x, 0 * position))


def test_three_by_three_has_as_many_outputs():
    module = ConvNorm(WIDTH, kernel=3)
    out = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), jnp.zeros((1, 5, 7, 3)))[0])
    assert out.shape == (1, 5, 7, WIDTH)
