"""Every experiment file: complete, consistent, and its optimiser groups cover the model at full size."""

import functools
import importlib
import json
import pathlib
import re

import numpy as np
import pytest

from configs import common, datasets, stage1, stage2, stage3, stage4, tiny, tiny_stages
from vps_jax import agreement, models
from vps_jax.config import Experiment, InitFrom, experiment
from vps_jax.datasets import class_table, dataset
from vps_jax.parsing import plain
from vps_jax.runs import config_files
from vps_jax.runs import experiment as runs
from vps_jax.train.class_sources import FRESH, Labels, class_sources
from vps_jax.train.optimizer import make_schedule, parameter_groups
from vps_jax.train.setup import source_task
from vps_jax.train.state import flat_paths
from vps_jax.types import UserError

FOLDER = pathlib.Path(common.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("common", "datasets") and "ensemble" not in p.stem)
NAMES += [f"tiny_stages:{stage}" for stage in tiny_stages.STEPS if stage != "stage2"]  # stage2: without argument


def load(name: str) -> dict:
    """Config of `FILE` or `FILE:ARGUMENT`, as after `--config`."""
    file, *argument = name.split(":")
    return importlib.import_module(f"configs.{file}").get_config(*argument).to_dict()


def abstract_variables(config: Experiment):
    model = models.build(config.model)
    return models.shapes(model)


