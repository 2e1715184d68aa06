"""The table of published checkpoints: its page, its experiments, its facts."""

import pathlib
import urllib.parse

import pytest

from vps_jax import models
from vps_jax.datasets import class_table
from vps_jax.runs import published
from vps_jax.types import UserError
from vps_jax.weights import catalogue

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = catalogue.entries()


def test_the_page_is_that_of_the_table():
    assert (ROOT / "docs" / "weights.md").read_text() == catalogue.page(TABLE)


def test_names_are_unique_and_found():
    assert [catalogue.find(entry.name) for entry in TABLE] == list(TABLE)
    assert len({entry.name for entry in TABLE}) == len(TABLE)
    with pytest.raises(UserError, match=r"no published weights 'tarvis'; expected one of tarvis_swin_large, "):
        catalogue.find("tarvis")


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_an_entry_says_what_it_is(entry):
    assert entry.use in catalogue.USES
    assert bool(entry.numbers) == bool(entry.on) == bool(entry.source)  # no number without its source
    if entry.address is not None:
        assert entry.address.startswith("https://")
        assert pathlib.PurePosixPath(urllib.parse.urlsplit(entry.address).path).name == entry.file
    assert entry.sha256 is None or len(entry.sha256) == 64


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_the_experiment_of_an_entry_is_there_and_knows_its_classes(entry):
    config = published.config_of(entry)
    models.build(config.model)
    if entry.use == "predict":
        groups = dict(config.model.semantic_groups)
        assert groups[config.infer.semantic_group] == len(class_table(config.infer.taxonomy).names)


def test_changes_reach_the_experiment():
    config = published.config_of(catalogue.find("videomt_large_vspw"))
    assert config.model.semantic_groups == (("VSPW", 124),) and config.model.size == "large"
    assert (config.infer.task, config.infer.semantic_group, config.infer.taxonomy) == ("semantic", "VSPW", "vspw")
