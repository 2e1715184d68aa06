"""What `vps_jax.load` gives, and what it refuses before anything slow."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

import vps_jax
from vps_jax.runs import segmenter
from vps_jax.types import UserError


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A folder that is taken for a checkpoint, though nothing could be read from it."""
    monkeypatch.setattr("vps_jax.train.checkpoint.find_step", lambda path: path / "checkpoints" / "7")
    return tmp_path / "run"


def test_weights_are_not_read_before_the_first_video(checkpoint):
    assert repr(vps_jax.load(checkpoint)).startswith(f"Segmenter('{checkpoint}/checkpoints/7', weights='ema')")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"weights": "average"}, "weights='average': expected ema or raw"),
        ({"short_side": 0}, "short_side=0: expected a number of pixels above 0"),
    ],
)
def test_wrong_options_are_named(checkpoint, options, line):
    with pytest.raises(UserError, match=line):
        vps_jax.load(checkpoint, **options)


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint"):
        vps_jax.load(tmp_path)


def test_frames_in_memory_are_a_video():
    frames = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    video = segmenter.open_video(frames)
    assert (video.num_frames, video.size(), video.stems) == (2, (4, 6), ("00000000", "00000001"))
    for _ in range(2):  # again and again
        np.testing.assert_array_equal(np.stack([frame.image for frame in video.frames()]), frames)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 4, 6, 3)), np.zeros((4, 6, 3), np.uint8), np.zeros((0, 4, 6, 3), np.uint8)]
)
def test_other_arrays_are_named(wrong):
    with pytest.raises(UserError, match="expected RGB uint8"):
        segmenter.open_video(wrong)


def test_a_folder_of_frames_is_one_video_and_a_root_of_several_is_not(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "imgs" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "imgs" / name / "0.png"), np.zeros((4, 6, 3), np.uint8))
    (tmp_path / "val.txt").write_text("a\nb\n")
    assert segmenter.open_video(tmp_path / "imgs" / "a").num_frames == 1
    with pytest.raises(UserError, match="holds 2 videos; expected one"):
        segmenter.open_video(tmp_path)


def test_import_loads_neither_jax_nor_numpy():
    code = "import sys, vps_jax; print(sorted({'jax', 'numpy', 'cv2'} & set(sys.modules)), vps_jax.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("[] "), done.stdout + done.stderr
    assert set(vps_jax.__all__) <= set(dir(vps_jax))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        vps_jax.lod  # noqa: B018
