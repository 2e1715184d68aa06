"""VidEoMT: queries carried from frame to frame, and the switches of its training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax import models
from vps_jax.models import videomt, videomt_layers, vit
from vps_jax.types import UserError

MICRO = {"name": "videomt", "size": "small", "semantic_groups": (("VIPSEG", 5),), "width": 24, "num_heads": 3,
         "trunk_blocks": 2, "query_blocks": 3, "queries": 4, "registers": 2, "image_size": 64, "init_values": 1.0,
         "dtype": "float32"}  # fmt: skip


@functools.cache
def variables_of(rotary: bool = False, masked: bool = False):
    """Random variables; the other switches do not change their shapes."""
    config = MICRO | ({"image_size": 0} if rotary else {}) | ({"masked_steps": ((0, 1),) * 3} if masked else {})
    return models.init(models.build(config), jax.random.key(0), (64, 64))


def run(config, variables, images, **kwargs):
    """One compiled call."""
    model = models.build({**MICRO, **config})
    return jax.jit(lambda v, x: model.apply(v, x, **kwargs))(variables, images)


def clip(frames=3, height=40, width=64, batch=1):
    return np.random.default_rng(0).integers(0, 256, (batch, frames, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["dinov2", "dinov3"])
def network(request):
    """A model's config changes, its variables, and its compiled call of (images, queries)."""
    rotary = request.param == "dinov3"
    model = models.build(MICRO | ({"image_size": 0, "norm_queries": True} if rotary else {}))
    variables = variables_of(rotary)
    return jax.jit(lambda x, queries=None: model.apply(variables, x, queries=queries)), variables


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_chunks_of_any_size_give_the_whole_clip(network, chunk):
    apply, variables = network
    images = clip(frames=8)
    whole = apply(images)
    start = variables["params"]["query"][None]
    parts = []
    for i in range(0, 8, chunk):
        parts.append(apply(images[:, i : i + chunk], start))
        start = parts[-1].queries
    for name in ("mask_features", "mask_embeds", "class_logits"):
        found = np.concatenate([getattr(part, name) for part in parts], axis=2)
        np.testing.assert_allclose(found, getattr(whole, name), atol=1e-5)
    np.testing.assert_allclose(start, whole.queries, atol=1e-5)


def test_a_frame_hears_of_earlier_ones_and_not_of_later_ones(network):
    apply, _ = network
    images = clip(frames=8)
    other = images.copy()
    other[:, 1] = 255 - other[:, 1]
    classes = [apply(x).class_logits[-1, 0] for x in (images, other)]
    gaps = np.abs(classes[0] - classes[1]).max(axis=(1, 2))
    assert gaps[0] == 0 and gaps[1] > 1e-3 and gaps[2] > 1e-4


def test_zeros_after_normalisation_fill_the_frame_up(network):
    apply, _ = network
    images = clip(frames=1).astype(np.float32)
    filled = np.pad(images, ((0, 0), (0, 0), (0, 24), (0, 0), (0, 0)))
    filled[:, :, 40:] = np.asarray([123.675, 116.28, 103.53])
    outputs = [apply(x) for x in (images, filled)]
    assert outputs[0].mask_features.shape == (1, 1, 1, 16, 16, 24)
    np.testing.assert_allclose(outputs[0].class_logits, outputs[1].class_logits, atol=1e-5)


