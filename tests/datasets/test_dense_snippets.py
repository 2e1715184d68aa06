"""Cityscapes-VPS with all frames of its snippets: read for inference, every fifth a result."""

import json

import cv2
import numpy as np
import pytest

from vps_jax import datasets
from vps_jax.media.dataset_roots import open_root
from vps_jax.types import UserError

SPEC = datasets.dataset("cityscapes_vps")
CITY = "frankfurt_000000_{:06d}"


@pytest.fixture
def root(tmp_path):
    """One snippet of ten frames, 5 and 10 labelled, in which a pixel says the number of the frame."""
    rows = []
    for frame in range(1, 11):
        image, name = np.full((4, 8, 3), frame, np.uint8), CITY.format(frame)
        files = [tmp_path / "val" / "img_all" / f"{name}_leftImg8bit.png"]
        if frame % 5 == 0:
            files.append(tmp_path / "val" / "img" / f"0015_{84 + frame // 5:04d}_{name}_newImg8bit.png")
            for part, end in (("cls", "final_mask"), ("inst", "original_image_instance_greyscale")):
                files.append(tmp_path / "val" / part / f"0015_{84 + frame // 5:04d}_{name}_{end}.png")
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), image)
        rows.append({"id": 150_000 + frame, "file_name": f"{name}_leftImg8bit.png"})
    (tmp_path / "im_all_info_val_city_vps.json").write_text(json.dumps({"images": rows[::-1]}))
    return tmp_path


def test_all_frames_are_read_and_the_labelled_ones_are_results(root):
    (video,) = open_root(SPEC, root, split="val")
    assert (video.video_id, video.num_frames) == ("0015", 10)
    assert video.fps == pytest.approx(17)
    assert [frame.image[0, 0, 0] for frame in video.frames()] == list(range(1, 11))
    assert video.stems[3] == "frankfurt_000000_000004_leftImg8bit"
    names = ["0015_0085_frankfurt_000000_000005_newImg8bit", "0015_0086_frankfurt_000000_000010_newImg8bit"]
    assert [video.stems[4], video.stems[9]] == names and video.results == frozenset(names)


def test_without_the_list_the_labelled_frames_are_all(root):
    (root / "im_all_info_val_city_vps.json").unlink()
    (video,) = open_root(SPEC, root, split="val")
    assert (video.num_frames, video.results, video.fps) == (2, None, SPEC.fps)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([{"id": 150_005, "file_name": "a.png"}], "snippet 0015 has 1 frames of number 5, 10, ...; expected the 2"),
        ([{"id": "0015_x", "file_name": "a.png"}], "image id '0015_x'; expected snippet"),
    ],
)
def test_lists_that_do_not_fit_are_named(root, rows, line):
    (root / "im_all_info_val_city_vps.json").write_text(json.dumps({"images": rows}))
    with pytest.raises(UserError, match=f"im_all_info_val_city_vps.json: {line}"):
        SPEC.predicted(root, "val")
