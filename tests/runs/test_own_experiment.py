"""configs/own.py takes classes, records and truth from a prepared folder; the truth is scored with its own classes."""

import cv2
import numpy as np
import pytest

from configs import own as own_config
from vps_jax.config import experiment
from vps_jax.data import own_prepare
from vps_jax.datasets import class_file
from vps_jax.datasets.own import Own
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.media.result_folders import make_writer
from vps_jax.runs import experiment as runs
from vps_jax.runs import own_experiment
from vps_jax.train.setup import group_classes
from vps_jax.types import PanopticFrame, UserError

ROWS = [{"value": 4, "name": "lawn"}, {"value": 7, "name": "path"}, {"value": 9, "name": "dog", "thing": True}]
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


@pytest.mark.parametrize("kind", own_config.KINDS)
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
