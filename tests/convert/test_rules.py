"""Key tables fill every parameter, use every key, and lead back."""

import jax
import numpy as np
import pytest

from vps_jax.convert import rules
from vps_jax.convert.rules import Rule, Table

TABLE = Table(
    rules=(
        *rules.linear("fc", "params/fc"),
        *rules.norm("norm", "params/norm"),
        *rules.attention("blocks.0.attn", "params/blocks/attn", index=0),
        *rules.attention("blocks.1.attn", "params/blocks/attn", index=1),
        Rule("conv.weight", "params/conv/kernel", rules.CONV),
        Rule("grid", "params/grid", index=(1, 0)),
        Rule("grid0", "params/grid", index=(0, 0)),
    ),
    constants={"index": np.arange(4)},
    dropped=frozenset({"old"}),
)


def published():
    random = np.random.default_rng(0)
    shapes = {"fc.weight": (5, 3), "fc.bias": (5,), "norm.weight": (3,), "norm.bias": (3,), "conv.weight": (6, 4, 3, 2)}
    shapes |= {"grid": (7,), "grid0": (7,)}
    for i in range(2):
        key = f"blocks.{i}.attn"
        shapes |= {f"{key}.in_proj_weight": (6, 2), f"{key}.in_proj_bias": (6,)}
        shapes |= {f"{key}.out_proj.weight": (2, 2), f"{key}.out_proj.bias": (2,)}
    arrays = {key: random.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    return arrays | {"index": np.arange(4)}


def expected():
    attention = {n: {"kernel": np.zeros((2, 2, 2)), "bias": np.zeros((2, 2))} for n in ("query", "key", "value", "out")}
    tree = {
        "fc": {"kernel": np.zeros((3, 5)), "bias": np.zeros(5)},
        "norm": {"scale": np.zeros(3), "bias": np.zeros(3)},
        "blocks": {"attn": attention},
        "conv": {"kernel": np.zeros((3, 2, 4, 6))},
        "grid": np.zeros((2, 1, 7)),
    }
    return {"params": jax.tree.map(np.float32, tree)}


def test_every_entry_lands_in_its_place():
    arrays = published()
    params = rules.apply(TABLE, arrays, expected())["params"]
    np.testing.assert_array_equal(params["fc"]["kernel"], arrays["fc.weight"].T)
    np.testing.assert_array_equal(params["norm"]["scale"], arrays["norm.weight"])
    # value projection = last third of the packed rows, transposed, in the second slice of the stack
    np.testing.assert_array_equal(
        params["blocks"]["attn"]["value"]["kernel"][1], arrays["blocks.1.attn.in_proj_weight"][4:6].T
    )
    np.testing.assert_array_equal(params["blocks"]["attn"]["key"]["bias"][0], arrays["blocks.0.attn.in_proj_bias"][2:4])
    assert params["conv"]["kernel"][2, 1, 3, 5] == arrays["conv.weight"][5, 3, 2, 1]
    np.testing.assert_array_equal(params["grid"][:, 0], np.stack([arrays["grid0"], arrays["grid"]]))
    assert params["fc"]["bias"].dtype == np.float32


def test_the_way_back_restores_names_shapes_and_bits():
    arrays = published()
    back = rules.to_arrays(TABLE, rules.apply(TABLE, arrays, expected()))
    assert set(back) == set(arrays)
    for key, value in arrays.items():
        assert back[key].dtype == value.dtype
        np.testing.assert_array_equal(back[key], value)


def test_a_known_leftover_is_dropped():
    params = rules.apply(TABLE, published() | {"old": np.zeros(9)}, expected())["params"]
    assert set(params) == {"fc", "norm", "blocks", "conv", "grid"}


def test_missing_unused_and_misshapen_are_all_named():
    arrays = published() | {"stranger": np.zeros(1), "fc.weight": np.zeros((5, 4), np.float32)}
    del arrays["blocks.1.attn.in_proj_weight"]
    with pytest.raises(rules.MismatchError) as caught:
        rules.apply(TABLE, arrays, expected())
    error = caught.value
    assert error.missing == [f"params/blocks/attn/{n}/kernel" for n in ("key", "query", "value")]
    assert error.unused == ["stranger"]
    assert error.misshapen == ["fc.weight 5x4 for params/fc/kernel 3x5"]
    assert "stranger" in str(error) and "params/blocks/attn/key/kernel" in str(error) and "\n" not in str(error)


def test_an_entry_of_another_rank_is_misshapen():
    with pytest.raises(rules.MismatchError, match="conv.weight 6x4"):
        rules.apply(TABLE, published() | {"conv.weight": np.zeros((6, 4))}, expected())
    with pytest.raises(rules.MismatchError, match="in_proj_bias 7 "):
        rules.apply(TABLE, published() | {"blocks.0.attn.in_proj_bias": np.zeros(7)}, expected())


def test_the_way_back_refuses_other_variables():
    variables = rules.apply(TABLE, published(), expected())
    variables["params"]["extra"] = np.zeros(1)
    with pytest.raises(rules.MismatchError, match="params/extra"):
        rules.to_arrays(TABLE, variables)


def test_a_long_list_is_cut_in_the_message_but_kept_whole():
    error = rules.MismatchError([f"p{i}" for i in range(30)], [], [])
    assert "30 parameters" in str(error) and "and 22 more" in str(error) and len(error.missing) == 30
