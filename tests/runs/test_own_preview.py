"""preview.jpg of prepared own data: every class is shown with its name and colour, objects keep their numbers."""

import cv2
import numpy as np
import own_scenes
import pytest

from vps_jax.data import own_prepare, records
from vps_jax.datasets.labels import panoptic_code
from vps_jax.runs import own_preview
from vps_jax.runs.own_preview import Example
from vps_jax.types import PanopticFrame

CLASSES = own_scenes.CLASSES.classes


def example(title, *classes):
    categories = np.repeat(np.array([classes], np.uint8), 20, axis=0)
    picture = np.zeros((*categories.shape, 3), np.uint8)
    return Example(
        title, picture, PanopticFrame(title, categories, np.zeros(categories.shape, np.int32)), frozenset(classes)
    )


def test_frames_that_show_other_classes_come_first():
    common = [example(f"common {i}", 0, 1) for i in range(20)]
    rare = [example("rare", 0, 4), example("rarer", 1, 2, 3)]
    titles = [one.title for one in own_preview.shown([*common, *rare], 4)]
    assert titles[-2:] == ["rare", "rarer"] and len(titles) == 4 and titles[0].startswith("common")
    assert [one.title for one in own_preview.shown(rare, 12)] == ["rare", "rarer"]


def test_the_legend_says_every_class_with_its_share():
    frames = [example("a", 0, 0, 0, 2), example("b", 0, 0, 1, 255)]
    sizes = sum(np.bincount(one.labels.categories.ravel(), minlength=256) for one in frames)
    lines = [own_preview.entry(c, sizes, CLASSES) for c in range(5)]
    assert lines == [
        "Sky 62.5%", "road 12.5%", "ball 12.5%, a color per object", "automobile not seen, a color per object",
        "waves not seen",
    ]  # fmt: skip
    assert own_preview.entry(0, np.eye(256, dtype=int)[0] + 10_000 * np.eye(256, dtype=int)[1], CLASSES) == (
        "Sky under 0.1%"
    )


def test_objects_have_one_number_in_all_frames_of_a_video():
    code, numbers = panoptic_code(CLASSES), {}
    first = own_preview.frame_of("0", np.array([[0, 256, 769, 1026]], np.uint16), code, numbers)
    second = own_preview.frame_of("1", np.array([[1025, 1026, 769, 512]], np.uint16), code, numbers)
    np.testing.assert_array_equal(first.categories, [[255, 0, 2, 3]])
    np.testing.assert_array_equal(first.track_ids, [[0, 0, 1, 2]])
    np.testing.assert_array_equal(second.track_ids, [[3, 2, 1, 0]])


@pytest.fixture
def folder(tmp_path):
    """Videos of two sizes, prepared."""
    drawn = [
        *own_scenes.drawn({"train": 2}, size=(48, 64), frames=3),
        *own_scenes.drawn({"val": 1}, size=(40, 72), frames=3),
    ]
    own_scenes.write_frames(tmp_path / "source", drawn)
    own = own_scenes.as_index(tmp_path / "source", drawn)
    own_prepare.prepare(own, tmp_path / "source", tmp_path / "out", progress=False)
    return tmp_path / "out"


def test_the_sheet_holds_frames_of_all_sizes_and_the_colours_of_the_classes(folder):
    path = own_preview.write(folder, ("train", "val"))
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB).astype(int)
    assert path == folder / "preview.jpg" and picture.shape[1] == 3 * own_preview.CELL_WIDTH
    legend = picture[-40:]
    for color in CLASSES.colors:  # a swatch of 16 pixels each, but for what JPEG changes
        assert (np.abs(legend - color).max(-1) < 12).sum() > 100
    opened = records.open_records(folder / "records", "train")
    titles = [one.title for one in own_preview.examples_of(opened, 4)]
    assert titles[0] == "train train0/0" and titles[-1] == "train train1/2" and len(titles) == 4


def test_without_a_label_there_is_no_picture(folder, tmp_path):
    (tmp_path / "source" / "frames" / "train").rename(tmp_path / "bare")
    (tmp_path / "again" / "frames").mkdir(parents=True)
    (tmp_path / "bare").rename(tmp_path / "again" / "frames" / "test")
    (tmp_path / "again" / "labels" / "train" / "v").mkdir(parents=True)
    own_scenes.write(tmp_path / "again" / "labels" / "train" / "v" / "0.png", np.zeros((4, 4), np.uint8))
    own = own_scenes.Own(own_scenes.CLASSES)
    report = own_prepare.prepare(own, tmp_path / "again", tmp_path / "none", progress=False)
    assert list(report) == ["test"] and own_preview.write(tmp_path / "none", report) is None