def test_rotary_code_turns_patches_by_their_centres():
    """Against complex numbers: channel i and i + d/2 are the parts of one, turned by 2 pi x / 100^(4 i / d)."""
    rng, (h, w), d = np.random.default_rng(0), (2, 3), 8
    qkv = rng.normal(size=(1, 2 + h * w, 3, 1, d)).astype(np.float32)
    q, k, v = vit.rotated(jnp.asarray(qkv), vit.rotary_code((h, w), d, prefix=2))
    np.testing.assert_array_equal(v, qkv[:, :, 2])
    for ours, x in ((q, qkv[0, :, 0, 0]), (k, qkv[0, :, 1, 0])):
        numbers = x[:, : d // 2] + 1j * x[:, d // 2 :]
        for place in range(h * w):
            y, at = divmod(place, w)
            centre = [(y + 0.5) / h * 2 - 1, (at + 0.5) / w * 2 - 1]
            angle = np.concatenate([2 * np.pi * c / 100.0 ** (np.arange(d // 4) * 4 / d) for c in centre])
            numbers[2 + place] *= np.exp(1j * angle)
        expected = np.concatenate([numbers.real, numbers.imag], axis=-1)
        np.testing.assert_allclose(ours[0, :, 0], expected, atol=1e-5)


def test_gradients_flow_through_all_frames_and_remat_changes_nothing():
    images, params, grads = clip(frames=2), variables_of()["params"], []
    for remat in (False, True):
        model = models.build({**MICRO, "remat": remat})

        def loss(params, model=model):
            outputs = model.apply({"params": params}, images, train=True)
            return jnp.sum(outputs.class_logits[-1, :, -1] ** 2)  # of the last frame alone

        grads.append(jax.jit(jax.grad(loss))(params))
    assert np.abs(grads[0]["query_updater"]["kernel"]).max() > 0
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(1e-3, np.abs(a).max()))


def test_training_gives_predictions_before_the_first_query_blocks():
    images, variables = clip(frames=2), variables_of()
    outputs = run({"auxiliary_sets": 2}, variables, images, train=True)
    assert outputs.class_logits.shape == (3, 1, 2, 4, 6)
    np.testing.assert_allclose(outputs.class_logits[-1:], run({}, variables, images).class_logits, atol=1e-5)
    queries = variables["params"]["query"]
    head = variables["params"]["heads"]["class_head"]
    np.testing.assert_allclose(outputs.class_logits[0, 0, 0], queries @ head["kernel"] + head["bias"], atol=1e-5)
    normed = run({"auxiliary_sets": 2, "norm_auxiliary": True}, variables, images, train=True)
    assert np.abs(normed.class_logits[0] - outputs.class_logits[0]).max() > 1e-3


def test_a_frozen_trunk_gets_no_gradient():
    model = models.build({**MICRO, "frozen_trunk": True})
    loss = lambda p: jnp.sum(model.apply({"params": p}, clip(frames=1)).mask_features ** 2)  # noqa: E731
    grads = jax.jit(jax.grad(loss))(variables_of()["params"])
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["trunk"]))
    assert np.abs(grads["blocks"]["fc1"]["kernel"]).max() > 0


def test_masks_fade_from_block_to_block():
    steps = jnp.asarray([0.0, 10.0, 15.0, 20.0, 99.0])
    keep = videomt_layers.keep_probability(steps, 10, 20)
    np.testing.assert_allclose(keep, [1, 1, 0.5**0.9, 0, 0], atol=1e-6)


def test_a_query_sees_only_the_patches_of_its_mask():
    logits = jnp.asarray([[[1.0, -1.0, 0.0], [-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]]])
    open_rows = jnp.asarray([[False, False, True]])
    bias = np.asarray(videomt_layers.mask_bias(logits, open_rows, prefix=2))[0, 0]
    assert bias.shape == (8, 8)
    hidden = np.zeros((8, 8), bool)
    hidden[0, 6:], hidden[1, 5:] = True, True  # 0 is outside too; the third row is open; nothing else is closed
    np.testing.assert_array_equal(np.isneginf(bias), hidden)
    np.testing.assert_array_equal(bias[~hidden], 0)


def test_masked_attention_counts_steps_and_ends():
    changes = {"masked_steps": ((0, 2), (0, 2), (1, 3)), "auxiliary_sets": 3, "norm_auxiliary": True}
    images, variables = clip(frames=1, batch=2), variables_of(masked=True)
    plain = {"auxiliary_sets": 3, "norm_auxiliary": True}
    free = run(plain, {"params": variables["params"]}, images, train=True).class_logits
    model, rngs, gaps = models.build({**MICRO, **changes}), {"drop_path": jax.random.key(0)}, []
    step = jax.jit(lambda v: model.apply(v, images, train=True, rngs=rngs, mutable=["schedule"]))
    for _ in range(4):
        outputs, updated = step(variables)
        gaps.append(float(np.abs(outputs.class_logits - free).max()))
        variables = {**variables, **updated}
    assert float(variables["schedule"]["steps"]) == 4
    assert min(gaps[:2]) > 1e-3 and gaps[3] < 1e-5
    evaluated = run(changes, {**variables, "schedule": {"steps": jnp.zeros(())}}, images)
    np.testing.assert_allclose(evaluated.class_logits[-1], free[-1], atol=1e-5)  # no masks outside of training


def test_bfloat16_keeps_logits_and_residuals_in_float32():
    variables, images = variables_of(), clip(frames=1)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    outputs = run({"dtype": "bfloat16"}, variables, images)
    assert outputs.class_logits.dtype == outputs.queries.dtype == outputs.mask_embeds.dtype == jnp.float32
    assert outputs.mask_features.dtype == jnp.bfloat16
    exact = run({}, variables, images)
    assert np.abs(outputs.class_logits - exact.class_logits).max() < 0.1 * np.abs(exact.class_logits).max()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "huge"}, "model.size='huge'"),
        ({"num_heads": 5}, "divisor of width=24"),
        ({"image_size": 40}, "multiple of patch=16"),
        ({"masked_steps": ((0, 1),)}, "for each query block"),
        ({"width": 18, "image_size": 0}, "to be turned"),
    ],
)
def test_numbers_that_do_not_fit_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        models.build({**MICRO, **changes})


def test_other_tasks_and_label_sets_are_refused():
    model, variables = models.build(MICRO), variables_of()
    with pytest.raises(UserError, match="video_masks"):
        model.apply(variables, clip(frames=1), task="semantic")
    with pytest.raises(UserError, match="'VIPSEG'"):
        model.apply(variables, clip(frames=1), group="VSPW")
    assert videomt.TASK == "video_masks"
