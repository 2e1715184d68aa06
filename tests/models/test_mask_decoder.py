"""The masked-attention decoder: masks, order of levels, gradients, initial values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.models.initializers import packed_xavier, torch_bias
from vps_jax.models.mask_decoder import DecoderLayer, MaskedDecoder, attention_bits, centre_means, level_memories

C, Q, HEADS = 8, 5, 2
GRIDS = ((1, 1), (2, 2), (4, 4))  # strides 32, 16, 8 of a 32-pixel image; two frames


def test_centre_means_are_the_half_pixel_resize():
    rows, columns = np.mgrid[:8, :8]
    features = np.stack([rows, columns, rows * columns], axis=-1)[None, None].astype(np.float32)  # [1, 1, 8, 8, 3]
    np.testing.assert_allclose(centre_means(features, factor=8)[0], [[3.5, 3.5, 12.25]])
    by_four = centre_means(features, factor=4).reshape(2, 2, 3)
    np.testing.assert_allclose(by_four[..., 0], [[1.5, 1.5], [5.5, 5.5]])  # rows 1, 2 and 5, 6
    np.testing.assert_allclose(by_four[..., 2], [[2.25, 8.25], [8.25, 30.25]])
    np.testing.assert_allclose(centre_means(features, factor=2)[0, 5], [2.5, 2.5, 6.25])


def test_attention_bits_equal_those_of_resized_mask_logits():
    random = np.random.default_rng(0)
    features = random.standard_normal((2, 3, 16, 24, C)).astype(np.float32)
    embeds = random.standard_normal((2, Q, C)).astype(np.float32)
    logits = np.einsum("bthwc,bqc->bqthw", features, embeds)
    for factor in (8, 4, 2):
        lo, hi = factor // 2 - 1, factor // 2
        taps = [logits[..., y::factor, x::factor] for y in (lo, hi) for x in (lo, hi)]
        expected = np.mean(taps, axis=0).reshape(2, Q, -1) >= 0
        bits = attention_bits(embeds, centre_means(features, factor=factor))
        assert bits.shape == expected.shape and (np.asarray(bits) != expected).sum() == 0


def test_a_logit_of_exactly_zero_may_be_looked_at():
    features = np.array([[[1.0], [0.0], [-1.0]]], np.float32)
    np.testing.assert_array_equal(attention_bits(np.ones((1, 1, 1)), features), [[[True, True, False]]])


def test_memories_carry_the_level_and_positions_do_not():
    levels = [np.full((2, 1, 1, 3), 5, np.float32), np.zeros((2, 1, 2, 3), np.float32)]
    embed = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    code = lambda h, w, c: jnp.arange(h * w * c, dtype=jnp.float32).reshape(h, w, c)  # noqa: E731
    memories, positions = level_memories(levels, embed, code, jnp.bfloat16)
    assert [m.tolist() for m in memories] == [[[[6, 7, 8]]] * 2, [[[4, 5, 6]] * 2] * 2]
    assert [p.tolist() for p in positions] == [[[[0, 1, 2]]], [[[0, 1, 2], [3, 4, 5]]]]
    assert {a.dtype for a in (*memories, *positions)} == {jnp.dtype("bfloat16")}


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def attention(p, q, k, v, attend):
    """Multi-head attention of one sample, head by head, in float64."""
    q, k, v = ((x @ p[n]["kernel"] + p[n]["bias"]) for n, x in (("query", q), ("key", k), ("value", v)))
    width, out = C // HEADS, []
    for m in range(HEADS):
        part = slice(m * width, (m + 1) * width)
        scores = np.where(attend, q[:, part] @ k[:, part].T / np.sqrt(width), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
    return np.concatenate(out, axis=-1) @ p["out"]["kernel"] + p["out"]["bias"]


def test_one_layer_equals_its_numpy_twin():
    random = np.random.default_rng(1)
    x, embed = random.standard_normal((2, 1, Q, C)).astype(np.float32)
    memory, position = random.standard_normal((2, 1, 6, C)).astype(np.float32)
    attend = random.random((1, Q, 6)) < 0.5
    attend[0, 0] = False
    layer = DecoderLayer(HEADS, 16)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x, embed, memory, position, attend)
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(np.float32) * 0.5, shapes)
    for name in ("cross_norm", "self_norm", "ffn_norm"):
        params["params"][name] = {"scale": np.ones(C, np.float32), "bias": np.zeros(C, np.float32)}
    out = jax.jit(layer.apply)(params, x, embed, memory, position, attend)

    p = jax.tree.map(np.float64, params["params"])
    opened = attend[0] | ~attend[0].any(-1, keepdims=True)
    y = x[0].astype(np.float64)
    y = norm(y + attention(p["cross_attention"], y + embed[0], memory[0] + position[0], memory[0], opened))
    y = norm(y + attention(p["self_attention"], y + embed[0], y + embed[0], y, True))
    hidden = np.maximum(y @ p["ffn"]["linear1"]["kernel"] + p["ffn"]["linear1"]["bias"], 0)
    y = norm(y + hidden @ p["ffn"]["linear2"]["kernel"] + p["ffn"]["linear2"]["bias"])
    np.testing.assert_allclose(out[0], y, atol=2e-5)


@functools.cache
def small():
    """A decoder of two rounds and its inputs."""
    random = np.random.default_rng(2)
    draw = lambda *shape: random.standard_normal(shape).astype(np.float32)  # noqa: E731
    inputs = {
        "x": draw(1, Q, C),
        "embed": draw(1, Q, C),
        "memories": [draw(1, 2 * h * w, C) for h, w in GRIDS],
        "positions": [draw(1, 2 * h * w, C) for h, w in GRIDS],
        "mask_features": draw(1, 2, 8, 8, C),
    }
    decoder = MaskedDecoder(6, HEADS, 16)
    variables = jax.jit(functools.partial(decoder.init, mask_embeds=jnp.tanh))(jax.random.key(0), **inputs)
    apply = functools.partial(decoder.apply, mask_embeds=jnp.tanh, mutable=["intermediates"])
    return jax.jit(apply), variables, inputs


def test_states_before_and_after_every_layer():
    apply, variables, inputs = small()
    states, sown = apply(variables, **inputs)
    assert states.shape == (7, 1, Q, C)
    np.testing.assert_array_equal(states[0], inputs["x"])
    assert np.abs(np.diff(states, axis=0)).max(axis=(1, 2, 3)).min() > 1e-2
    bits = sown["intermediates"]["rounds"]
    assert [bits[f"attend_{i}"][0].shape for i in range(3)] == [(2, 1, Q, 2 * h * w) for h, w in GRIDS]
    first = attention_bits(jnp.tanh(inputs["x"]), centre_means(inputs["mask_features"], factor=8))
    np.testing.assert_array_equal(bits["attend_0"][0][0], first)


def test_layer_n_looks_at_level_n_mod_3():
    apply, variables, inputs = small()
    states, _ = apply(variables, **inputs)
    for level in range(3):
        memories = list(inputs["memories"])
        memories[level] = memories[level] + 1
        changed, _ = apply(variables, **{**inputs, "memories": memories})
        same = [bool((a == b).all()) for a, b in zip(states, changed, strict=True)]
        assert same == [True] * (level + 1) + [False] * (6 - level)


def test_injected_masks_take_the_place_of_ones_own():
    apply, variables, inputs = small()
    states, sown = apply(variables, **inputs)
    own = [sown["intermediates"]["rounds"][f"attend_{i}"][0] for i in range(3)]
    again, _ = apply(variables, **inputs, attend=own)
    np.testing.assert_allclose(again, states, atol=1e-6)
    other, sown = apply(variables, **inputs, attend=[~bits for bits in own])
    assert np.abs(other[1:] - states[1:]).max(axis=(1, 2, 3)).min() > 1e-3
    np.testing.assert_array_equal(sown["intermediates"]["rounds"]["attend_0"][0][0], own[0][0])  # still one's own


def test_no_gradient_flows_through_the_masks():
    apply, variables, inputs = small()

    def loss(features):
        return (apply(variables, **{**inputs, "mask_features": features})[0] ** 2).sum()

    assert not np.asarray(jax.grad(loss)(inputs["mask_features"])).any()


def test_initial_values_have_the_published_spread():
    kernel = packed_xavier(jax.random.key(0), (256, 256))
    assert 0.98 < float(jnp.abs(kernel).max()) / (6 / (256 + 768)) ** 0.5 <= 1
    bias = torch_bias(64)(jax.random.key(1), (4096,))
    assert 0.99 < float(jnp.abs(bias).max()) * 8 <= 1 and abs(float(bias.mean())) < 0.005
    _, variables, _ = small()
    cross = variables["params"]["rounds"]["level_0"]["cross_attention"]
    assert cross["query"]["kernel"].shape == (2, C, C) and not np.asarray(cross["out"]["bias"]).any()
    assert not np.allclose(cross["query"]["kernel"][0], cross["query"]["kernel"][1])
