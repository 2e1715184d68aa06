import zlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tfds_builders import frames
from tfds_builders.davis import Builder

INDICES = np.array([[0, 1, 2], [255, 2, 1]], np.uint8)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "DAVIS"
    for folder in ("JPEGImages", "Annotations"):
        (root / folder / "480p" / "bear").mkdir(parents=True)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "train.txt").write_text("bear\n")
    for stem in ("00000", "00001"):
        cv2.imwrite(str(root / "JPEGImages" / "480p" / "bear" / f"{stem}.jpg"), np.zeros((2, 3, 3), np.uint8))
        picture = Image.fromarray(INDICES)
        picture.putpalette([200, 10, 30] * 256)  # colours that say nothing
        picture.save(root / "Annotations" / "480p" / "bear" / f"{stem}.png")
    return root


def test_palette_indices_are_objects(root, tmp_path):
    builder = Builder(data_dir=str(tmp_path / "out"), file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(root)))
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    assert [r["stem"] for r in source] == [b"00000", b"00001"]
    label = np.frombuffer(zlib.decompress(source[1]["label"]), "<u2").reshape(2, 3)
    assert label.tolist() == [[0, 257, 258], [0, 258, 257]]
    assert builder.info.metadata["videos_train"][0]["instances"] == "22"
    assert builder.info.metadata["report_train"]["unknown_values"] == {}


def test_wrong_files_are_named(root, tmp_path):
    builder = Builder(data_dir=str(tmp_path / "out"), file_format="array_record")
    with pytest.raises(ValueError, match="no ImageSets/2017/train.txt or ImageSets/2017/val.txt"):
        builder.find_videos(tmp_path)
    video = builder.find_videos(root)["train"][0]
    video.masks[0].write_bytes(b"")
    with pytest.raises(frames.BadFrame, match="unreadable PNG"):
        builder.SPEC.read_label(video, 0)
    cv2.imwrite(str(video.masks[0]), np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(frames.BadFrame, match="3 channels"):
        builder.SPEC.read_label(video, 0)
