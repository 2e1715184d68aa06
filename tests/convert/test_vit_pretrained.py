import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vps_jax.convert import resampled_tables, rules, vit_adapter_keys, vit_pretrained
from vps_jax.models import mask2former
from vps_jax.models.mask2former_sizes import sized
from vps_jax.types import UserError

BEIT = {"name": "mask2former", "size": "beit_tiny_96", "semantic_groups": (("VSPW", 5),), "width": 32, "trunk_heads": 2,
        "deform_heads": 2, "prior_width": 4, "hidden_dim": 32, "num_heads": 2, "ffn_dim": 8, "queries": 3}  # fmt: skip
VIT = BEIT | {"beit": False}


@pytest.fixture(scope="module")
def expected():
    """Function from a config to its variables' shapes."""
    known = {}

    def shapes(config):
        key = str(config)
        if key not in known:
            model = mask2former.from_config(config)
            size = sized(config).image_size
            known[key] = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 1, *size, 3))))
        return known[key]

    return shapes


def published(config, expected):
    """A made-up file of a segmentor."""
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), expected(config))
    return variables, rules.to_arrays(vit_adapter_keys.table(config), variables)


def trunk_of(arrays):
    names = ("backbone.patch_embed", "backbone.cls_token", "backbone.pos_embed", "backbone.blocks.")
    return {key.removeprefix("backbone."): value for key, value in arrays.items() if key.startswith(names)}


def same(tree, other):
    ours, theirs = (traverse_util.flatten_dict(t, sep="/") for t in (tree, other))
    return {path for path, value in ours.items() if np.array_equal(value, theirs[path])} == set(ours)


def test_a_segmentor_fills_everything(expected):
    variables, arrays = published(BEIT, expected)
    filled = vit_pretrained.fill(arrays, BEIT, expected(BEIT))
    assert filled.whole and filled.notes == ()
    assert same(filled.variables, variables)


def test_classes_of_another_label_set_stay_empty(expected):
    ade = BEIT | {"semantic_groups": (("ADE20K", 150),)}
    variables, arrays = published(ade, expected)
    filled = vit_pretrained.fill(arrays, BEIT, expected(BEIT))
    assert not filled.whole
    assert filled.notes == ("class rows of ADE20K (150 classes) left out; the model's VSPW (5) start fresh",)
    assert "cls_embed" not in filled.variables["params"]["heads"]
    assert same(filled.variables, variables)


def test_classes_of_as_many_others_are_told_by_name(expected):
    _, arrays = published(BEIT, expected)
    filled = vit_pretrained.fill(arrays, BEIT, expected(BEIT), label_set="Other")
    assert "class rows of Other (5 classes)" in filled.notes[0]
    assert vit_pretrained.fill(arrays, BEIT, expected(BEIT), label_set="vspw").whole


def test_a_beit_trunk_fills_its_part_and_its_tables_are_resampled(expected):
    _, arrays = published(BEIT | {"image_size": (64, 64)}, expected)
    trunk = trunk_of(arrays) | {name: np.ones(3) for name in ("mask_token", "norm.weight", "head.bias", "fc_norm.bias")}
    filled = vit_pretrained.fill(trunk, BEIT, expected(BEIT))
    assert set(filled.variables["params"]["backbone"]) == {"patch_embed", "cls_token", "blocks"}
    assert set(filled.variables) == {"params"} and not filled.whole
    assert filled.notes == (
        "left out, of the trunk's own task: fc_norm, head, mask_token, norm",
        "relative position tables resampled from [64] pixels to 96x96",
    )
    table = filled.variables["params"]["backbone"]["blocks"]["attn"]["relative_position_bias_table"]
    source = trunk["blocks.2.attn.relative_position_bias_table"]
    np.testing.assert_array_equal(table[2], resampled_tables.resample(source, (4, 4), (6, 6)))


