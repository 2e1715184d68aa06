"""Truth that a data set's specification reads from its masks."""

import dataclasses

import cv2
import numpy as np
import pytest

from vps_jax import datasets
from vps_jax.datasets.labels import PANOPTIC, panoptic_value
from vps_jax.datasets.spec import LabelMap
from vps_jax.evaluation import mask_folders
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.media.result_folders import make_writer
from vps_jax.types import PanopticFrame, UserError

CLASSES = datasets.ClassTable(("sky", "cup"), ((9, 9, 9), (200, 0, 0)), (False, True), ids=(3, 7))
CUP = panoptic_value(1, 5)


def videos(root, split):
    images = tuple(sorted((root / split).glob("*.png")))
    # the last frame has no mask
    return [datasets.VideoFiles("v", images, (*images[:-1], None))]


def read_label(video, index):
    mask = cv2.imread(str(video.masks[index]), cv2.IMREAD_UNCHANGED)
    combinations = ((CUP, CUP + 1),) if (mask == 9).any() else ()
    return LabelMap(np.choose(np.minimum(mask, 2), (0, panoptic_value(0, 0), CUP)).astype(np.uint16), combinations)


LAYOUT = datasets.Layout("cups", ("cups.txt", "val"), lambda root: ("val",), videos, truth="{split}")
SPEC = datasets.DatasetSpec(
    "cups", "Cups", CLASSES, PANOPTIC, (LAYOUT,), read_label, truth="vps_jax.evaluation.mask_folders"
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two frames with masks, void above, sky, and a cup; one frame without a mask; the perfect results."""
    monkeypatch.setitem(datasets.DATASETS, "cups", SPEC)
    (tmp_path / "truth" / "val").mkdir(parents=True)
    (tmp_path / "truth" / "cups.txt").touch()
    mask = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 2, 2, 1]], np.uint8)
    writer = make_writer(tmp_path / "results", "vipseg", CLASSES)
    with writer.video("v") as result:
        for stem in "012":
            cv2.imwrite(str(tmp_path / "truth" / "val" / f"{stem}.png"), mask)
            result.write(PanopticFrame(stem, np.where(mask == 2, 1, 0).astype(np.uint8), np.int32(4) * (mask == 2)))
    return tmp_path


def score(root):
    result = evaluate_folders(
        root / "truth", root / "results", split="val", metrics="vpq,miou", windows=(1, 2), processes=1
    )
    return result["vpq"]["vpq"]["all"], result["miou"]["miou"]


def test_frames_with_masks_are_scored_by_official_ids(root):
    assert score(root) == (100, 100)


def test_a_missed_cup_costs_its_class(root):
    writer = make_writer(root / "results", "vipseg", CLASSES)
    with writer.video("v") as result:
        for stem in "012":
            result.write(PanopticFrame(stem, np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.int32)))
    vpq, miou = score(root)
    assert vpq == 37.5  # the cup is missed; sky matches with an IoU of 6 / 8
    assert miou == pytest.approx(100 * (6 / 8) / 2)


@pytest.mark.parametrize(
    ("mask", "line"), [(np.full((3, 4), 9, np.uint8), "masks overlap"), (np.ones((3, 5), np.uint8), "size is 5x3")]
)
def test_masks_that_cannot_be_scored_are_named(root, mask, line):
    cv2.imwrite(str(root / "truth" / "val" / "1.png"), mask)
    with pytest.raises(UserError, match=line):
        score(root)


def test_a_video_without_masks_is_named(root, monkeypatch):
    blind = dataclasses.replace(
        LAYOUT, videos=lambda root, split: [v._replace(masks=None) for v in videos(root, split)]
    )
    monkeypatch.setitem(datasets.DATASETS, "cups", dataclasses.replace(SPEC, layouts=(blind,)))
    with pytest.raises(UserError, match="no frame of video v has a mask"):
        score(root)


def test_objects_of_a_class_are_apart_and_its_other_pixels_are_one():
    labels = np.array([[0, panoptic_value(0, 0), CUP, CUP + 1, panoptic_value(1, 0)]], np.uint16)
    frame = mask_folders.segments(labels, PANOPTIC, CLASSES)
    assert frame.segments.categories.tolist() == [3, 7, 7, 7]
    assert len(set(frame.pixels[0].tolist())) == 5 and frame.pixels[0, 0] == 0
