import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vps_jax import datasets
from vps_jax.cli import app
from vps_jax.data import check, prepare, synthetic
from vps_jax.types import UserError


@pytest.fixture
def source(raw_vipseg, tmp_path):
    shutil.copytree(raw_vipseg, tmp_path / "raw")
    return tmp_path / "raw"


def problems(source):
    return check.check("vipseg", source, progress=False).problems


def test_a_sound_folder_has_no_problem(raw_vipseg):
    report = check.check("vipseg", raw_vipseg, progress=False)
    assert (report.videos, report.problems) == (11, ())
    assert report.frames == len(list((raw_vipseg / "imgs").rglob("*.jpg")))
    train, val, test = report.splits
    assert train[:5] == ("train", 8, 40, 40, 8) and test[:5] == ("test", 1, 4, 0, 0)
    assert train.sizes == {"72x40": 4, "64x48": 4} and train.objects > 20 and val.short_videos == 0
    lines = check.table(report)
    assert lines[0] == "layout: raw" and lines[1].split()[:4] == ["split", "videos", "frames", "labelled"]
    assert lines[2].split()[:4] == ["train", "8", "40", "40"] and "72x40 (4), 64x48 (4)" in lines[2]
    assert json.loads(json.dumps(report.as_json()))["splits"][0]["frames"] == 40


def test_damage_is_found(source):
    masks = sorted((source / "panomasks").rglob("*.png"))
    image = source / "imgs" / masks[0].parent.name / f"{masks[0].stem}.jpg"
    image.write_bytes(image.read_bytes()[:-300])
    stray = cv2.imread(str(masks[1]), cv2.IMREAD_UNCHANGED)
    stray[:2, :3] = 200
    cv2.imwrite(str(masks[1]), stray)
    cv2.imwrite(str(masks[2]), np.zeros((3, 5), np.uint16))
    cv2.imwrite(str(masks[3]), np.zeros((*stray.shape, 3), np.uint8))
    masks[4].unlink()
    (source / "imgs" / masks[5].parent.name / f"{masks[5].stem}.jpg").unlink()
    masks[6].write_bytes(b"no png")
    found = problems(source)
    for text in (
        f"{image}: unreadable image (", f"{masks[1]}: value 200 on 6 pixels is no class", f"{masks[2]}: mask is 5x3",
        f"{masks[3]}: 3 channels", ": image without a mask", f"{masks[5]}: mask without an image",
        f"{masks[6]}: unreadable PNG (",
    ):  # fmt: skip
        assert sum(text in line for line in found) == 1, (text, found)
    assert len(found) == 7


def test_labels_that_are_void_alone_are_told(source, tmp_path):
    """In val by `check`, and by `prepare` with the split."""
    for name in (source / "val.txt").read_text().split():
        for mask in (source / "panomasks" / name).glob("*.png"):
            cv2.imwrite(str(mask), np.zeros_like(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)))
    assert problems(source) == (f"val: {check.ALL_VOID}",)
    report = prepare.prepare("vipseg", source, tmp_path / "out", progress=False)
    for split in ("train", "val"):
        lines = prepare.describe_report({split: report[split]})
        assert (f"  {check.ALL_VOID}" in lines) == (split == "val")


def test_opencv_says_nothing_of_its_own(source, tmp_path, capfd):
    path = sorted((source / "panomasks").rglob("*.png"))[0]
    path.write_bytes(path.read_bytes()[:60])
    level = cv2.utils.logging
    level.setLogLevel(level.LOG_LEVEL_WARNING)
    assert problems(source) and "WARN" in capfd.readouterr().err  # what it says unless it is told not to
    for given in (
        ("check", "vipseg", "--source", source),
        ("prepare", "vipseg", "--source", source, "--out", tmp_path / "out", "--workers", "1"),
        ("classes", "--labels", path, "--out", tmp_path / "draft.yaml"),
    ):
        level.setLogLevel(level.LOG_LEVEL_WARNING)
        result = CliRunner().invoke(app, ["data", *map(str, given)])
        assert result.exit_code and "WARN" not in capfd.readouterr().err, given


