"""TarViS put together: tasks, groups, dtypes, and that unfit configs are refused. Numbers: tests/parity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax import models
from vps_jax.config import Tarvis
from vps_jax.infer.clip_model import ClipModel
from vps_jax.models.layers import normalize
from vps_jax.models.swin import SIZES
from vps_jax.models.tarvis import Heads, split
from vps_jax.types import UserError

CONFIG = {
    "name": "tarvis",
    "backbone": "swin_micro",
    "semantic_groups": (("A", 3), ("B", 5)),
    "instance_queries": 6,
    "hidden_dim": 32,
    "num_heads": 2,
    "neck_layers": 1,
    "neck_ffn_dim": 16,
    "decoder_layers": 3,
    "decoder_ffn_dim": 16,
    "vos": True,
    "drop_path_rate": 0.0,
    "remat": False,
    "dtype": "float32",
}
IMAGES = np.random.default_rng(0).integers(0, 256, (1, 2, 64, 128, 3), np.uint8)


@functools.cache
def network():
    model = models.build(CONFIG)
    return model, models.init(model, jax.random.key(0), (64, 64))


@functools.cache
def panoptic():
    model, variables = network()
    return jax.jit(functools.partial(model.apply, task="panoptic", group="B"))(variables, IMAGES)


def shapes(**how):
    model, variables = network()
    return jax.eval_shape(functools.partial(model.apply, **how), variables, IMAGES)


def test_panoptic_output():
    out = panoptic()
    assert out.mask_features.shape == (1, 2, 16, 32, 32)
    assert {k: v.shape for k, v in out.mask_embeds.items()} == {
        "instance": (4, 1, 6, 32), "background": (4, 1, 1, 32), "semantic": (4, 1, 5, 32)
    }  # fmt: skip
    assert out.class_logits.shape == (4, 1, 6, 1 + 5) and out.queries.shape == (4, 1, 12, 32)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))


def test_tasks_and_groups_choose_the_queries():
    assert shapes(task="instance").class_logits.shape == (4, 1, 6, 1 + 3)  # the first group when none is named
    semantic = shapes(task="semantic", group="B")
    assert set(semantic.mask_embeds) == {"semantic"} and semantic.class_logits is None
    exemplars = {"frames": np.array([[0]]), "masks": np.ones((1, 2, 1, 64, 128), bool)}
    vos = shapes(task="vos", exemplars=exemplars)
    assert {k: v.shape[2] for k, v in vos.mask_embeds.items()} == {"background_vos": 16, "vos": 2 * 8}
    assert shapes(task="vos", exemplars=exemplars, train=True).mask_embeds["vos"].shape[2] == 2 * 4


def test_decode_features_gives_the_last_set_only():
    model, variables = network()
    features = jax.jit(functools.partial(model.apply, method="backbone_features"))(variables, IMAGES)
    widths = SIZES["swin_micro"].channels
    assert [f.shape for f in features] == [
        (1, 2, 64 // s, 128 // s, c) for s, c in zip((4, 8, 16, 32), widths, strict=True)
    ]
    decode = functools.partial(model.apply, task="panoptic", group="B", method="decode_features")
    last = jax.jit(decode)(variables, features)
    for whole, part in zip(jax.tree.leaves(panoptic()._replace(mask_features=None)),
                           jax.tree.leaves(last._replace(mask_features=None)), strict=True):  # fmt: skip
        assert part.shape[0] == 1
        np.testing.assert_allclose(part[0], whole[-1], atol=2e-5)


def test_background_logit_comes_first_and_is_the_largest_of_its_group():
    heads = Heads(4, vos=False)
    x = np.random.default_rng(1).standard_normal((1, 5, 4)).astype(np.float32)
    groups = (("instance", 1), ("background", 2), ("semantic", 2))
    variables = heads.init(jax.random.key(0), x)
    logits = heads.apply(variables, x, groups, method="class_logits")
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    p = variables["params"]
    c, b, s = (
        part[0] @ p[f"proj_{name}"]["kernel"] + p[f"proj_{name}"]["bias"] for name, part in split(y, groups).items()
    )
    np.testing.assert_allclose(logits[0], np.concatenate([(c @ b.T).max(-1, keepdims=True), c @ s.T], -1), rtol=1e-4)


def test_normalize_uses_the_imagenet_numbers():
    pixels = np.array([[124, 116, 104], [0, 0, 0]], np.uint8)
    expected = (pixels - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(normalize(jnp.asarray(pixels)), expected, atol=2e-7)


def test_init_makes_the_parameters_of_every_task():
    _, variables = network()
    params = variables["params"]
    assert set(variables) == {"params"}
    assert set(params) == {"backbone", "neck", "queries", "level_embed", "decoder", "heads", "object_encoder"}
    assert {"mask_embed_free", "mask_embed_vos", "proj_background_vos"} <= set(params["heads"])
    assert all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    without = models.shapes(models.build(CONFIG | {"vos": False}))
    assert "object_encoder" not in without["params"] and "mask_embed_free" not in without["params"]["heads"]


def test_bfloat16_keeps_parameters_and_logits_in_float32():
    model = models.build(CONFIG | {"dtype": "bfloat16"})
    variables = models.shapes(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out = jax.eval_shape(functools.partial(model.apply, task="panoptic"), variables, IMAGES)
    assert out.mask_features.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((out.mask_embeds, out.class_logits))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "deeplab"}, "model.name='deeplab': expected one of tarvis, mask2former"),
        ({"backbone": "swin_giant"}, "'swin_giant': expected one of swin_micro"),
        ({"decoder_layers": 4}, "decoder_layers=4: expected a multiple of 3"),
        ({"dtype": "float16"}, "dtype='float16': expected one of bfloat16, float32"),
        ({"num_heads": 5}, "hidden_dim=32: expected a multiple of num_heads=5"),
    ],
)
def test_unfit_configs_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        models.build(CONFIG | changes)


def test_unknown_keys_are_named_and_missing_ones_are_the_published():
    with pytest.raises(UserError, match="model.widht: no such key; expected one of name, backbone"):
        models.build(CONFIG | {"widht": 3})
    assert models.build({"name": "tarvis"}).decoder_layers == 9
    assert models.build(Tarvis(**CONFIG)) == models.build(CONFIG)


def test_vos_needs_exemplars_and_an_encoder():
    with pytest.raises(UserError, match="needs exemplars"):
        shapes(task="vos")
    with pytest.raises(UserError, match="'C' is not in the model"):
        shapes(task="semantic", group="C")


def test_objects_of_a_clip_follow_what_is_shown():
    """The programs of inference on a real network; the numbers are compared in tests/parity/test_predictors.py."""
    model, variables = network()
    masks = np.zeros((1, 2, 1, 64, 128), bool)
    masks[0, 0, ..., 8:40, 16:64] = masks[0, 1, ..., 20:60, 80:100] = True
    clips = ClipModel(model, variables, [("vos", None)], chunk=2)
    both, swapped = (
        clips.predict_objects(0, list(IMAGES[0]), {"frames": np.array([[0]]), "masks": shown})
        for shown in (masks, masks[:, ::-1])
    )
    assert both.shape == (2, 2, 16, 32) and both.dtype == np.float32  # objects and frames
    np.testing.assert_allclose(both, swapped[::-1], atol=1e-4)
    assert np.abs(both[0] - both[1]).max() > 1e-3
    assert clips.programs == {"backbone 2x64x128": 1, "neck 2x64x128": 1, "decoder of 2 objects 2x1x64x128": 1}
