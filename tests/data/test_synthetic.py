import json

import cv2
import numpy as np
import pytest

from vps_jax.data import synthetic
from vps_jax.types import UserError


def contents(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_layout_is_the_official_one(raw_vipseg):
    names = {s: (raw_vipseg / f"{s}.txt").read_text().splitlines() for s in ("train", "val", "test")}
    assert [len(v) for v in names.values()] == [8, 2, 1]
    assert (raw_vipseg / "train.txt").read_text().endswith("\n")
    assert {p.name for p in (raw_vipseg / "imgs").iterdir()} == {n for v in names.values() for n in v}
    assert {p.name for p in (raw_vipseg / "panomasks").iterdir()} == {*names["train"], *names["val"]}
    labels = json.loads((raw_vipseg / "label_num_dic_final.json").read_text())
    assert len(labels) == 125 and labels["others"] == "0" and labels["wall"] == "1" and labels["train"] == "124"


def test_frames_have_eight_digit_stems_three_apart_and_16_bit_masks(raw_vipseg):
    video = (raw_vipseg / "train.txt").read_text().splitlines()[0]
    stems = sorted(p.stem for p in (raw_vipseg / "imgs" / video).iterdir())
    assert all(len(s) == 8 for s in stems) and set(np.diff([int(s) for s in stems])) == {3}
    mask = cv2.imread(str(raw_vipseg / "panomasks" / video / f"{stems[0]}.png"), cv2.IMREAD_UNCHANGED)
    image = cv2.imread(str(raw_vipseg / "imgs" / video / f"{stems[0]}.jpg"))
    assert mask.dtype == np.uint16 and mask.ndim == 2 and mask.shape == image.shape[:2]
    assert mask.max() >= 300


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    small = {"train": 2, "val": 1, "test": 1, "sizes": ((32, 48),), "lengths": (4,), "progress": False}
    first, again, other = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for out, seed in ((first, 0), (again, 0), (other, 1)):
        assert synthetic.synthesize(out, seed=seed, **small) == {"videos": 4, "frames": 16}
    assert contents(first) == contents(again)
    assert contents(first) != contents(other)


def test_every_length_meets_every_size():
    planned = list(synthetic.plan({"train": 12}, synthetic.SIZES, synthetic.LENGTHS))
    assert len({(size, length) for _, _, size, length in planned}) == 12


def test_one_training_video_in_sixteen_has_no_instance():
    empty = [n for n in range(32) if not synthetic.make_scene(0, n, "train", (32, 48), 4).things]
    assert empty == [15, 31]
    assert synthetic.make_scene(0, 100_015, "val", (32, 48), 4).things


def test_a_used_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="there already"):
        synthetic.synthesize(tmp_path, train=1, val=0, test=0, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
