"""What the options of `predict` ask of a checkpoint together."""

import pathlib

import pytest

from vps_jax.runs.predict_files import for_objects, shower
from vps_jax.types import UserError

PNG, JSON = pathlib.Path("first.png"), pathlib.Path("clicks.json")


def test_objects_ask_for_the_task_that_follows_them():
    assert for_objects({"task": None, "short_side": 3}, PNG, None) == {"task": "vos", "short_side": 3}
    assert for_objects({"task": "vos"}, None, JSON) == {"task": "vos"}
    assert for_objects({"task": "instance"}, None, None) == {"task": "instance"}
    assert shower(None, None) is None


@pytest.mark.parametrize(
    ("asked", "masks", "points", "line"),
    [
        ({}, PNG, JSON, "--first-masks first.png and --points clicks.json: objects are given twice"),
        ({"task": "instance"}, PNG, None, "--first-masks first.png: task 'instance' follows no objects"),
    ],
)
def test_options_that_contradict_each_other_are_named(asked, masks, points, line):
    with pytest.raises(UserError, match=line):
        for_objects(asked, masks, points)
