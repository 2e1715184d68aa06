import io

import cv2
import numpy as np
import pytest
from PIL import Image

from vps_jax import datasets
from vps_jax.data import records
from vps_jax.types import UserError

N = 3  # rows of the instance table
VIPSEG = datasets.label_code("vipseg")


def test_vipseg_values():
    table = datasets.label_code("vipseg")
    # wall 0 is stuff, door 2 and person 60 are things (spec: metrics 1.2, 1.3)
    for value, category, instance in [
        (0, -1, False), (1, 0, False), (124, 123, False), (125, -1, False), (200, -1, False), (299, -1, False),
        (300, 2, True), (399, 2, True), (400, -1, False), (6100, 60, True), (6199, 60, True), (6200, 61, True),
        (12499, 123, True), (12500, -1, False), (65535, -1, False),
    ]:  # fmt: skip
        assert (table.classes[value], table.is_instance[value]) == (category, instance), value
    assert table.is_instance.sum() == 58 * 100


def test_vspw_values():
    table = datasets.label_code("vspw")
    assert not table.is_instance.any()
    assert table.classes[[0, 1, 61, 124, 125, 252, 253, 255]].tolist() == [-1, 0, 60, 123, -1, -1, -1, -1]


def test_panoptic_values():
    table = datasets.label_code("panoptic")
    assert table.classes[[0, 255, 256, 257, 511, 512]].tolist() == [-1, -1, 0, 0, 0, 1]
    assert table.is_instance[[256, 257, 511, 512]].tolist() == [False, True, True, False]


def test_ids_by_hand():
    # wall, two persons (the second larger over the clip), the bad value 200, void, and a value out of range
    labels = np.array([[[1, 6100, 6101], [200, 0, 40000]], [[1, 6101, 6101], [61, 0, 6101]]], np.uint16)
    ids, classes, overlaps = records.make_ids(labels, VIPSEG, N)
    assert not overlaps.any()
    wall, person = 1 + N + 0, 1 + N + 60
    assert ids.tolist() == [[[wall, 2, 1], [0, 0, 0]], [[wall, 1, 1], [person, 0, 1]]]
    assert ids.dtype == np.uint16
    assert classes.tolist() == [60, 60, -1] and classes.dtype == np.int32


def test_instances_beyond_the_table_become_pixels_of_their_class():
    labels = np.array([[[300, 300, 300, 6100, 6100, 6101, 6101, 7300]]], np.uint16)
    ids, classes, _ = records.make_ids(labels, VIPSEG, 2)
    # equal areas keep the order of their values: 6100 stays, 6101 is beyond the table, so is class 72
    assert classes.tolist() == [2, 60]
    assert ids.tolist() == [[[1, 1, 1, 2, 2, 3 + 60, 3 + 60, 3 + 72]]]


def test_only_chosen_values_become_instances():
    only = np.zeros(65536, bool)
    only[6101] = True
    ids, classes, _ = records.make_ids(np.array([[[6100, 6100, 6101, 1]]], np.uint16), VIPSEG, 1, only=only)
    assert classes.tolist() == [60] and ids.tolist() == [[[2 + 60, 2 + 60, 1, 2 + 0]]]


def test_overlapping_instances_by_hand():
    # a class of things; values 257, 258, 259 are instances, 512 and up combinations (one class: the first is 512)
    code = datasets.label_code("panoptic", datasets.class_table("davis"))
    combinations = {512: (257, 258), 513: (257, 258, 259), 514: (258, 259)}
    labels = np.array([[[257, 257, 257, 512], [258, 513, 259, 0]]], np.uint16)
    ids, classes, overlaps = records.make_ids(labels, code, 4, combinations=combinations)
    # areas 5, 3, 2 with the shared pixels: rows 0, 1, 2
    assert classes.tolist() == [0, 0, 0, -1]
    assert overlaps.shape == (records.MOST_COMBINATIONS, 4)
    pairs = {tuple(np.flatnonzero(row)): 65535 - j for j, row in enumerate(overlaps) if row.any()}
    assert set(pairs) == {(0, 1), (0, 1, 2)}
    assert ids.tolist() == [[[1, 1, 1, pairs[0, 1]], [2, pairs[0, 1, 2], 3, 0]]]
    assert code.classes[512] == -1 and not code.is_instance[512] and code.known[512]


def test_combinations_shrink_with_the_table():
    code = datasets.label_code("panoptic", datasets.class_table("davis"))
    combinations = {512: (257, 258), 513: (257, 258, 259)}
    labels = np.array([[[257, 257, 258, 258, 512, 513, 259]]], np.uint16)
    only = np.isin(np.arange(65536), (258, 259))
    # 257 is no object of this clip: its pixels have the class alone, what it shares belongs to the others
    ids, classes, overlaps = records.make_ids(labels, code, 2, only=only, combinations=combinations)
    assert classes.tolist() == [0, 0]
    assert ids.tolist() == [[[3, 3, 1, 1, 1, 65535, 2]]] and overlaps[0].tolist() == [True, True]
    ids, classes, overlaps = records.make_ids(labels, code, 1, only=only, combinations=combinations)
    assert ids.tolist() == [[[2, 2, 1, 1, 1, 1, 2]]] and not overlaps.any()