def test_lists_are_compared_with_folders(source):
    train = (source / "train.txt").read_text().split()
    (source / "train.txt").write_text("\n".join([*train[1:], "1_gone", "1_gone"]) + "\n")
    (source / "val.txt").unlink()
    found = problems(source)
    assert f"{train[0]}: in no split list" in found
    assert "1_gone: listed in train, but no image of it is there" in found
    assert "1_gone: listed in train and in train" in found
    assert f"{source / 'val.txt'}: the split list is missing" in found


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(UserError, match="data set 'coco' is unknown"):
        check.check("coco", tmp_path, progress=False)
    with pytest.raises(UserError, match="no imgs; nothing of it is there; expected VIPSeg"):
        check.check("vipseg", tmp_path, progress=False)


@pytest.mark.parametrize("name", list(synthetic.LAYOUTS))
def test_every_data_set_can_be_checked(name, tmp_path):
    sizes = {"sizes": ((40, 72),), "lengths": (4,)}
    synthetic.synthesize(tmp_path / "raw", layout=name, train=2, val=1, test=1, progress=False, **sizes)
    report = check.check(name, tmp_path / "raw", progress=False)
    strays = name == "vspw"  # whose masks hold values that mean nothing, as the real ones do
    assert bool(report.problems) == strays and report.splits[0].videos == 2
    prepared = prepare.prepare(name, tmp_path / "raw", tmp_path / "out", progress=False)
    for split in report.splits:  # the two agree
        found = prepared[split.split]
        assert (split.videos, split.frames) == (found["videos"], found["frames"])
        assert (split.findings, split.sizes) == (found["findings"], found["sizes"])
        assert split.with_objects == found["videos_with_instances"]
    spec = datasets.dataset(name)
    image = spec.videos(tmp_path / "raw", "train")[0].images[0]
    image.write_bytes(image.read_bytes()[:100])
    assert (
        f"{image}: unreadable image (100 bytes, cut off)"
        in check.check(name, tmp_path / "raw", progress=False).problems
    )


def is_image(path):
    return path.suffix == ".jpg" or (
        path.suffix == ".png" and ("img" in path.parts or path.parts[-4:-3] == ("images",))
    )


def test_check_and_prepare_agree_on_palettes_and_things_without_number(source, tmp_path):
    masks = sorted((source / "panomasks" / (source / "train.txt").read_text().split()[0]).iterdir())
    picture = Image.fromarray(np.full(cv2.imread(str(masks[0]), -1).shape, 1, np.uint8))
    picture.putpalette([200, 10, 30] * 256)
    picture.save(masks[0])
    values = cv2.imread(str(masks[1]), -1)
    values[:2, :3] = 3  # the class door without its instance
    cv2.imwrite(str(masks[1]), values)
    assert problems(source) == (f"{masks[1]}: value 3 on 6 pixels is no class",)
    report = prepare.prepare("vipseg", source, tmp_path / "out", progress=False)["train"]
    place = f"{masks[1].parent.name}/{masks[1].stem}"
    assert report["unknown_values"] == {"3": {"pixels": 6, "first_seen": place, "class_only": True}}
    assert f"  unknown label value 3 on 6 pixels (first in {place}): trained as pixels of its class" in (
        prepare.describe_report({"train": report})
    )


@pytest.mark.parametrize("name", ["youtube_vis_2021", "ovis", "burst"])
def test_an_image_that_a_json_lists_and_that_is_not_there_is_named(name, tmp_path):
    sizes = {"sizes": ((40, 72),), "lengths": (4,)}
    synthetic.synthesize(tmp_path, layout=name, train=2, val=1, test=1, progress=False, **sizes)
    image = datasets.dataset(name).videos(tmp_path, "train")[1].images[2]
    image.unlink()
    (line,) = check.check(name, tmp_path, progress=False).problems
    assert line.endswith(f".json: 1 listed images are not there, first {image}")
