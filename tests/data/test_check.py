import shutil

import cv2
import numpy as np
import pytest

from vps_jax.data import check
from vps_jax.types import UserError


@pytest.fixture
def source(raw_vipseg, tmp_path):
    shutil.copytree(raw_vipseg, tmp_path / "raw")
    return tmp_path / "raw"


def problems(source):
    return check.check("vipseg", source, progress=False).problems


def test_a_sound_folder_has_no_problem(raw_vipseg):
    report = check.check("vipseg", raw_vipseg, progress=False)
    assert report == (11, len(list((raw_vipseg / "imgs").rglob("*.jpg"))), ())


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


def test_lists_are_compared_with_folders(source):
    train = (source / "train.txt").read_text().split()
    (source / "train.txt").write_text("\n".join([*train[1:], "1_gone", "1_gone"]) + "\n")
    (source / "val.txt").unlink()
    found = problems(source)
    assert f"{train[0]}: in no split list" in found
    assert "1_gone: listed in train.txt, but there is no such folder" in found
    assert "1_gone: listed in train.txt and in train.txt" in found
    assert f"{source / 'val.txt'}: the split list is missing" in found


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(UserError, match="'coco' cannot be checked"):
        check.check("coco", tmp_path, progress=False)
    with pytest.raises(UserError, match="has no folder imgs or images"):
        check.check("vipseg", tmp_path, progress=False)