def test_the_same_instances_share_a_combination():
    code = datasets.label_code("panoptic", datasets.class_table("davis"))
    combinations = {512: (257, 258), 513: (257, 258, 259)}
    labels = np.array([[[257, 258, 512, 513]]], np.uint16)
    only = np.isin(np.arange(65536), (257, 258))
    ids, _, overlaps = records.make_ids(labels, code, 2, only=only, combinations=combinations)
    assert ids.tolist() == [[[1, 2, 65535, 65535]]] and overlaps.sum() == 2


def test_combinations_without_room_belong_to_the_smallest_instance():
    code = datasets.label_code("panoptic", datasets.class_table("davis"))
    most = records.MOST_COMBINATIONS
    combinations = {512 + j: (257, 258 + j) for j in range(most + 2)}
    pixels = [257] * 99 + [512 + j for j in range(most + 2) for _ in range(most + 2 - j)]  # fewer and fewer
    ids, classes, overlaps = records.make_ids(np.array([[pixels]], np.uint16), code, 64, combinations=combinations)
    assert (classes >= 0).sum() == most + 3 and overlaps.any(axis=1).all()
    assert ids[0, 0, -3:].tolist() == [most + 2] * 2 + [most + 3]  # the two smallest instances
    assert set(ids[0, 0, 99:-3].tolist()) == {65535 - j for j in range(most)}


def test_a_clip_without_labels_is_void():
    ids, classes, _ = records.make_ids(np.zeros((1, 2, 2), np.uint16), VIPSEG, N)
    assert not ids.any() and (classes == -1).all()


def test_frames_come_back_as_they_lie_on_disk(raw_vipseg, prepared_vipseg):
    for split in ("train", "val", "test"):
        opened = records.open_records(prepared_vipseg, split)
        names = (raw_vipseg / f"{split}.txt").read_text().splitlines()
        assert [v.name for v in opened.videos] == names
        for video in opened.videos[:2]:
            image, labels = records.read_frame(opened, video, 2)
            jpeg = raw_vipseg / "imgs" / video.name / f"{video.stems[2]}.jpg"
            np.testing.assert_array_equal(image, cv2.imread(str(jpeg))[..., ::-1])
            mask = raw_vipseg / "panomasks" / video.name / f"{video.stems[2]}.png"
            expected = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED) if split != "test" else np.zeros(video.size)
            np.testing.assert_array_equal(labels, expected)
            assert image.shape[:2] == video.size


def test_an_image_stays_on_its_stored_raster():
    """The tag says: turn by 90 degrees. The mask would not turn with it."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((2, 5, 3), np.uint8)).save(buffer, "JPEG", exif=exif)
    assert records.decode_image(buffer.getvalue()).shape == (2, 5, 3)


def test_the_table_says_how_many_instances_a_frame_shows(prepared_vipseg):
    opened = records.open_records(prepared_vipseg, "train")
    things = datasets.label_code("vipseg").is_instance
    for video in opened.videos:
        for i, shown in enumerate(video.instances):
            values = np.unique(records.read_frame(opened, video, i)[1])
            assert things[values].sum() == shown


def test_missing_data_and_split_are_named(tmp_path, prepared_vipseg):
    with pytest.raises(UserError, match=r"holds no prepared data set.*data prepare"):
        records.open_records(tmp_path, "train")
    with pytest.raises(UserError, match=r"no split 'dev'; expected one of"):
        records.open_records(prepared_vipseg, "dev")


def test_newest_version_is_taken(tmp_path):
    for version in ("1.0.0", "1.1.0"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "dataset_info.json").write_text("{}")
    assert records.version_folder(tmp_path).name == "1.1.0"
    assert records.version_folder(tmp_path / "1.0.0").name == "1.0.0"


def test_the_folder_carries_its_classes(prepared_vipseg):
    opened = records.open_records(prepared_vipseg, "val")
    assert opened.classes == datasets.class_table("vipseg") and len(opened.classes.names) == 124
    assert opened.labels is VIPSEG


@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "progressive", "grey", "odd size"])
def test_jpegs_have_the_pixels_of_opencv(kind):
    height, width = (37, 61) if kind == "odd size" else (48, 64)
    image = np.random.default_rng(0).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    image = cv2.resize(image, (width, height))
    flags = {
        "4:4:4": [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
        "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    }.get(kind, [])
    data = cv2.imencode(".jpg", image[..., 0] if kind == "grey" else image, flags)[1]
    expected = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    np.testing.assert_array_equal(records.decode_image(data.tobytes()), expected)
