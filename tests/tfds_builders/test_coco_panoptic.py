import json
import zlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_builders import frames
from tfds_builders.coco_panoptic import Builder
from vps_jax.datasets import class_table, panoptic_json

CATEGORIES = [
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 90, "name": "toothbrush", "isthing": 1},
    {"id": 200, "name": "rug-merged", "isthing": 0},
]
# two toothbrushes (one a crowd), a rug, a person; ids that need all three bytes; 77 is in the PNG but not in the json
IDS = np.array([[0, 5, 5, 70000], [70000, 16_000_000, 300, 77]])
SEGMENTS = [
    {"id": 300, "category_id": 90, "iscrowd": 1},
    {"id": 5, "category_id": 200, "iscrowd": 0},
    {"id": 70000, "category_id": 90, "iscrowd": 0},
    {"id": 16_000_000, "category_id": 1, "iscrowd": 0},
]


@pytest.fixture
def root(tmp_path):
    root, masks = tmp_path / "coco", tmp_path / "coco" / "annotations" / "panoptic_train2017"
    (root / "train2017").mkdir(parents=True)
    masks.mkdir(parents=True)
    rgb = np.stack([IDS & 255, IDS >> 8 & 255, IDS >> 16], axis=-1).astype(np.uint8)
    for stem in ("000000000042", "000000000007"):
        cv2.imwrite(str(root / "train2017" / f"{stem}.jpg"), np.zeros((2, 4, 3), np.uint8))
        cv2.imwrite(str(masks / f"{stem}.png"), rgb[..., ::-1])
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 4, "height": 2} for i in (42, 7, 99)]
    annotations = [
        {"image_id": i, "file_name": f"{i:012d}.png", "segments_info": SEGMENTS if i == 42 else []} for i in (42, 7, 99)
    ]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "annotations" / "panoptic_train2017.json").write_text(json.dumps(content))
    return root


def test_ids_become_class_and_instance(root, tmp_path):
    builder = Builder(data_dir=str(tmp_path / "out"), file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(root)))
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    assert [r["video_id"] for r in source] == [b"000000000042", b"000000000007"]  # the json's order
    label = np.frombuffer(zlib.decompress(source[0]["label"]), "<u2").reshape(2, 4)
    # classes by their official ids, whatever the order in the json
    rug, second, first, person = 133 * 256, 80 * 256 + 2, 80 * 256 + 1, 256 + 1
    assert label.tolist() == [[0, rug, rug, second], [second, person, first, 0]]
    assert not any(zlib.decompress(source[1]["label"]))  # no segments: void
    metadata = builder.info.metadata
    assert metadata["classes"] == class_table("coco_panoptic").rows() and metadata["label_code"] == "panoptic"
    assert [row["instances"] for row in metadata["videos_train"]] == ["3", "0"]


def test_more_instances_than_the_code_has_room_for():
    rows = [{"id": i + 1, "category_id": 1} for i in range(300)]
    segments = panoptic_json.read_segments(rows, class_table("coco_panoptic"), None, "x.json")
    assert segments.ids == tuple(range(301))
    assert segments.values[:3] == (0, 257, 258) and segments.values[255] == 256 + 255
    assert set(segments.values[256:]) == {256}
    assert segments.findings == (("objects beyond 255 of their class", 45),)


def test_wrong_files_are_named(root, tmp_path):
    builder = Builder(data_dir=str(tmp_path / "out"), file_format="array_record")
    with pytest.raises(ValueError, match="no annotations/panoptic_train2017.json"):
        builder.find_videos(tmp_path / "nothing")
    video = builder.find_videos(root)["train"][0]
    cv2.imwrite(str(video.masks[0]), np.zeros((2, 4), np.uint8))
    with pytest.raises(frames.BadFrame, match="single-channel PNG; expected RGB"):
        builder.SPEC.read_label(video, 0)
    for image in (root / "train2017").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match="no listed video has frames"):
        builder.find_videos(root)
