"""Every kind of image file and folder that users bring: what is read of it, and the one line about what is not."""

import warnings

import cv2
import numpy as np
import pytest
from media_files import HEIGHT, WIDTH, brightness, picture, read, refused, write_images
from PIL import Image


def test_numbers_in_names_are_ordered_by_value(tmp_path):
    video, frames = read(write_images(tmp_path / "v", [f"{i}.jpg" for i in range(1, 13)]))
    assert video.stems == tuple(map(str, range(1, 13))) and brightness(frames) == list(range(12))


def test_two_files_of_one_stem_are_both_named(tmp_path):
    message = refused(write_images(tmp_path / "labelme", ["000.jpg", "000.png", "001.jpg"]))
    assert "000.jpg and 000.png have one stem" in message


def test_images_of_all_kinds_are_frames(tmp_path):
    names = ["0.webp", "1.jpg", "2.bmp", "3.tif", "4.png", "5.avif", "6.TIFF"]
    _, frames = read(write_images(tmp_path / "mixed", names))
    assert brightness(frames) == list(range(7))


def test_what_is_no_frame_is_named(tmp_path):
    folder = write_images(tmp_path / "v", ["0.jpg"])
    (folder / "poses.csv").write_text("1")
    with pytest.warns(UserWarning, match="1 files are no images and left out, such as poses.csv"):
        read(folder)
    (folder / "1.heic").write_bytes(b"?")
    assert "1.heic is of a kind that is not read" in refused(folder)


def test_hidden_files_and_folders_are_no_frames(tmp_path):
    folder = write_images(tmp_path / "v", ["000.jpg", "001.jpg", ".hidden.jpg", "._000.jpg"])
    (folder / "Thumbs.db").write_bytes(b"?")
    (folder / "dir.jpg").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(folder)[0].stems == ("000", "001")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_images_are_turned_upright_as_a_folder_and_alone(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the right edge is the bottom
    folder = write_images(tmp_path / "v", [f"0.{suffix}"], exif=exif)
    for source in (folder, folder / f"0.{suffix}"):
        _, (frame,) = read(source)
        assert frame.image.shape == (WIDTH, HEIGHT, 3)
        assert np.abs(frame.image.astype(int) - np.rot90(picture(), -1)).mean() < 3


def test_data_sets_are_read_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "imgs").mkdir()
    write_images(tmp_path / "imgs" / "a", ["0.jpg"], exif=exif)
    (tmp_path / "val.txt").write_text("a\n")
    _, (frame,) = read(tmp_path)
    assert frame.image.shape == (HEIGHT, WIDTH, 3)


def test_a_jpeg_with_broken_data_is_refused_by_name(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    for name in ("000.jpg", "001.jpg"):
        cv2.imwrite(str(folder / name), noise)
    data = bytearray((folder / "001.jpg").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    (folder / "001.jpg").write_bytes(data)
    assert "001.jpg: cannot be decoded" in refused(folder)


def test_bytes_behind_an_image_do_no_harm_whatever_they_are(tmp_path):
    folder = write_images(tmp_path / "v", ["0.jpg", "1.png"])
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes() + b"\xff\xda" + bytes(3000))
    assert brightness(read(folder)[1]) == [0, 1]


def test_a_16_bit_image_that_uses_12_bits_is_called_dark(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.full((8, 8), 4000, np.uint16))
    with pytest.warns(UserWarning, match="12 of the 16 bits of its images are used, so they are nearly black"):
        _, (frame,) = read(folder)
    assert frame.image.max() == 4000 >> 8


def test_a_folder_without_frames_is_described(tmp_path):
    (tmp_path / "x" / "images").mkdir(parents=True)
    write_images(tmp_path / "x" / "images" / "v", ["0.jpg"])
    message = refused(tmp_path / "x")
    assert "no images, but images/" in message and "VIPSeg (images and train.txt or val.txt" in message
    assert "OVIS" in message and "annotations_train.json" not in message  # a root of OVIS has nothing of it
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(tmp_path / "empty")


def test_frames_of_two_sizes_name_video_and_sizes(tmp_path):
    folder = write_images(tmp_path / "v", ["0.jpg"])
    Image.fromarray(picture(1, WIDTH, HEIGHT)).save(folder / "1.jpg")
    assert "video v: frame 1 has 48x64 pixels; expected 64x48" in refused(folder)
