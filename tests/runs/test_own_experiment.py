"""configs/own.py takes classes, records and truth from a prepared folder; the truth is scored with its own classes."""

import dataclasses
import json
import pathlib

import cv2
import jax
import numpy as np
import own_scenes
import pytest

from configs import own as own_config
from vps_jax import models
from vps_jax.config import Experiment, experiment
from vps_jax.data import own_prepare
from vps_jax.datasets import class_file, class_table, own_folder
from vps_jax.datasets.own import Own
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.media.result_folders import make_writer
from vps_jax.runs import experiment as runs
from vps_jax.runs import own_experiment
from vps_jax.train import handover
from vps_jax.train.checkpoint import restore_for_inference, save_converted
from vps_jax.train.setup import checkpoint_names, group_classes, plan_handover, prepare
from vps_jax.types import PanopticFrame, UserError

ROWS = [
    {"value": 4, "name": "lawn", "like": "grass"},
    {"value": 7, "name": "path"},
    {"value": 9, "name": "dog", "thing": True},
]
CLASSES = class_file.parse({"name": "park", "void": [0], "classes": ROWS}, "classes.yaml")


@pytest.fixture
def folder(tmp_path):
    """Two videos of three frames; the dog is object 5, and one frame of val has no label."""
    labels = np.repeat([[0], [4], [7], [9]], 8, axis=0).repeat(32, axis=1).astype(np.uint8)
    for split in ("train", "val"):
        for frame in range(3):
            files = {"frames": np.zeros((32, 32, 3), np.uint8), "labels": labels, "instances": 5 * (labels == 9)}
            for kind, image in files.items():
                if (split, frame, kind) == ("val", 2, "labels"):
                    continue
                path = tmp_path / "park" / kind / split / "v" / f"{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image.astype(np.uint8))
    own_prepare.prepare(Own(CLASSES), tmp_path / "park", tmp_path / "data", progress=False)
    return tmp_path / "data"


@pytest.mark.parametrize("kind", ["semantic", "panoptic", "image"])
def test_the_folder_fills_the_config(folder, kind):
    config = own_config.get_config(f"{kind},tiny")
    config.own.data = str(folder)
    found = own_experiment.filled(experiment(config.to_dict()))
    runs.check(found)
    runs.check_truth(found.evaluate)
    assert found.model.semantic_groups == (("OWN", 3),)
    assert group_classes(found) == CLASSES.classes  # as the checkpoint carries it
    assert found.evaluate.truth == str(folder / "truth")
    assert own_experiment.filled(found) == found


def test_instances_are_trained_on_the_things_alone(tmp_path):
    drawn = list(own_scenes.drawn({"train": 2, "val": 4}, size=(24, 32), frames=3))
    own_scenes.write_frames(tmp_path / "source", drawn)
    own = own_scenes.as_ytvis(tmp_path / "source", drawn)
    own_prepare.prepare(own, tmp_path / "source", tmp_path / "data", progress=False)
    config = own_config.get_config("instance,tiny")
    config.own.data = str(tmp_path / "data")
    found = own_experiment.filled(experiment(config))
    runs.check(found)
    runs.check_truth(found.evaluate)
    assert found.model.semantic_groups == (("OWN", 2),) and found.class_maps == {"own": (-1, -1, 0, 1, -1)}
    assert group_classes(found).names == ("ball", "automobile") and group_classes(found).ids == (20, 21)
    assert own_experiment.filled(found) == found
    assert (found.infer.task, found.infer.score_threshold, found.train.best_metric) == ("instance", 0.0, "ap")


@pytest.mark.parametrize(
    ("form", "things", "kind", "line"),
    [
        (
            "ytvis",
            1,
            "panoptic",
            "labels of --format ytvis say nothing of stuff, the task is 'panoptic'.*own.py:instance",
        ),
        ("index", 1, "instance", "labels of --format index say classes of all pixels.*semantic, panoptic or image"),
        ("index", 0, "panoptic", "no class is a thing, the task is 'panoptic'; expected thing: true"),
    ],
)
def test_labels_that_do_not_fit_the_kind_are_refused(tmp_path, form, things, kind, line):
    rows = [{"value": 4, "name": "lawn"}, {"value": 9, "name": "dog", "thing": bool(things)}]
    own = Own(class_file.parse(rows, pathlib.Path("classes.yaml")), form=form)
    own_folder.write(tmp_path / "truth", own, tmp_path)
    (tmp_path / "classes.yaml").write_text(json.dumps(own.classes.as_mapping()))
    config = own_config.get_config(f"{kind},tiny")
    config.own.data = str(tmp_path)
    with pytest.raises(UserError, match=line):
        own_experiment.filled(experiment(config))


