"""A tiny official layout prepared and read back byte for byte, without tensorflow."""

import pathlib
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_builders import frames
from tfds_builders.vipseg import Builder
from vps_jax import datasets
from vps_jax.types import UserError

VIDEO = "12_-ab_Cd-9xYz"  # ids may hold _ and -


def write_frame(root, video, stem, mask, images="imgs"):
    """One JPEG and, unless `mask` is None, one PNG."""
    (root / images / video).mkdir(parents=True, exist_ok=True)
    shape = mask.shape if mask is not None else (6, 10)
    noise = np.random.default_rng(int(stem)).integers(0, 256, (*shape, 3), dtype=np.uint8)
    cv2.imwrite(str(root / images / video / f"{stem}.jpg"), noise)
    if mask is not None:
        (root / "panomasks" / video).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "panomasks" / video / f"{stem}.png"), mask)


def mask_of(*values):
    return np.resize(np.array(values, np.uint16), (6, 10))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "VIPSeg"
    write_frame(root, VIDEO, "00000392", mask_of(0, 1, 200, 6100))
    write_frame(root, VIDEO, "00000395", mask_of(1))
    write_frame(root, VIDEO, "00000398", None)  # an image whose mask is missing
    write_frame(root, "7_other", "00000010", mask_of(12404, 12405))
    write_frame(root, "9_test", "00000001", None)
    for split, names in {"train": [VIDEO, "99_gone"], "val": ["7_other"], "test": ["9_test"]}.items():
        (root / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))
    (root / "imgs" / VIDEO / ".DS_Store").write_bytes(b"rubbish")
    return root


def prepare(root, out, **options):
    builder = Builder(data_dir=str(out), file_format="array_record")
    for name, value in options.items():
        setattr(builder, name, value)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(root)))
    return builder


def read(out, split):
    builder = tfds.builder_from_directory(str(out / "vipseg" / "1.0.0"))
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def test_images_come_back_byte_for_byte_and_labels_value_for_value(root, tmp_path):
    prepare(root, tmp_path / "out")
    records = [r for split in ("train", "val", "test") for r in read(tmp_path / "out", split)]
    assert [(r["video_id"].decode(), r["stem"].decode()) for r in records] == [
        (VIDEO, "00000392"), (VIDEO, "00000395"), ("7_other", "00000010"), ("9_test", "00000001"),
    ]  # fmt: skip
    for record in records:
        video, stem = record["video_id"].decode(), record["stem"].decode()
        assert record["image"] == (root / "imgs" / video / f"{stem}.jpg").read_bytes()
        mask = cv2.imread(str(root / "panomasks" / video / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        if mask is None:
            assert record["label"] == b""
        else:
            label = np.frombuffer(zlib.decompress(record["label"]), "<u2")
            np.testing.assert_array_equal(label.reshape(record["height"], record["width"]), mask)


def test_table_and_report(root, tmp_path):
    metadata = prepare(root, tmp_path / "out").info.metadata
    assert (metadata["dataset"], metadata["label_code"]) == ("vipseg", "vipseg")
    assert datasets.from_rows(metadata["classes"]) == datasets.class_table("vipseg")
    assert metadata["videos_train"] == [
        {"id": VIDEO, "stems": ["00000392", "00000395"], "height": 6, "width": 10, "first": 0, "instances": "10"}
    ]
    assert metadata["videos_val"][0]["instances"] == "2"
    report = metadata["report_train"]
    assert (report["videos"], report["frames"], report["videos_with_instances"]) == (1, 2, 1)
    assert report["sizes"] == {"10x6": 1} and report["images_without_mask"] == 1
    assert report["videos_without_frames"] == ["99_gone"]
    assert report["unlabelled_share"] == 15 / 120
    assert report["unknown_values"] == {"200": {"pixels": 15, "first_seen": f"{VIDEO}/00000392"}}
    assert metadata["report_test"]["unlabelled_share"] is None


def test_the_converted_layout_is_read_too(root, tmp_path):
    (root / "imgs").rename(root / "images")
    prepare(root, tmp_path / "out")
    assert len(read(tmp_path / "out", "train")) == 2


def test_truncated_jpeg_stops_or_is_left_out(root, tmp_path):
    bad = root / "imgs" / VIDEO / "00000395.jpg"
    bad.write_bytes(bad.read_bytes()[:-20])
    with pytest.raises(frames.BadFrame, match="00000395.jpg: truncated JPEG"):
        prepare(root, tmp_path / "strict")
    metadata = prepare(root, tmp_path / "out", skip_bad=True).info.metadata
    assert metadata["videos_train"][0]["stems"] == ["00000392"]
    assert "truncated" in metadata["report_train"]["bad_frames"][0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda image, mask: image.write_bytes(b""), "expected a JPEG"),
        (lambda image, mask: image.write_bytes(b"GIF89a" * 9), "expected a JPEG, PNG or WebP image"),
        (lambda image, mask: mask.write_bytes(b""), "unreadable PNG"),
        (lambda image, mask: cv2.imwrite(str(mask), np.zeros((6, 10, 3), np.uint8)), "single-channel"),
        (lambda image, mask: cv2.imwrite(str(mask), np.zeros((6, 9), np.uint16)), "its mask is 9x6, expected"),
    ],
)  # fmt: skip
def test_broken_frames_are_named(root, damage, message):
    image, mask = root / "imgs" / VIDEO / "00000392.jpg", root / "panomasks" / VIDEO / "00000392.png"
    damage(image, mask)
    builder = Builder(data_dir=str(root / "out"), file_format="array_record")
    video = builder.find_videos(root)["train"][0]
    with pytest.raises(frames.BadFrame, match=message):
        frames.read_frame(image, builder.SPEC.read_label(video, 0))


