"""VidEoMT's key table and the files that it can start from."""

import json
import pathlib

import jax
import numpy as np
import pytest
import videomt_rule
from flax import traverse_util

from vps_jax import convert, models
from vps_jax.convert import videomt_files, videomt_keys
from vps_jax.datasets import class_table
from vps_jax.models import vit
from vps_jax.types import UserError

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"  # key lists are the project's own
LARGE = json.loads((GOLDEN / "videomt_large_vipseg_keys.json").read_text())
MICRO = {"name": "videomt", "size": "small", "semantic_groups": (("YOUTUBE_VIS", 5),), "width": 16, "num_heads": 2,
         "trunk_blocks": 2, "query_blocks": 1, "queries": 3, "registers": 4, "image_size": 64}  # fmt: skip


def expected_of(config):
    model = models.build(config)
    return models.shapes(model)


def random_variables(config):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), expected_of(config))


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def same(tree, other):
    ours, theirs = flat(tree), flat(other)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[path], theirs[path]) for path in ours)


@pytest.mark.parametrize(("image_size", "count"), [(1280, 322_652_285), (640, 317_737_085)])
def test_every_published_entry_of_large_has_its_place(image_size, count):
    config = {"name": "videomt", "size": "large", "image_size": image_size}
    expected = flat(expected_of(config))
    assert sum(leaf.size for leaf in expected.values()) == count
    table = videomt_keys.table(config)
    mapped = {rule.key for rule in table.rules} | set(table.constants)
    assert mapped - {videomt_keys.MASK_TOKEN, videomt_keys.EMPTY_WEIGHT} == set(LARGE["original_keys"])
    port = videomt_keys.port_keys(config)
    assert set(port) == mapped
    assert sorted(name for names in port.values() for name in names) == sorted(LARGE["safetensors_keys"])
    shapes = dict(LARGE["safetensors_keys"])
    shapes["embeddings.position_embeddings.weight"] = [(image_size // 16) ** 2, 1024]
    filled = dict.fromkeys(expected, 0)
    for rule in table.rules:
        shape = [sum(shapes[name][0] for name in port[rule.key]), *shapes[port[rule.key][0]][1:]]
        entry = np.broadcast_to(np.float32(0), [1, *shape] if rule.key.endswith("pos_embed") else shape)
        ours = expected[rule.path].shape
        assert rule.transform.to_ours(entry).shape == (ours if rule.index is None else ours[1:]), rule
        filled[rule.path] += entry.size
    assert all(filled[path] == leaf.size for path, leaf in expected.items())
    assert all(list(value.shape) == shapes[port[key][0]] for key, value in table.constants.items())


@pytest.mark.parametrize("port", [False, True])
def test_the_way_back_restores_names_and_bits(port):
    config = {**MICRO, "semantic_groups": (("VIPSEG", 124),)}
    variables = random_variables(config)
    arrays = videomt_files.to_arrays(variables, config, port=port)
    assert (videomt_files.PORT in arrays) == port
    if not port:  # which have no mask token
        variables["params"]["trunk"]["mask_token"] *= 0
    filled = videomt_files.fill(arrays, config, expected_of(config))
    assert filled.whole and not filled.notes
    assert same(filled.variables, variables)
    again = videomt_files.to_arrays(filled.variables, config, port=port)
    assert again.keys() == arrays.keys() and all(np.array_equal(again[key], arrays[key]) for key in arrays)


def test_packed_rows_are_query_key_value():
    arrays = videomt_rule.make_all({f"layers.0.attention.{p}_proj.weight": (16, 16) for p in "qkv"}, 0)
    packed = videomt_keys.authors_names(arrays, MICRO)[f"{videomt_keys.TRUNK}blocks.0.attn.qkv.weight"]
    for rows, part in zip(np.split(packed, 3), "qkv", strict=True):
        np.testing.assert_array_equal(rows, arrays[f"layers.0.attention.{part}_proj.weight"])


@pytest.mark.parametrize(("name", "first"), [("VIPSEG", "door"), ("VSPW", "wall")])
def test_class_rows_come_to_the_official_order(name, first):
    config = {**MICRO, "semantic_groups": ((name, 124),)}
    names = class_table("vipseg").names
    arrays = videomt_files.to_arrays(random_variables(config), config)
    key = f"{videomt_keys.MODEL}class_head"
    arrays[f"{key}.bias"] = np.arange(125, dtype=np.float32)
    arrays[f"{key}.weight"] = np.repeat(np.arange(125, dtype=np.float32)[:, None], 16, axis=1)
    head = videomt_files.fill(arrays, config, expected_of(config)).variables["params"]["heads"]["class_head"]
    assert names[int(np.flatnonzero(head["bias"] == 0)[0])] == first  # the file's first row
    assert head["bias"][124] == 124  # no object stays last
    np.testing.assert_array_equal(head["kernel"], np.broadcast_to(head["bias"], (16, 125)))
    if name == "VIPSEG":  # things 0..57 by id, then stuff 58..123
        table = class_table("vipseg")
        np.testing.assert_array_equal(head["bias"][list(table.thing_ids)], np.arange(58))
        np.testing.assert_array_equal(head["bias"][list(table.stuff_ids)], np.arange(58, 124))


def test_a_table_of_another_size_is_named_and_not_resampled():
    arrays = videomt_files.to_arrays(random_variables({**MICRO, "image_size": 96}), {**MICRO, "image_size": 96})
    assert videomt_files.image_size_of(arrays, 16) == convert.fitted(arrays, MICRO).image_size == 96
    with pytest.raises(UserError, match="set model.image_size=96"):
        videomt_files.fill(arrays, MICRO, expected_of(MICRO))


def test_another_label_set_leaves_the_class_head_empty():
    other = {**MICRO, "semantic_groups": (("OVIS", 7),)}
    filled = videomt_files.fill(videomt_files.to_arrays(random_variables(other), other), MICRO, expected_of(MICRO))
    missing = flat(expected_of(MICRO)).keys() - flat(filled.variables).keys()
    assert missing == {"params/heads/class_head/kernel", "params/heads/class_head/bias"}
    assert not filled.whole and "7 classes" in filled.notes[0]


@pytest.fixture
def dinov2():
    """A made-up DINOv2 with registers in its own names: 5x5 positions and the class token's, patches of 14."""
    config = {**MICRO, "image_size": 80}
    arrays = videomt_files.to_arrays(random_variables(config), config)
    prefix = videomt_keys.TRUNK
    trunk = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
    trunk["register_tokens"] = trunk.pop("reg_token")
    rng = np.random.default_rng(1)
    trunk["pos_embed"] = rng.normal(size=(1, 26, 16)).astype(np.float32)
    trunk["patch_embed.proj.weight"] = rng.normal(size=(16, 3, 14, 14)).astype(np.float32)
    return trunk | {"mask_token": np.ones((1, 16), np.float32)}


def test_start_from_dinov2(dinov2):
    filled = videomt_files.fill(dinov2, MICRO, expected_of(MICRO))
    trunk = filled.variables["params"]["trunk"]
    np.testing.assert_array_equal(trunk["cls_token"][0, 0], dinov2["cls_token"][0, 0] + dinov2["pos_embed"][0, 0])
    np.testing.assert_array_equal(trunk["reg_token"], dinov2["register_tokens"])
    np.testing.assert_array_equal(
        trunk["pos_embed"][0], vit.resampled_positions(dinov2["pos_embed"][0, 1:], (4, 4))
    )  # fmt: skip
    assert not filled.whole and len(filled.notes) == 2
    left = flat(expected_of(MICRO)).keys() - flat(filled.variables).keys()
    assert {path.split("/")[1] for path in left} == {"heads", "query", "query_updater"}


def test_a_kernel_of_another_size_gives_resized_patches_the_same_token():
    rng = np.random.default_rng(0)
    kernel, patch = rng.normal(size=(4, 3, 14, 14)).astype(np.float32), rng.normal(size=(14, 14, 3)).astype(np.float32)
    grown = jax.image.resize(patch, (16, 16, 3), "cubic", antialias=True)
    new = videomt_files.resampled_kernel(kernel, 16)
    tokens = np.einsum("ochw,hwc->o", kernel, patch), np.einsum("ochw,hwc->o", new, grown)
    np.testing.assert_allclose(*tokens, rtol=1e-3, atol=1e-3)


def dinov3_file(config):
    """A made-up trunk in Hugging Face's names, without biases of keys."""
    n = {"c": config["width"], "blocks": config["trunk_blocks"] + config["query_blocks"]}
    c, rng = n["c"], np.random.default_rng(2)
    shapes = {"embeddings.cls_token": (1, 1, c), "embeddings.mask_token": (1, 1, c), "norm.weight": (c,)}
    shapes |= {"embeddings.register_tokens": (1, config["registers"], c), "norm.bias": (c,)}
    shapes |= {"embeddings.patch_embeddings.weight": (c, 3, 16, 16), "embeddings.patch_embeddings.bias": (c,)}
    for i in range(n["blocks"]):
        key = f"layer.{i}"
        sizes = {"mlp.up_proj": (4 * c, c), "mlp.down_proj": (c, 4 * c)}
        sizes |= {f"attention.{part}_proj": (c, c) for part in "qkvo"}
        for name, shape in sizes.items():
            shapes |= {f"{key}.{name}.weight": shape, f"{key}.{name}.bias": shape[:1]}
        shapes |= {f"{key}.{name}.{end}": (c,) for name in ("norm1", "norm2") for end in ("weight", "bias")}
        shapes |= {f"{key}.layer_scale{j}.lambda1": (c,) for j in (1, 2)}
        del shapes[f"{key}.attention.k_proj.bias"]
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


def test_start_from_dinov3():
    config = {**MICRO, "image_size": 0}
    arrays = dinov3_file(config)
    params = videomt_files.fill(arrays, config, expected_of(config)).variables["params"]
    bias = params["trunk"]["blocks"]["attn"]["qkv"]["bias"][1]
    np.testing.assert_array_equal(bias[:16], arrays["layer.1.attention.q_proj.bias"])
    np.testing.assert_array_equal(bias[16:32], np.zeros(16))
    np.testing.assert_array_equal(params["blocks"]["fc2"]["kernel"][0], arrays["layer.2.mlp.down_proj.weight"].T)
    with pytest.raises(UserError, match="image_size=0"):
        videomt_files.fill(arrays, MICRO, expected_of(MICRO))


def test_a_strange_file_is_refused_in_one_line():
    with pytest.raises(UserError, match="neither a VidEoMT nor a trunk") as error:
        videomt_files.fill({"conv1.weight": np.zeros((1,))}, MICRO, expected_of(MICRO))
    assert "\n" not in str(error.value)


def test_a_published_file_brings_its_table_size_along(tmp_path):
    config = {**MICRO, "image_size": 96}
    variables = random_variables(config)
    convert.save_torch(tmp_path / "file.pth", convert.to_arrays(variables, config))
    found, report = convert.convert_file(tmp_path / "file.pth", MICRO)
    assert report["model"].image_size == 96 and report["from_file"] == report["parameters"]
    variables["params"]["trunk"]["mask_token"] *= 0
    assert same(found, variables)
