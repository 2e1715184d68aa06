"""Whole models, other windows, other query lists and bare backbones, on a network of toy size."""

import functools

import jax
import numpy as np
import pytest

from vps_jax import convert, models
from vps_jax.convert import rules, tarvis_files
from vps_jax.convert.torch_writer import save_torch
from vps_jax.models.swin import SIZES
from vps_jax.types import UserError

GROUPS = tarvis_files.PUBLISHED_GROUPS[1]
MICRO = {
    "name": "tarvis",
    "backbone": "swin_micro",
    "semantic_groups": GROUPS,
    "instance_queries": 5,
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


@functools.cache
def expected():
    return convert.expected(MICRO)


@functools.cache
def published() -> dict[str, np.ndarray]:
    """A published file of the toy model with random weights."""
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(np.float32), expected())
    return convert.to_arrays(variables, MICRO)


def fill(arrays, **changes):
    return tarvis_files.fill(arrays, MICRO | changes, expected())


def test_a_whole_file_fills_everything_and_leads_back():
    filled = fill(published())
    assert filled.whole and not filled.notes
    back = convert.to_arrays(filled.variables, MICRO)
    assert set(back) == set(published())
    for key, value in published().items():
        np.testing.assert_array_equal(back[key], value)


def test_groups_are_chosen_by_name():
    """A model of two of the five data sets, in another order, takes their rows and the shared first row."""
    groups = (("VIPSEG", 124), ("OVIS", 25))
    wanted = {"params": dict(expected()["params"])}
    wanted["params"]["queries"] = wanted["params"]["queries"] | {
        "semantic": jax.ShapeDtypeStruct((150, 32), np.float32)
    }
    filled = tarvis_files.fill(published(), MICRO | {"semantic_groups": groups}, wanted)
    theirs, ours = published()[tarvis_files.SEMANTIC], filled.variables["params"]["queries"]["semantic"]
    np.testing.assert_array_equal(ours, np.concatenate([theirs[:1], theirs[64:188], theirs[39:64]]))
    assert filled.notes == ("semantic groups kept: VIPSEG, OVIS",)


def test_a_group_that_the_file_lacks_is_named():
    with pytest.raises(UserError, match="no semantic group VIPSEG_VSS; it knows CITYSCAPES_VPS"):
        fill(published(), semantic_groups=(("VIPSEG", 124), ("VIPSEG_VSS", 124)))


def test_a_file_of_other_sizes_is_refused_by_name():
    arrays = published() | {"decoder.scale_embed.weight": np.zeros((3, 64), np.float32), "stranger.weight": np.zeros(3)}
    del arrays["decoder.decoder_norm.bias"]
    with pytest.raises(rules.MismatchError) as caught:
        fill(arrays)
    assert caught.value.missing == ["params/heads/norm/bias"]
    assert caught.value.unused == ["stranger.weight"]
    assert caught.value.misshapen == ["decoder.scale_embed.weight 3x64 for params/level_embed 3x32"]


def test_values_that_are_not_finite_are_refused():
    arrays = published() | {"decoder.decoder_norm.weight": np.full(32, np.inf, np.float32)}
    with pytest.raises(UserError, match="decoder.decoder_norm.weight holds 32 values that are not finite"):
        convert.to_params(arrays, MICRO)


def bare_swin(window: int = 4) -> dict[str, np.ndarray]:
    """An ImageNet file: the backbone's names without prefix, a classifier, no output norms."""
    prefix = tarvis_files.BACKBONE
    arrays = {k.removeprefix(prefix): v for k, v in published().items() if k.startswith(prefix)}
    arrays = {k: v for k, v in arrays.items() if not k.startswith(("norm0", "norm1", "norm2", "norm3"))}
    rows = (2 * window - 1) ** 2
    for key in arrays:
        if key.endswith("bias_table"):
            arrays[key] = np.resize(arrays[key], (rows, arrays[key].shape[1]))
    extra = {"head.weight": np.zeros((9, 256)), "head.bias": np.zeros(9), "norm.weight": np.zeros(256)}
    return arrays | extra | {"norm.bias": np.zeros(256), "layers.0.blocks.1.attn_mask": np.zeros((1, 16, 16))}


def test_a_bare_backbone_fills_the_backbone_alone():
    filled = fill(bare_swin())
    assert not filled.whole and set(filled.variables["params"]) == {"backbone"}
    backbone = filled.variables["params"]["backbone"]
    kernel = published()["backbone.backbone.patch_embed.proj.weight"]  # [o, i, h, w]
    np.testing.assert_array_equal(backbone["patch"]["kernel"], kernel.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(backbone["norm_2"]["scale"], np.ones(SIZES["swin_micro"].channels[2]))
    assert filled.notes[0] == "left out, of the classifier: head, norm"
    with pytest.raises(UserError, match="does not fill the whole model"):
        convert.to_params(bare_swin(), MICRO)


def test_tables_of_another_window_are_resampled():
    arrays = published()
    key = "backbone.backbone.layers.0.blocks.0.attn.relative_position_bias_table"
    line = np.arange(13, dtype=np.float32) ** 2
    curve = np.broadcast_to(line, (13, 13)).reshape(169, 1)  # window 7, along x
    flat = {k: np.full((169, v.shape[1]), 0.5, np.float32) for k, v in arrays.items() if k.endswith("bias_table")}
    filled = fill(arrays | flat | {key: curve})
    tables = filled.variables["params"]["backbone"]["stages_0"]["blocks"]["attn"]["relative_position_bias_table"]
    np.testing.assert_allclose(tables[1], 0.5, rtol=1e-6)
    table = tables[0].reshape(7, 7)
    # column 2 of 7 lies at 2.5 * 13/7 - 0.5 = 4 + 1/7; cubic weights of its four neighbours with a = -0.75
    t, a = 1 / 7, -0.75
    near = [(a + 2) * x**3 - (a + 3) * x**2 + 1 for x in (t, 1 - t)]
    far = [a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a for x in (1 + t, 2 - t)]
    value = far[0] * line[3] + near[0] * line[4] + near[1] * line[5] + far[1] * line[6]
    np.testing.assert_allclose(table[:, 2], value, rtol=1e-5)
    assert filled.notes == ("relative position tables resampled from window [7] to 4",)
    with pytest.raises(UserError, match="170 rows"):
        fill(arrays | {key: np.zeros((170, 1), np.float32)})


def test_convert_file_completes_a_backbone_with_fresh_values(tmp_path, monkeypatch):
    fresh = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, leaf.dtype), expected())
    monkeypatch.setattr(models, "init", lambda *_: fresh)
    save_torch(tmp_path / "swin.pth", {k: v.astype(np.float32) for k, v in bare_swin().items()})
    variables, report = convert.convert_file(tmp_path / "swin.pth", MICRO)
    assert jax.tree.structure(variables) == jax.tree.structure(fresh)
    assert (variables["params"]["queries"]["instance"] == 7).all()
    np.testing.assert_array_equal(
        variables["params"]["backbone"]["patch"]["bias"], published()["backbone.backbone.patch_embed.proj.bias"]
    )
    sizes = jax.tree.map(lambda leaf: leaf.size, expected()["params"])
    assert report["parameters"] == sum(jax.tree.leaves(sizes))
    assert report["from_file"] == sum(jax.tree.leaves(sizes["backbone"]))
    assert "everything else starts fresh" in report["notes"][-1]


def test_a_file_of_another_model_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", **{"layer.weight": np.ones((3, 3), np.float32)})
    with pytest.raises(UserError, match=r"other\.npz: "):
        convert.convert_file(tmp_path / "other.npz", MICRO)