@pytest.mark.parametrize("quality", [5, 95])
@pytest.mark.parametrize("size", [(1, 1), (300, 17)])
def test_jpeg_size_reads_the_header(size, quality):
    data = cv2.imencode(".jpg", np.zeros((*size, 3), np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    assert frames.jpeg_size(data, pathlib.Path("x.jpg")) == size
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = cv2.imencode(".jpg", np.zeros((*size, 3), np.uint8), progressive)[1].tobytes()
    assert frames.jpeg_size(data, pathlib.Path("x.jpg")) == size


def test_foreign_folders_are_named(tmp_path):
    builder = Builder(data_dir=str(tmp_path / "out"), file_format="array_record")
    with pytest.raises(UserError, match="no imgs; nothing of it is there"):
        builder.find_videos(tmp_path)
    (tmp_path / "imgs").mkdir()
    with pytest.raises(UserError, match="no train.txt or val.txt or test.txt; its layout 'raw' is there in part"):
        builder.find_videos(tmp_path)
    (tmp_path / "train.txt").write_text("1_gone\n")
    with pytest.raises(ValueError, match="no listed video has frames"):
        builder.find_videos(tmp_path)


def test_preparing_and_reading_never_load_tensorflow(root, tmp_path):
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        "from tfds_builders.vipseg import Builder\n"
        f"b = Builder(data_dir={str(tmp_path / 'out')!r}, file_format='array_record')\n"
        f"b.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir={str(root)!r}))\n"
        f"tfds.builder_from_directory({str(tmp_path / 'out/vipseg/1.0.0')!r}).as_data_source('train')[0]\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_png_frames_are_kept_as_they_are(root, tmp_path):
    for path in list((root / "imgs").rglob("*.jpg")):
        cv2.imwrite(str(path.with_suffix(".png")), cv2.imread(str(path)))
        path.unlink()
    prepare(root, tmp_path / "out")
    records = list(read(tmp_path / "out", "train"))
    assert len(records) == 2
    for record in records:
        stem = record["stem"].decode()
        assert record["image"] == (root / "imgs" / VIDEO / f"{stem}.png").read_bytes()
        assert (record["height"], record["width"]) == (6, 10)
    bad = root / "imgs" / VIDEO / "00000395.png"
    bad.write_bytes(bad.read_bytes()[:-20])
    with pytest.raises(frames.BadFrame, match="00000395.png: truncated PNG"):
        prepare(root, tmp_path / "strict")


def test_frames_of_another_size_are_refused(root, tmp_path):
    write_frame(root, VIDEO, "00000395", np.ones((5, 10), np.uint16))
    with pytest.raises(frames.BadFrame, match="00000395.jpg: image is 10x5, expected 10x6 as the frames before"):
        prepare(root, tmp_path / "strict")
    metadata = prepare(root, tmp_path / "out", skip_bad=True).info.metadata
    assert metadata["videos_train"][0]["stems"] == ["00000392"] and len(metadata["report_train"]["bad_frames"]) == 1
