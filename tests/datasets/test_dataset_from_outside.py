"""A data set from outside of the package costs one specification and one row: checked, prepared, trained on, found."""

import itertools
import pathlib

import cv2
import numpy as np
import pytest

from vps_jax import datasets
from vps_jax.data import check, pipeline, prepare, records
from vps_jax.datasets import ClassTable, DatasetSpec, Layout, VideoFiles
from vps_jax.datasets.label_files import read_mask
from vps_jax.datasets.labels import panoptic_code
from vps_jax.datasets.spec import LabelMap, frame_files

CLASSES = ClassTable(
    names=("road", "lawn", "sky", "ball", "dog"),
    colors=((90, 90, 90), (0, 200, 0), (80, 80, 255), (255, 0, 0), (255, 255, 0)),
    is_thing=(False, False, False, True, True),
)


def videos(root: pathlib.Path, split: str) -> list[VideoFiles]:
    found = []
    for folder in sorted((root / "pictures" / split).iterdir()):
        images = tuple(frame_files(folder))
        found.append(
            VideoFiles(folder.name, images, tuple(root / "maps" / f"{folder.name}_{i.stem}.png" for i in images))
        )
    return found


SPEC = DatasetSpec(
    name="garden",
    title="Garden",
    classes=CLASSES,
    labels=panoptic_code(CLASSES),
    layouts=(Layout("pictures", ("pictures", "maps"), lambda root: ("train",), videos),),
    read_label=lambda video, index: LabelMap(read_mask(video.masks[index])),
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setitem(datasets.DATASETS, "garden", SPEC)
    root, rng = tmp_path / "root", np.random.default_rng(0)
    (root / "maps").mkdir(parents=True)
    for video in ("a", "b"):
        (root / "pictures" / "train" / video).mkdir(parents=True)
        for frame in range(4):
            image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            cv2.imwrite(str(root / "pictures" / "train" / video / f"{frame}.png"), image)
            values = np.full((64, 64), 256 * 2, np.uint16)  # lawn
            values[10:40, frame : frame + 30] = 256 * 5 + 1  # a dog
            values[:4] = 0
            cv2.imwrite(str(root / "maps" / f"{video}_{frame}.png"), values)
    return root


def test_it_is_known_everywhere(root, tmp_path):
    assert datasets.recognize(root) is SPEC
    report = check.check("garden", root, progress=False)
    assert not report.problems and report.splits[0][:5] == ("train", 2, 8, 8, 2)
    # lambdas cannot be sent to other processes: one process does the work
    prepare.prepare("garden", root, tmp_path / "out", workers=2, progress=False)
    opened = records.open_records(tmp_path / "out" / "garden", "train")
    assert opened.classes == CLASSES
    source = {"path": str(tmp_path / "out" / "garden"), "short_side": 64, "flip": 0.0, "color": None}
    data = {"batch_size": 2, "clip_frames": 2, "max_instances": 3, "num_workers": 0, "sources": {"garden": source}}
    for batch in itertools.islice(pipeline.train_batches(data), 3):
        assert batch.clip.images.shape == (2, 2, 64, 64, 3)
        assert batch.clip.instance_classes.tolist() == [[4, -1, -1]] * 2
        assert set(np.unique(batch.clip.ids)) == {0, 1, 1 + 3 + 1}
    assert [video.name for video in SPEC.predicted(root, "train")] == ["a", "b"]


def test_its_damage_is_named(root, tmp_path):
    cv2.imwrite(str(root / "maps" / "b_2.png"), np.full((64, 64), 7, np.uint16))
    assert check.check("garden", root, progress=False).problems == (
        f"{root / 'maps' / 'b_2.png'}: value 7 on 4096 pixels is no class",
    )
    (root / "maps" / "b_2.png").unlink()
    with pytest.raises(datasets.UserError, match=r"b_2.png: unreadable PNG"):
        prepare.prepare("garden", root, tmp_path / "out", progress=False)
