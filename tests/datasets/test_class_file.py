"""Class files: what they say, and each mistake refused in one line."""

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from vps_jax.cli import app
from vps_jax.data import class_draft
from vps_jax.datasets import class_file
from vps_jax.types import UserError

STREET = """
name: street
void: [11, 255]
classes:
  - {value: 0, name: sky, color: [128, 128, 128]}
  - {value: 8, name: car, thing: true}
  - {value: 9, name: pedestrian, color: [64, 64, 0], like: person}
"""


@pytest.fixture
def read(tmp_path):
    def reader(text, name="classes.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return class_file.read(path)

    return reader


def test_a_class_file(read):
    found = read(STREET)
    assert (found.name, found.void, found.like) == ("street", (11, 255), (None, None, "person"))
    assert found.classes.names == ("sky", "car", "pedestrian") and found.classes.is_thing == (False, True, False)
    assert found.classes.official_ids == (0, 8, 9)
    assert found.classes.colors[0] == (128, 128, 128) and found.classes.colors[2] == (64, 64, 0)
    assert len({(0, 0, 0), *found.classes.colors}) == 4  # the missing one was chosen
    assert read(json.dumps(found.as_mapping()), "again.json") == found and not found.notes


def test_categories_of_coco_are_read_as_they_are(read):
    rows = [
        {"id": 7, "name": "road", "isthing": 0, "supercategory": "flat", "color": [128, 64, 128]},
        {"id": 26, "name": "car", "isthing": 1, "skeleton": []},
    ]
    for content in (rows, {"images": [], "categories": rows}):
        found = read(json.dumps(content), "panoptic train.json")
        assert found.name == "panoptic_train"
        assert found.classes.official_ids == (7, 26) and found.classes.thing_ids == (1,)


def test_black_and_equal_colours_are_changed_and_said(read):
    found = read("[{value: 0, name: a, color: [0, 0, 0]}, {value: 1, name: b, color: [9, 9, 9]}, "
                 "{value: 2, name: c, color: [9, 9, 9]}]")  # fmt: skip
    assert found.classes.colors[1] == (9, 9, 9) and len({(0, 0, 0), *found.classes.colors}) == 4
    assert [note.split(": ")[1].split("; ")[0] for note in found.notes] == [
        "'a' has black, the colour of nothing", "'c' has the colour of 'b'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no class at all"),
        ("classes: []", "no class at all"),
        ("classes: [sky", "neither YAML nor json"),
        ("[{value: 0, name: sky}, {value: 1, name: Sky}]", r"classes\[0\] and classes\[1\] both have the name 'sky'"),
        ("[{value: 3, name: sky}, {value: 3, name: car}]", r"classes\[0\] and classes\[1\] both have the value 3"),
        ("[{value: 3}]", "name None; expected a text"),
        ("[{value: 3, name: on}]", "name True; expected a text; put it between quotes"),
        ("[{name: sky}]", r"classes\[0\]: value None; expected the whole number"),
        ("[{value: -1, name: sky}]", "value -1"),
        ("[{value: 65536, name: sky}]", "value 65536; expected the whole number, 0 to 65535, that labels show"),
        ('[{value: 0, name: "a\\nb"}]', r"name 'a\\nb'; expected a text in one line"),
        ("{ignore: [255], classes: [{value: 0, name: sky}]}", "unknown key 'ignore'; expected name, void and classes"),
        ("{void: [255], void: [1], classes: [{value: 0, name: sky}]}", "the key 'void' is there twice; expected every"),
        ("[{value: 0, value: 1, name: sky}]", "the key 'value' is there twice"),
        ("[{value: true, name: sky}]", "value True"),
        ("[sky]", r"classes\[0\] is 'sky'"),
        ("[{value: 0, name: sky, colour: [1, 2, 3]}]", "unknown key 'colour'"),
        ("[{value: 0, name: sky, color: [1, 2, 300]}]", r"color \[1, 2, 300\]"),
        ("[{value: 0, name: sky, color: blue}]", "color 'blue'"),
        ("[{value: 0, name: sky, thing: maybe}]", "thing 'maybe'; expected true or false"),
        ("{void: [0], classes: [{value: 0, name: sky}]}", "value 0 is void and a class"),
        ("{void: none, classes: [{value: 0, name: sky}]}", "void is 'none'"),
        ("{name: ../up, classes: [{value: 0, name: sky}]}", "name '../up'"),
        (json.dumps([{"value": i, "name": f"c{i}"} for i in range(300)]), "300 classes; expected at most 254"),
    ],
)
def test_mistakes(read, text, words):
    with pytest.raises(UserError, match=words) as caught:
        read(text)
    assert "\n" not in str(caught.value) and "classes.yaml" in str(caught.value)


def test_a_doubled_key_of_a_json(read):
    with pytest.raises(UserError, match="classes.json: the key 'void' is there twice"):
        read('{"void": [255], "void": [1], "classes": [{"value": 0, "name": "sky"}]}', "classes.json")


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none.yaml: No such file.*data classes"):
        class_file.read(tmp_path / "none.yaml")


def test_a_draft_has_values_shares_and_pictures(tmp_path):
    first, second = np.zeros((10, 10), np.uint16), np.full((10, 10), 255, np.uint16)
    first[:5], second[0, :5] = 4, 26001
    for i, labels in enumerate((first.astype(np.uint8), second)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), labels)
    out = tmp_path / "new" / "classes.yaml"
    command = ["data", "classes", "--labels", str(tmp_path / "*.png"), "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    drafted = class_file.read(out)
    assert drafted.classes.official_ids == (0, 4, 26) and drafted.void == (255,)
    assert drafted.classes.is_thing == (False, False, True)  # 26001 is object 1 of class 26
    assert "25.00% of the pixels" in out.read_text() and "2.50% of the pixels" in out.read_text()
    shown = cv2.imread(str(tmp_path / "new" / "classes_pictures" / "4.png"))
    assert ((shown == 255).all(-1) == (first == 4)).all()
    with pytest.raises(UserError, match="is there already"):
        class_draft.draft(str(tmp_path / "*.png"), out)
    with pytest.raises(UserError, match="fits no file"):
        class_draft.draft(str(tmp_path / "*.jpg"), tmp_path / "x.yaml")
