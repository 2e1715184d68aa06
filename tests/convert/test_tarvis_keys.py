"""The tables of the published TarViS files: every entry has its place, and the way back restores it."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
import tarvis_golden

from vps_jax import convert
from vps_jax.types import UserError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SIZES = {"tiny": ("swin_tiny", 687, 60_470_394), "large": ("swin_large", 855, 228_519_540)}


def listing(size: str) -> dict:
    return json.loads((GOLDEN / f"tarvis_swin_{size}_keys.json").read_text())


def config(size: str, **changes) -> dict:
    return tarvis_golden.SWIN_TINY | {"backbone": SIZES[size][0]} | changes


@functools.cache
def expected(size: str):
    return convert.expected(config(size))


@pytest.mark.parametrize("size", SIZES)
def test_parameter_count_is_the_published_one(size):
    assert sum(leaf.size for leaf in jax.tree.leaves(expected(size))) == SIZES[size][2]


@pytest.mark.parametrize("size", SIZES)
def test_every_published_entry_has_its_place(size):
    entries = listing(size)
    table = convert.table(config(size))
    assert len(entries) == SIZES[size][1]
    assert {rule.key for rule in table.rules} | set(table.constants) == set(entries)
    assert {key for key, (_, _, buffer) in entries.items() if buffer} == set(table.constants)
    for key, value in table.constants.items():
        shape, dtype, _ = entries[key]
        assert (list(value.shape), str(value.dtype)) == (shape, dtype), key


def test_there_and_back_restores_names_shapes_and_bits():
    arrays = tarvis_golden.published(listing("tiny"), seed=3)
    back = convert.to_arrays(convert.to_params(arrays, config("tiny")), config("tiny"))
    assert set(back) == set(arrays)
    for key, value in arrays.items():
        assert (back[key].dtype, back[key].shape) == (value.dtype, value.shape), key
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_without_exemplar_tasks_their_entries_are_dropped():
    table = convert.table(config("large", vos=False))
    assert {rule.key for rule in table.rules} | set(table.constants) | table.dropped == set(listing("large"))
    assert not any(rule.path.startswith("params/object_encoder") for rule in table.rules)
    assert "embedding_container._vos_queries" in table.dropped and "vos_query_extractor.bg_grid_size" in table.dropped


def test_unknown_model_has_no_table():
    with pytest.raises(UserError, match="deeplab"):
        convert.table({"name": "deeplab"})


def test_resnet_model_counts_as_published():
    variables = convert.expected(config("tiny", backbone="resnet50"))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 57_019_008
