"""What is settled before the first step."""

import pytest

from configs import stage3, tiny
from vps_jax.config import experiment
from vps_jax.data import pipeline
from vps_jax.datasets import class_table
from vps_jax.train.setup import group_classes


@pytest.fixture
def vipseg(monkeypatch):
    """Every prepared folder says the classes of VIPSeg."""
    table = class_table("vipseg")
    monkeypatch.setattr(pipeline, "class_tables", lambda data: dict.fromkeys(data.sources, table))
    return table


def test_classes_of_the_predicted_group_come_from_its_data(vipseg):
    assert group_classes(experiment(tiny.get_config())) == vipseg


def test_a_class_map_puts_them_in_the_order_of_the_group(vipseg):
    config = stage3.get_config()
    config.infer.semantic_group = "VIPSEG_VIS"
    found = group_classes(experiment(config))
    assert found.names == tuple(vipseg.names[c] for c in vipseg.thing_ids) and all(found.is_thing)
    assert found.official_ids == vipseg.thing_ids


def test_data_of_an_early_version_say_none(monkeypatch):
    monkeypatch.setattr(pipeline, "class_tables", lambda data: dict.fromkeys(data.sources))
    assert group_classes(experiment(tiny.get_config())) is None
