"""Every experiment file: complete, consistent, and its optimiser groups cover the model at full size."""

import importlib
import json
import pathlib
import re

import jax
import pytest

from configs import common, datasets, stage1, stage2, stage3
from vps_jax import models, tasks, taxonomy
from vps_jax.data import pipeline
from vps_jax.infer.predict import Settings
from vps_jax.tasks.settings import complete
from vps_jax.train.handover import semantic_rows
from vps_jax.train.optimizer import make_schedule, parameter_groups
from vps_jax.train.setup import task_settings
from vps_jax.train.state import flat_paths

FOLDER = pathlib.Path(common.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("common", "datasets") and "ensemble" not in p.stem)


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
    sources = pipeline.settings(config)["sources"]
    for dataset, source in sources.items():
        task = source["task"]
        settings = task_settings(config, task, dataset)
        complete(settings, tasks.TASKS[task].DEFAULTS, task)
        if settings.get("class_map"):
            assert max(settings["class_map"]) < settings["num_classes"]
    assert set(config["class_maps"]) <= set(sources)


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


def test_class_lists_have_their_published_sizes():
    assert taxonomy.class_table("vipseg").thing_ids == datasets.VIPSEG_THINGS
    assert {name: len(things) for name, things in datasets.THINGS.items()} == {
        "ADE20K": 100, "CITYSCAPES": 10, "COCO": 80, "MAPILLARY": 37, "VIPSEG": 58,
    }  # fmt: skip
    assert [size for _, size in stage1.get_config().model.semantic_groups] == [150, 34, 133, 65]  # spec: tarvis 4.2
    assert [size for _, size in stage2.get_config().model.semantic_groups] == [19, 19, 25, 124, 40]


def test_class_maps_by_hand():
    assert datasets.things_only("COCO")[78:82] == (78, 79, -1, -1)
    renumbered = datasets.things_renumbered("VIPSEG")
    assert renumbered[:5] == (-1, -1, 0, -1, 1) and renumbered[123] == 57


def test_stage1_weights_are_the_product_of_data_set_and_task():
    weights = {name: s["weight"] for name, s in stage1.get_config().to_dict()["data"]["sources"].items()}
    assert sum(weights.values()) == pytest.approx(1) and weights["COCO_vos"] == pytest.approx(0.55 * 0.4)


def test_stage2_weights_are_published():
    weights = {name: s["weight"] for name, s in stage2.get_config().to_dict()["data"]["sources"].items()}
    assert sum(weights.values()) == pytest.approx(1) and weights["vipseg"] == 0.15


def test_stages_hand_their_queries_on():
    """Cityscapes rows to both 19-class sets, VIPSeg rows to all three groups (spec: tarvis 7.9, 12.2)."""
    one, two, three = (module.get_config().to_dict() for module in (stage1, stage2, stage3))
    rows = semantic_rows(one["model"]["semantic_groups"], two["model"]["semantic_groups"], two["init_from"]["groups"])
    assert rows[1:20] == tuple(151 + c for c in datasets.CITYSCAPES_19) == rows[20:39]
    assert set(rows[39:]) == {-1}
    rows = semantic_rows(
        two["model"]["semantic_groups"], three["model"]["semantic_groups"], three["init_from"]["groups"]
    )
    assert rows[1:125] == tuple(range(64, 188)) == rows[-124:]
    assert rows[125:183] == tuple(64 + c for c in datasets.VIPSEG_THINGS)


@pytest.mark.parametrize("backbone", ["swin_tiny", "resnet50"])
def test_small_backbones_have_their_own_weights(backbone):
    """Spec: tarvis 6.6."""
    for stage in (stage1, stage2):
        settings = stage.get_config(backbone).tasks
        assert settings.panoptic.semantic_weight == settings.instance.semantic_weight == 2.0
        assert not settings.panoptic.regularization and not settings.instance.ignore_null_classes
    assert stage1.get_config().tasks.panoptic.ignore_null_classes
    assert stage2.get_config().tasks.instance.regularization