def test_one_shared_table_goes_to_every_block(expected):
    _, arrays = published(BEIT, expected)
    trunk = trunk_of(arrays)
    shared = trunk["blocks.1.attn.relative_position_bias_table"]
    trunk = {key: value for key, value in trunk.items() if "relative_position" not in key}
    trunk |= {"rel_pos_bias.relative_position_bias_table": shared, "rel_pos_bias.relative_position_index": np.zeros(1)}
    filled = vit_pretrained.fill(trunk, BEIT, expected(BEIT)).variables["params"]["backbone"]["blocks"]
    assert all(np.array_equal(row, shared) for row in filled["attn"]["relative_position_bias_table"])


def test_a_plain_trunk_without_scales_gets_ones(expected):
    variables, arrays = published(VIT, expected)
    trunk = {key: value for key, value in trunk_of(arrays).items() if "gamma" not in key} | {"cls_token": np.ones(3)}
    filled = vit_pretrained.fill(trunk, VIT, expected(VIT)).variables["params"]["backbone"]
    assert np.all(filled["blocks"].pop("gamma1") == 1) and np.all(filled["blocks"].pop("gamma2") == 1)
    assert set(filled) == {"patch_embed", "pos_embed", "blocks"}
    assert same(filled, variables["params"]["backbone"])


def test_the_original_npz_is_the_same_trunk(expected):
    _, arrays = published(VIT, expected)
    trunk = trunk_of(arrays)
    heads, width = 2, 32
    npz = {
        "cls": np.zeros((1, 1, width)),
        "embedding/kernel": trunk["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": trunk["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": trunk["pos_embed"],
    }
    for i in range(4):
        block, old = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        attention = f"{old}MultiHeadDotProductAttention_1/"
        for part, weight, bias in zip(
            ("query", "key", "value"),
            np.split(trunk[f"{block}attn.qkv.weight"], 3),
            np.split(trunk[f"{block}attn.qkv.bias"], 3),
            strict=True,
        ):
            npz[f"{attention}{part}/kernel"] = weight.T.reshape(width, heads, -1)
            npz[f"{attention}{part}/bias"] = bias.reshape(heads, -1)
        npz[f"{attention}out/kernel"] = trunk[f"{block}attn.proj.weight"].T.reshape(heads, -1, width)
        npz[f"{attention}out/bias"] = trunk[f"{block}attn.proj.bias"]
        for old_name, name in (("MlpBlock_3/Dense_0", "mlp.fc1"), ("MlpBlock_3/Dense_1", "mlp.fc2")):
            npz[f"{old}{old_name}/kernel"] = trunk[f"{block}{name}.weight"].T
            npz[f"{old}{old_name}/bias"] = trunk[f"{block}{name}.bias"]
        for old_name, name in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            npz[f"{old}{old_name}/scale"] = trunk[f"{block}{name}.weight"]
            npz[f"{old}{old_name}/bias"] = trunk[f"{block}{name}.bias"]
    found = vit_pretrained.timm_names(npz)
    assert set(found) == {key for key in trunk if "gamma" not in key} | {"cls_token"}
    assert all(np.array_equal(found[key], trunk[key]) for key in found if key != "cls_token")


@pytest.mark.parametrize(
    ("config", "file", "message"),
    [
        (VIT, BEIT, "the file is a BEiT, the model a plain ViT"),
        (BEIT, VIT, "the file is a plain ViT, the model a BEiT"),
    ],
)
def test_a_trunk_of_the_other_kind_is_refused(expected, config, file, message):
    _, arrays = published(file, expected)
    with pytest.raises(UserError, match=message):
        vit_pretrained.fill(trunk_of(arrays), config, expected(config))


def test_a_foreign_file_and_another_width_are_refused(expected):
    with pytest.raises(UserError, match="key 'conv1.weight' is neither"):
        vit_pretrained.fill({"conv1.weight": np.zeros(1)}, BEIT, expected(BEIT))
    _, arrays = published(BEIT | {"queries": 4}, expected)
    with pytest.raises(rules.MismatchError, match="decode_head.query_feat.weight 4x32 for params/query_feat 3x32"):
        vit_pretrained.fill(arrays, BEIT, expected(BEIT))
