"""Key tables of backbones and neck: every published entry once, every parameter of ours filled."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vps_jax.convert import neck_keys, resnet_keys, rules, swin_keys
from vps_jax.models import resnet, swin, temporal_neck

IMAGES = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)


def variables_of(model, *inputs):
    return jax.eval_shape(model.init, jax.random.key(0), *inputs)


def nested(variables, name):
    return {collection: {name: tree} for collection, tree in variables.items()}


@pytest.mark.parametrize("size", ["swin_tiny", "swin_large"])
def test_swin_and_neck_place_every_published_entry(size, golden_dir):
    listing = json.loads((golden_dir / f"tarvis_{size}_keys.json").read_text())
    listing = {key: entry for key, entry in listing.items() if key.startswith("backbone.")}
    tables = swin_keys.table(size), neck_keys.table(6)
    keys = [rule.key for table in tables for rule in table.rules if rule.part in (None, (0, 3))]
    constants = {key for table in tables for key in table.constants}
    assert len(keys) == len(set(keys))
    assert set(keys) | constants == set(listing) and not set(keys) & constants
    assert constants == {key for key, (_, _, is_buffer) in listing.items() if is_buffer}
    for key in constants:
        array = tables[0].constants[key]
        assert [list(array.shape), str(array.dtype)] == listing[key][:2]


def test_resnet_table_fills_every_vector_and_kernel():
    shapes = nested(variables_of(resnet.ResNet(resnet.SIZES["resnet50"]), IMAGES), "backbone")
    table = resnet_keys.table("resnet50")
    paths = [rule.path for rule in table.rules]
    assert sorted(paths) == sorted(traverse_util.flatten_dict(shapes, sep="/"))
    keys = {rule.key for rule in table.rules}
    assert len(keys) == 53 * 5
    assert {"backbone.backbone.stem.conv1.norm.running_var", "backbone.backbone.res5.2.conv3.weight"} <= keys
    assert "backbone.backbone.res3.0.shortcut.weight" in keys and "backbone.backbone.res3.1.shortcut.weight" not in keys


def test_small_models_survive_the_way_there_and_back(monkeypatch):
    size = swin.SwinSize(8, (2, 4, 2, 2), (1, 2, 2, 4), 3)
    monkeypatch.setitem(swin.SIZES, "swin_of_the_test", size)
    shapes = nested(variables_of(swin.Swin(size), IMAGES), "backbone")
    maps = [jax.ShapeDtypeStruct((1, 1, 16 >> i, 16 >> i, 8 << i), jnp.float32) for i in range(4)]
    model = temporal_neck.TemporalNeck(hidden_dim=32, num_heads=2, num_layers=2, ffn_dim=8)
    shapes["params"] |= nested(variables_of(model, maps), "neck")["params"]
    rng = np.random.default_rng(0)
    ours = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), shapes)
    backbone, neck = swin_keys.table("swin_of_the_test"), neck_keys.table(2)
    table = rules.Table(backbone.rules + neck.rules, backbone.constants)
    published = rules.to_arrays(table, ours)
    back = rules.apply(table, published, shapes)
    jax.tree.map(np.testing.assert_array_equal, back, ours)
    kernel = published["backbone.backbone.layers.1.blocks.3.attn.qkv.weight"]
    blocks = ours["params"]["backbone"]["stages_1"]["blocks"]
    np.testing.assert_array_equal(kernel.T, blocks["attn"]["qkv"]["kernel"][3])
