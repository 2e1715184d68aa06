import zlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_builders.vspw import Builder


def test_masks_stay_as_they_are_and_strays_are_reported(tmp_path):
    root = tmp_path / "VSPW_480p"
    mask = np.array([[0, 1, 124, 252], [253, 254, 255, 7]], np.uint8)
    for video, stems, has_mask in (("3_a_-", ("00000001", "00000002"), True), ("4_b", ("00000009",), False)):
        for folder in ("origin", "mask") if has_mask else ("origin",):
            (root / "data" / video / folder).mkdir(parents=True)
        for stem in stems:
            cv2.imwrite(str(root / "data" / video / "origin" / f"{stem}.jpg"), np.zeros((2, 4, 3), np.uint8))
            if has_mask:
                cv2.imwrite(str(root / "data" / video / "mask" / f"{stem}.png"), mask)
    (root / "train.txt").write_text("3_a_-\n")
    (root / "test.txt").write_text("4_b\n")
    builder = Builder(data_dir=str(tmp_path / "out"), file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(root)))
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    assert len(source) == 2 and len(builder.as_data_source("test")) == 1
    for record, stem in zip(source, ("00000001", "00000002"), strict=True):
        label = np.frombuffer(zlib.decompress(record["label"]), "<u2").reshape(2, 4)
        np.testing.assert_array_equal(label, mask)
        assert record["image"] == (root / "data" / "3_a_-" / "origin" / f"{stem}.jpg").read_bytes()
    report = builder.info.metadata["report_train"]
    assert list(report["unknown_values"]) == ["252", "253", "254"]
    assert report["unlabelled_share"] == 2 / 8  # 0 and 255
    assert builder.info.metadata["videos_train"][0]["instances"] == "00"


def test_foreign_folders_are_named(tmp_path):
    builder = Builder(data_dir=str(tmp_path / "out"), file_format="array_record")
    with pytest.raises(ValueError, match="no data; nothing of it is there; expected VSPW"):
        builder.find_videos(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "val.txt").write_text("gone\n")
    with pytest.raises(ValueError, match="no listed video has frames"):
        builder.find_videos(tmp_path)