def published(config: Experiment, group: str, folder) -> None:
    """Converted weights of the config's model with VIPSeg's 124 classes, where row i of a class layer is i."""
    model = dataclasses.replace(config.model, semantic_groups=((group, 124),))
    infer = dataclasses.replace(config.infer, semantic_group=group)
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes(model))
    if model.name == "tarvis":
        variables["params"]["queries"]["semantic"] += np.arange(125.0)[:, None]
    else:
        variables["params"]["heads"]["cls_embed"]["bias"] += np.arange(125.0)
    save_converted(folder, dataclasses.replace(config, model=model, infer=infer), variables)


def shapes(model) -> dict:
    return models.shapes(models.build(model))


@pytest.mark.parametrize(("kind", "group"), [("semantic", "VIPSEG"), ("image", "VSPW")])
def test_classes_start_from_a_published_model_by_name_and_like(folder, tmp_path, kind, group):
    config = own_config.get_config(f"{kind},tiny")
    config.own.data = str(folder)
    published(experiment(config), group, tmp_path / "published")
    config.init_from.path, config.init_from.by_name = str(tmp_path / "published"), True
    found = own_experiment.filled(experiment(config))
    assert found.init_from.like == (("lawn", "grass"),)
    new = shapes(found.model)
    plan = plan_handover(found, new)
    assert handover.describe(plan)[1:] == [
        "2 of 3 classes by name (path, dog), 1 by like, fresh: none", "by like: lawn from grass",
    ]  # fmt: skip
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), new)
    params = handover.hand_over(plan, restore_for_inference(tmp_path / "published")[1], zeros)["params"]
    names = class_table("vipseg").names
    rows = [names.index(name) for name in ("grass", "path", "dog")]
    if kind == "image":
        np.testing.assert_array_equal(params["heads"]["cls_embed"]["bias"], [*(0.5 + c for c in rows), 124.5])
    else:
        semantic = params["queries"]["semantic"]
        np.testing.assert_array_equal(semantic[:, 0], [0.5, *(1.5 + c for c in rows)])


def test_an_unknown_like_and_a_class_list_of_another_length_end_before_anything_is_computed(folder, tmp_path):
    config = own_config.get_config("semantic,tiny")
    config.own.data, config.train.batch_size = str(folder), 8  # of eight virtual devices
    published(experiment(config), "VIPSEG", tmp_path / "published")
    config.init_from.path, config.init_from.by_name = str(tmp_path / "published"), True
    (folder / "classes.yaml").write_text((folder / "classes.yaml").read_text().replace("like: grass", "like: gras"))
    with pytest.raises(UserError, match="class 'lawn' is to start like 'gras'.*near are grass"):
        prepare(own_experiment.filled(experiment(config)), tmp_path / "run")
    with pytest.raises(UserError, match="does not say the names of its 1 classes of OWN, its class list has 124"):
        checkpoint_names(str(tmp_path / "published"), experiment(config))


def test_a_folder_that_is_none_is_refused(tmp_path):
    config = own_config.get_config()
    for value, words in (("", "own.data is empty"), (str(tmp_path), "own.json is not there")):
        config.own.data = value
        with pytest.raises(UserError, match=words):
            own_experiment.filled(experiment(config.to_dict()))


def test_results_are_scored_with_the_classes_of_the_folder(folder, tmp_path):
    writer = make_writer(tmp_path / "out", str(folder / "truth"), CLASSES.classes)
    category = np.repeat([[0], [0], [1], [2]], 8, axis=0).repeat(32, axis=1).astype(np.uint8)
    with writer.video("v") as result:
        for frame in range(3):
            result.write(PanopticFrame(str(frame), category, np.where(category == 2, 3, 0).astype(np.int32)))
    scores = evaluate_folders(
        folder / "truth", tmp_path / "out", split="val", metrics="vpq,miou", windows=(1, 2), processes=1
    )
    assert scores["vpq"]["vpq"]["all"] == 100 and scores["miou"]["miou"] == 100  # void does not count


def test_a_missing_split_is_told_with_the_one_that_is_there(folder):
    for kind in ("frames", "labels", "instances"):
        (folder.parent / "park" / kind / "val").rename(folder.parent / f"val_{kind}")
    config = own_config.get_config("semantic,tiny")
    config.own.data = str(folder)
    found = own_experiment.filled(experiment(config.to_dict()))
    with pytest.raises(UserError, match="split 'val'; set --config.evaluate.split=train, or add the split"):
        runs.check_truth(found.evaluate)
