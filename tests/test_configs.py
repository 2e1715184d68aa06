"""Every experiment file: complete, consistent, and its optimiser groups cover the model at full size."""

import importlib
import json
import pathlib
import re

import jax
import pytest

from configs import common
from vps_jax import models, tasks
from vps_jax.infer.predict import Settings
from vps_jax.tasks.settings import complete
from vps_jax.train.optimizer import make_schedule, parameter_groups
from vps_jax.train.state import flat_paths

FOLDER = pathlib.Path(common.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("common", "__init__", "ensemble"))


def load(name: str) -> dict:
    return importlib.import_module(f"configs.{name}").get_config().to_dict()


def abstract_variables(config):
    model = models.build(config["model"])
    return jax.eval_shape(lambda key: models.init(model, key, (64, 64)), jax.random.key(0))


@pytest.mark.parametrize("name", NAMES)
def test_config_is_complete_and_json(name):
    config = load(name)
    assert config["name"].startswith(name.split("_")[0])
    assert set(common.base().to_dict()) <= set(config)
    json.dumps(config)
    assert config["data"]["batch_size"] == config["train"]["batch_size"]
    for source in config["data"]["sources"].values():
        assert source.get("task", "panoptic") in config["tasks"]
        assert source["group"] in dict(config["model"]["semantic_groups"])
    assert config["train"]["checkpoint_every"] <= config["train"]["steps"]
    assert float(make_schedule(config["optim"])(config["train"]["steps"] // 2)) > 0


@pytest.mark.parametrize("name", NAMES)
def test_rooms_accept_their_section(name):
    config = load(name)
    Settings.from_config(config["infer"])
    for task, settings in config["tasks"].items():
        complete(settings, tasks.TASKS[task].DEFAULTS, task)


@pytest.mark.parametrize("name", NAMES)
def test_every_group_has_parameters_and_every_parameter_one_group(name):
    config = load(name)
    params = abstract_variables(config)["params"]
    optim = config["optim"]
    groups = flat_paths(parameter_groups(params, lr_groups=optim["lr_groups"], no_decay=optim["no_decay"]).names)
    assert {g.removesuffix("/no_decay") for g in groups.values()} == {row[0] for row in optim["lr_groups"]}
    assert set(groups) == set(flat_paths(params))


def test_published_groups_at_full_size():
    """Spec: tarvis 7.1: norms and embeddings do not decay; biases and relative position tables do."""
    config = common.base().to_dict()
    params = abstract_variables(config)["params"]
    assert sum(leaf.size for path, leaf in flat_paths(params).items() if path.startswith("backbone/")) == 195_201_204
    optim = config["optim"]
    groups = flat_paths(parameter_groups(params, lr_groups=optim["lr_groups"], no_decay=optim["no_decay"]).names)
    for path, group in groups.items():
        is_norm = re.search(r"norm", path.split("/")[-2] if "/" in path else "") is not None
        is_embedding = path.startswith("queries/") or path.split("/")[-1].startswith("level_embed")
        assert group.startswith("backbone" if path.startswith("backbone/") else "rest")
        assert group.endswith("/no_decay") == (is_norm or is_embedding), path
    assert any("relative_position" in path for path, group in groups.items() if group == "backbone")
    assert set(groups.values()) == {"backbone", "backbone/no_decay", "rest", "rest/no_decay"}
