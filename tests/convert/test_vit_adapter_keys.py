"""The key table of ViT-Adapter: every published entry has its place, and the way back restores it."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vita_rule
from flax import traverse_util

from vps_jax.convert import rules, vit_adapter_keys
from vps_jax.models import mask2former
from vps_jax.models.mask2former_sizes import SIZES

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"  # key lists are the project's own


def published(name):
    return json.loads((GOLDEN / f"vit_adapter_{name}_keys.json").read_text())


def expected_of(config, shape):
    model = mask2former.from_config(config)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 1, *shape, 3))))
    return traverse_util.flatten_dict(variables, sep="/")


@pytest.mark.parametrize(
    ("name", "size", "part"),
    [("large_beit640", "beit_large_640", ""), ("large_vit384", "vit_large_384", "backbone")],
)
def test_every_published_entry_of_large_has_its_place(name, size, part):
    config = {"name": "mask2former", "size": size}
    keys = published(name)["keys"]
    image_size = SIZES[size].image_size
    expected = {path: leaf for path, leaf in expected_of(config, image_size).items() if part in path}
    table = vit_adapter_keys.backbone_table(config) if part else vit_adapter_keys.table(config)
    assert {rule.key for rule in table.rules} | set(table.constants) == set(keys)
    for key, value in table.constants.items():
        assert list(value.shape) == keys[key], key
    filled = dict.fromkeys(expected, 0)
    for rule in table.rules:
        entry = np.broadcast_to(np.float32(0), keys[rule.key])  # no memory behind it
        if rule.part:
            entry = entry[: entry.shape[0] // rule.part[1]]
        ours = expected[rule.path].shape
        assert rule.transform.to_ours(entry).shape == (ours if rule.index is None else ours[1:]), rule
        filled[rule.path] += entry.size
    assert all(filled[path] == leaf.size for path, leaf in expected.items())


def test_the_way_back_restores_names_shapes_and_bits():
    listing = published("layers")
    trunk, head = listing["config"]["backbone"], listing["config"]["head"]
    config = {"size": "beit_small_128"}
    assert (trunk["embed_dim"], head["feat_channels"], trunk["img_size"]) == (192, 128, 128)
    arrays = vita_rule.make_all(listing["keys"], 3)
    expected = traverse_util.unflatten_dict(expected_of(config, (128, 128)), sep="/")
    table = vit_adapter_keys.table(config)
    back = rules.to_arrays(table, rules.apply(table, arrays, expected))
    assert {key: list(value.shape) for key, value in back.items()} == listing["keys"]
    assert all(np.array_equal(back[key], value) for key, value in arrays.items())
    assert back["backbone.norm1.num_batches_tracked"] == 0
    index = back["backbone.blocks.0.attn.relative_position_index"]
    assert index.dtype == np.int64 and index[0, 0] == index.max() == 15 * 15 + 2
