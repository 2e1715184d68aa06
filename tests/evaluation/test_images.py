import cv2
import numpy as np
import pytest

from vps_jax.evaluation.images import read_png
from vps_jax.types import UserError


def test_pixels_come_as_written_in_the_order_blue_green_red(tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    np.testing.assert_array_equal(read_png(tmp_path / "a.png", kind="RGB"), pixels)
    cv2.imwrite(str(tmp_path / "b.png"), pixels[..., 0])
    np.testing.assert_array_equal(read_png(tmp_path / "b.png", kind="grey"), pixels[..., 0])


def test_a_folder_or_a_missing_file_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "nosuch.png"):
        with pytest.raises(UserError, match=f"{path}: .*8-bit RGB PNG"):
            read_png(path, kind="RGB")


def test_another_kind_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(UserError, match="8-bit RGB PNG; expected an 8-bit grey PNG"):
        read_png(tmp_path / "a.png", kind="grey")


def test_another_size_is_named_before_memory_is_taken(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 3, 3), np.uint8))
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = (10**6).to_bytes(4, "big") * 2  # three terabytes
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UserError, match="size is 1000000x1000000; expected 3x2 as the truth has"):
        read_png(tmp_path / "a.png", kind="RGB", size=(2, 3))


def test_another_depth_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 2, 3), np.uint16))
    with pytest.raises(UserError, match="16-bit RGB PNG; expected an 8-bit RGB PNG"):
        read_png(tmp_path / "a.png", kind="RGB")


def test_a_file_without_its_end_is_refused(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((40, 40, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-12])  # all pixels are there, the end mark is not
    with pytest.raises(UserError, match="cut off"):
        read_png(path, kind="RGB")


def test_damaged_data_with_a_good_head_and_tail_is_refused(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[33:41] = bytes(8)  # the head of the pixel data
    path.write_bytes(data)
    with pytest.raises(UserError, match="broken"):
        read_png(path, kind="RGB")