@pytest.mark.parametrize("name", NAMES)
def test_config_is_an_experiment_whose_parts_agree(name):
    config = experiment(load(name))
    assert config.name.startswith(name.split("_")[0])
    agreement.check(config)
    assert experiment(json.loads(json.dumps(plain(config)))) == config  # as a checkpoint carries it
    assert config.train.checkpoint_every <= config.train.steps
    assert float(make_schedule(config.optim)(config.train.steps // 2)) > 0
    for source in config.data.sources:
        task = source_task(config, source)
        assert not task.class_map or max(task.class_map) < task.num_classes


@functools.cache
def groups_of(name: str) -> dict[str, str]:
    """Path of a parameter -> its optimiser group."""
    config = experiment(load(name))
    params, optim = abstract_variables(config)["params"], config.optim
    groups = flat_paths(parameter_groups(params, lr_groups=optim.lr_groups, no_decay=optim.no_decay).names)
    assert set(groups) == set(flat_paths(params))
    return groups


@pytest.mark.parametrize("name", NAMES)
def test_every_group_has_parameters_and_every_parameter_one_group(name):
    groups = groups_of(name)
    assert {g.removesuffix("/no_decay") for g in groups.values()} == {
        row[0] for row in experiment(load(name)).optim.lr_groups
    }


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_embeddings_of_objects_do_not_decay(name):
    """Spec: tarvis 7.1: all norms and embeddings; biases and relative position tables do."""
    kept = {path for path, group in groups_of(name).items() if group.endswith("/no_decay")}
    embeds = {f"object_encoder/{kind}_embed" for kind in ("bg", "mask_object", "point_object")}
    assert embeds == {path for path in groups_of(name) if re.fullmatch(r"object_encoder/\w+_embed", path)}
    others = {path for path in kept if not re.search(r"norm[^/]*/(scale|bias)$|^queries/|(^|/)level_embed", path)}
    assert others == embeds


def test_published_groups_at_full_size():
    """Spec: tarvis 7.1: norms and embeddings do not decay; biases and relative position tables do."""
    config = experiment(common.base())
    params = abstract_variables(config)["params"]
    assert sum(leaf.size for path, leaf in flat_paths(params).items() if path.startswith("backbone/")) == 195_201_204
    optim = config.optim
    groups = flat_paths(parameter_groups(params, lr_groups=optim.lr_groups, no_decay=optim.no_decay).names)
    for path, group in groups.items():
        is_norm = re.search(r"norm", path.split("/")[-2] if "/" in path else "") is not None
        is_embedding = path.startswith("queries/") or path.split("/")[-1].startswith("level_embed")
        assert group.startswith("backbone" if path.startswith("backbone/") else "rest")
        assert group.endswith("/no_decay") == (is_norm or is_embedding), path
    assert any("relative_position" in path for path, group in groups.items() if group == "backbone")
    assert set(groups.values()) == {"backbone", "backbone/no_decay", "rest", "rest/no_decay"}


def test_class_lists_have_their_published_sizes():
    assert class_table("vipseg").thing_ids == datasets.VIPSEG_THINGS
    assert {name: len(things) for name, things in datasets.THINGS.items()} == {
        "ADE20K": 100, "CITYSCAPES": 10, "CITYSCAPES_VPS": 8, "COCO": 80, "KITTI_STEP": 2, "MAPILLARY": 37, "OVIS": 25,
        "VIPSEG": 58, "YOUTUBE_VIS": 40,
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


@pytest.mark.parametrize("name", ["coco_panoptic", "davis", "vipseg", "vspw"])
def test_sources_lie_where_their_builder_prepares_them(name):
    modules = (stage1, stage2, stage3, stage4, importlib.import_module("configs.vspw_vit_adapter"))
    paths = {s["path"] for module in modules for s in module.get_config().to_dict()["data"]["sources"].values()}
    assert f"data/prepared/{name}" in paths


def test_stage2_weights_are_published():
    weights = {name: s["weight"] for name, s in stage2.get_config().to_dict()["data"]["sources"].items()}
    assert sum(weights.values()) == pytest.approx(1) and weights["vipseg"] == 0.15


def test_a_data_set_is_left_out_with_one_override():
    """The others keep their proportions."""
    for stage, name, count in ((stage1, "mapillary_vistas", 9), (stage2, "youtube_vis", 6), (stage2, "burst,ovis", 5)):
        config = stage.get_config()
        config.data.without = name
        used = experiment(config.to_dict()).data.used
        assert len(used) == count and not any(source.path.endswith(tuple(name.split(","))) for source in used.values())
    config.data.without = "coco"
    with pytest.raises(
        UserError, match="data.without='coco': coco is no data set of .* choose some of burst, cityscapes_vps, davis"
    ):
        experiment(config.to_dict())


@pytest.mark.parametrize(
    ("name", "expected"),  # task, short side, frames, shared frames, threshold, tracks of a clip and of a video
    [
        ("vipseg", ("panoptic", 576, 12, 6, 0.5, 1000, 10)),
        ("kitti_step", ("panoptic", None, 6, 3, 0.5, 1000, 10)),
        ("cityscapes_vps", ("panoptic", None, 10, 5, 0.5, 1000, 10)),
        ("ovis", ("instance", 576, 12, 6, 0.0, 10, 20)),
        ("youtube_vis_2021", ("instance", 448, 12, 6, 0.0, 10, 10)),
    ],
)
def test_stage2_is_evaluated_on_its_data_sets_as_published(name, expected):
    """Spec: tarvis 8.1, 8.3, 8.7; with classes, queries, results and metrics of the data set."""
    config = experiment(stage2.get_config(f"swin_tiny,{name}").to_dict())
    infer, spec = config.infer, dataset(name)
    keys = ("task", "short_side_px", "clip_frames", "overlap_frames", "score_threshold", "max_tracks_per_clip")
    assert tuple(getattr(infer, key) for key in (*keys, "max_instances")) == expected
    runs.check(config)
    assert dict(config.model.semantic_groups)[infer.semantic_group] == len(spec.classes.names)
    assert config.evaluate.layout == name and spec.writer and config.train.best_metric in config.evaluate.metrics


def test_stage2_names_what_it_can_be_evaluated_on():
    assert stage2.get_config("swin_large,vipseg").to_dict() == stage2.get_config().to_dict()
    with pytest.raises(
        UserError, match="'davis' of the experiment: expected one of vipseg, cityscapes_vps, kitti_step"
    ):
        stage2.get_config("swin_large,davis")


def test_stages_hand_their_queries_on():
    """Cityscapes rows to both 19-class sets, VIPSeg rows to all three groups (spec: tarvis 7.9, 12.2)."""
    one, two, three = (module.get_config().to_dict() for module in (stage1, stage2, stage3))

    def handed(before, after):
        labels = (Labels(stage["model"]["semantic_groups"]) for stage in (before, after))
        return class_sources(*labels, InitFrom(groups=after["init_from"]["groups"])).classes

    classes = handed(one, two)
    assert classes[:19] == tuple(150 + c for c in datasets.CITYSCAPES_19) == classes[19:38]
    assert set(classes[38:]) == {FRESH}
    classes = handed(two, three)
    assert classes[:124] == tuple(range(63, 187)) == classes[-124:]
    assert classes[124:182] == tuple(63 + c for c in datasets.VIPSEG_THINGS)


@pytest.mark.parametrize("backbone", ["swin_tiny", "resnet50"])
def test_small_backbones_have_their_own_weights(backbone):
    """Spec: tarvis 6.6."""
    for stage in (stage1, stage2):
        settings = stage.get_config(backbone).tasks
        assert settings.panoptic.semantic_weight == settings.instance.semantic_weight == 2.0
        assert not settings.panoptic.regularization and not settings.instance.ignore_null_classes
    assert stage1.get_config().tasks.panoptic.ignore_null_classes
    assert stage2.get_config().tasks.instance.regularization


@pytest.mark.parametrize("name", tiny_stages.STEPS)
def test_tiny_stages_are_tiny_and_their_stages(name):
    """Sizes and data of configs/tiny.py; tasks, groups, hand-over and what stays frozen of the stage."""
    config, small, stage = load(f"tiny_stages:{name}"), load("tiny"), tiny_stages.MODELS[name].get_config().to_dict()
    other = ("semantic_groups", "vos")
    assert {k: v for k, v in config["model"].items() if k not in other} == {
        k: v for k, v in small["model"].items() if k not in other
    }
    assert config["model"]["vos"] == stage["model"]["vos"] and set(config["tasks"]) == set(stage["tasks"])
    assert {row for row in config["optim"]["lr_groups"] if row[2] == 0} == {
        row for row in stage["optim"]["lr_groups"] if row[2] == 0
    }
    for source in config["data"]["sources"].values():
        assert min(np.atleast_1d(source["short_side"])) == small["data"]["sources"]["vipseg"]["short_side"]
    used = [{source.get("task") for source in c["data"]["sources"].values()} for c in (config, stage)]
    assert used[0] == used[1]
    if name != "stage2":
        assert config["model"]["semantic_groups"] == stage["model"]["semantic_groups"]
        assert config["init_from"] == stage["init_from"] and config["class_maps"] == stage["class_maps"]
    assert config["evaluate"] == small["evaluate"]
    assert config["infer"] == {**small["infer"], "semantic_group": stage["infer"]["semantic_group"]}
    assert (config["train"]["evaluate_every"] > 0) == (stage["train"]["evaluate_every"] > 0)


def test_tiny_stages_have_a_schedule_of_the_published_shape():
    for name, steps in tiny_stages.STEPS.items():
        config = tiny_stages.get_config(name)
        assert config.train.steps == steps and config.train.evaluate_every in (0, steps)
        assert config.train.batch_size == 8 and config.train.first_evaluation == 0
        factor = stage4.get_config().optim.lr / stage3.get_config().optim.lr if name == "stage4" else 1
        rate = make_schedule(config.optim.to_dict())
        shares = [float(rate(round(share * steps))) for share in (0, 0.1, 0.5, 0.75, 0.95)]
        assert shares == pytest.approx(factor * 1e-3 * np.array([0, 1, 1, 0.1, 0.01]), rel=1e-5)


def test_the_rate_of_tiny_falls_to_zero_after_the_last_step():
    for steps in (1_500, 300):
        config = tiny.get_config()
        config.train.steps = steps
        rate = make_schedule(config.optim.to_dict())
        assert float(rate(steps)) == 0 < float(rate(steps - 1))


def test_the_data_of_tiny_stages_follow_their_folder():
    config = tiny_stages.get_config("stage2")
    config.synthetic.folder = "elsewhere"
    paths = {name: source.path for name, source in config.data.sources.items()}
    assert paths == {
        "vipseg": "elsewhere/prepared/vipseg", "things": "elsewhere/prepared/vipseg",
        "davis": "elsewhere/prepared/davis",
    }  # fmt: skip
    assert config.evaluate.truth == "elsewhere/converted"


@pytest.mark.parametrize("name", config_files.names())
def test_a_wrong_argument_is_named_with_what_is_expected(name):
    with pytest.raises(UserError, match=r"expected one of|takes no argument") as caught:
        config_files.check(config_files.load(f"{name}:nonsense"))
    assert "nonsense" in str(caught.value)
