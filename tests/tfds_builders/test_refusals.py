"""Broken official layouts: every one is refused in one line that names file, entry and value."""

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from vps_jax import datasets
from vps_jax.data import prepare, synthetic
from vps_jax.types import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A function that draws a data set once."""
    folder, done = tmp_path_factory.mktemp("drawn"), set()

    def draw(name):
        if name not in done:
            done.add(name)
            sizes = {"sizes": ((40, 72),), "lengths": (4,)}
            synthetic.synthesize(folder / name, layout=name, train=2, val=1, test=0, progress=False, **sizes)
        return folder / name

    return draw


@pytest.fixture
def copy(drawn, tmp_path):
    """A function that copies a drawn set, to be damaged."""

    def fresh(name):
        shutil.copytree(drawn(name), tmp_path / name)
        return tmp_path / name

    return fresh


def refuse(name, root, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        prepare.prepare(name, root, tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / name / "1.0.0").exists()


def edit(path, change):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


COCO = "annotations/panoptic_train2017.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("annotations"), r"train2017.json: 'annotations' is missing; expected a list of annotations"),
        (lambda c: c.update(images={}), r"'images' is no list"),
        (lambda c: c["images"][1].pop("file_name"), r"images\[1\] has no 'file_name'; expected id, file_name"),
        (lambda c: c["images"].append(c["images"][0]), r"images has two entries with id 1; expected one each"),
        (lambda c: c["annotations"][0].update(image_id=999), r"annotations\[0\] has image_id 999, which no image has"),
        (lambda c: c["annotations"].append(c["annotations"][0]), r"image 1 is annotated twice"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(category_id=999),
         r"image 1: segment 70001 has category 999, which is no official id"),
        (lambda c: c["annotations"][0]["segments_info"].append(c["annotations"][0]["segments_info"][0]),
         r"image 1: segment id 70001 stands in segments_info twice"),
        (lambda c: c["annotations"][0]["segments_info"][0].pop("id"), r"image 1: segment .* lacks id or category_id"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(id=1 << 24), r"segment id 16777216; expected R \+"),
        (lambda c: [row.update(id=row["id"] + 1000) for row in c["categories"]], r"category 1001 is none of the 133"),
        (lambda c: c["images"][0].update(width=71), r"0001.png: mask is 72x40, expected 71x40 as the json says"),
        (lambda c: c["images"][0].update(id=[1]), r"images\[0\]: id is \[1\]; expected a whole number or a text"),
        (lambda c: c["images"][0].update(file_name="../1.jpg"), r"images\[0\]: file_name is '../1.jpg'; expected"),
        (lambda c: c["annotations"][0].update(segments_info=5), r"annotations\[0\]: segments_info is 5; expected"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(category_id=[1]),
         r"image 1: category_id of segment 70001 is \[1\]; expected a whole number or a text"),
    ],
)  # fmt: skip
def test_panoptic_jsons(copy, tmp_path, change, message):
    root = copy("coco_panoptic")
    edit(root / COCO, lambda content: change(content) and None)
    refuse("coco_panoptic", root, message, tmp_path)


def test_a_damaged_json_is_named(copy, tmp_path):
    root = copy("coco_panoptic")
    (root / COCO).write_text((root / COCO).read_text()[:-20])
    refuse("coco_panoptic", root, r"panoptic_train2017.json: not valid json \(.*\); fetch the file again", tmp_path)
    (root / COCO).write_text("[]")
    refuse("coco_panoptic", root, r"panoptic_train2017.json: holds a list; expected an object", tmp_path)


@pytest.mark.parametrize("more", [None, {"id": 12, "name": "street sign"}])
def test_a_json_without_categories_is_enough_and_one_more_does_no_harm(copy, tmp_path, more):
    root = copy("coco_panoptic")
    edit(root / COCO, lambda content: content["categories"].append(more) if more else content.update(categories=None))
    report = prepare.prepare("coco_panoptic", root, tmp_path / "out", progress=False)
    assert report["train"]["videos"] == 2


def test_missing_files_are_counted(copy, tmp_path):
    root = copy("coco_panoptic")
    (root / "annotations" / "panoptic_train2017" / "000000000001.png").unlink()
    (root / "val2017" / "000000100001.jpg").unlink()
    report = prepare.prepare("coco_panoptic", root, tmp_path / "out", progress=False)
    assert report.keys() == {"train"}
    assert report["train"]["images_without_mask"] == 1
    assert report["train"]["videos_without_frames"] == ["000000000001"]
    lines = prepare.describe_report(report)
    assert "  1 images have no mask and were left out" in lines


def test_ids_of_png_and_json_that_differ_are_counted(copy, tmp_path):
    root = copy("coco_panoptic")

    def change(content):
        rows = content["annotations"][0]["segments_info"]
        rows[0]["id"] = 5

    edit(root / COCO, change)
    report = prepare.prepare("coco_panoptic", root, tmp_path / "out", progress=False)
    assert report["train"]["findings"] == {
        "ids in a PNG that its json does not list": 1, "ids in a json that its PNG does not show": 1,
    }  # fmt: skip


def test_packed_masks_are_told_apart_from_missing_ones(copy, tmp_path):
    root = copy("coco_panoptic")
    for split in ("train", "val"):
        shutil.rmtree(root / "annotations" / f"panoptic_{split}2017")
    (root / "annotations" / "panoptic_train2017.zip").write_bytes(b"PK")
    refuse("coco_panoptic", root, r"panoptic_train2017.zip is still packed; expected the folder", tmp_path)


def test_masks_beside_the_images(copy, tmp_path):
    """Mask2Former's way of unpacking."""
    root = copy("coco_panoptic")
    for split in ("train", "val"):
        (root / "annotations" / f"panoptic_{split}2017").rename(root / f"panoptic_{split}2017")
    assert prepare.prepare("coco_panoptic", root, tmp_path / "out", progress=False)["train"]["frames"] == 2


def test_davis_2016_is_refused(copy, tmp_path):
    root = copy("davis")
    masks = sorted((root / "Annotations").rglob("*.png"))
    for path in masks:
        values = np.asarray(Image.open(path))
        cv2.imwrite(str(path), np.where(values > 0, 255, 0).astype(np.uint8))
    refuse("davis", root, r"only values 0 and 255, as masks of DAVIS 2016; expected object numbers", tmp_path)
    (root / "ImageSets" / "2017" / "train.txt").write_text("/JPEGImages/480p/bear/0.jpg /Annotations/480p/bear/0.png\n")
    refuse("davis", root, r"train.txt: '/JPEGImages.*; expected one video name per line", tmp_path)


def test_a_frame_without_objects_may_have_void(copy, tmp_path):
    root = copy("davis")
    path = sorted((root / "Annotations").rglob("*.png"))[0]
    values = np.asarray(Image.open(path))
    cv2.imwrite(str(path), np.where(values > 0, 255, 0).astype(np.uint8))
    assert prepare.prepare("davis", root, tmp_path / "out", progress=False)["train"]["frames"] == 24


def test_train_ids_of_cityscapes_are_refused(copy, tmp_path):
    root = copy("cityscapes_panoptic")
    for path in root.rglob("*_instanceIds.png"):
        path.unlink()
    content = {"images": [], "annotations": [], "categories": [{"id": i, "name": str(i)} for i in range(19)]}
    (root / "gtFine" / "cityscapes_panoptic_val.json").write_text(json.dumps(content))
    refuse(
        "cityscapes_panoptic",
        root,
        r"panoptic_val.json: category ids from 0, as --use-train-id gives; expected label ids",
        tmp_path,
    )


def damaged(path, value):
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    image[0, 0] = value
    cv2.imwrite(str(path), image)


@pytest.mark.parametrize(
    ("name", "pattern", "value", "message"),
    [
        ("ade20k_panoptic", "annotations/training/*.png", 151, r"value 151; expected 0 \(other\) or class \+ 1"),
        ("ade20k_panoptic", "annotations_instance/training/*.png", (0, 7, 101), r"has class 101; expected 1..100"),
        ("cityscapes_panoptic", "gtFine/train/*/*_instanceIds.png", 40, r"Ids.png: value 40; expected a label id"),
        ("kitti_step", "panoptic_maps/train/*/*.png", (0, 0, 19), r"class 19; expected a train id of 0..18, or 255"),
    ],
)  # fmt: skip
def test_values_that_mean_nothing(copy, tmp_path, name, pattern, value, message):
    root = copy(name)
    damaged(sorted(root.glob(pattern))[0], value)
    refuse(name, root, message, tmp_path)


YTVIS = "train/instances.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(video_id=77), r"annotations\[0\] has video_id 77, which no video has"),
        (lambda c: c["annotations"][0].update(category_id=41), r"video 1: track 1 has category 41, which is no"),
        (lambda c: c["annotations"][0]["segmentations"].pop(), r"track 1 has 3 segmentations for 4 file_names"),
        (lambda c: c["videos"][0].pop("file_names"), r"videos\[0\] has no 'file_names'"),
        (lambda c: c["videos"].append(c["videos"][0]), r"videos has two entries with id 1"),
        (lambda c: c["annotations"][1].update(id=1), r"annotations has two entries with id 1"),
        (lambda c: c["videos"][0]["file_names"].append(c["videos"][0]["file_names"][0]), r"expected every frame once"),
        (lambda c: c["videos"][0].update(width=80), r"mask is 72x40, expected 80x40 as the json says"),
        (lambda c: mask_of(c).update(counts=[1, 2, 3]), r"cannot be read \(runs of 6 pixels for a mask of 40x72"),
        (lambda c: mask_of(c).update(counts="\x01"), r"a mask cannot be read \(a text that is no run-length code"),
        (lambda c: [row.update(name="a") for row in c["categories"]], r"category 1 is 'a', expected 'airplane'"),
    ],
)  # fmt: skip
def test_track_jsons(copy, tmp_path, change, message):
    root = copy("youtube_vis_2021")
    edit(root / YTVIS, lambda content: change(content) and None)
    refuse("youtube_vis_2021", root, message, tmp_path)


def mask_of(content):
    return next(mask for mask in content["annotations"][0]["segmentations"] if mask)


def test_editions_are_told_apart(copy, tmp_path):
    refuse("youtube_vis_2019", copy("youtube_vis_2021"), r"category 1 is 'airplane', expected 'person'", tmp_path)


def test_images_of_another_size_are_refused(copy, tmp_path):
    root = copy("ovis")
    image = sorted((root / "train").rglob("*.jpg"))[0]
    cv2.imwrite(str(image), np.zeros((14, 14, 3), np.uint8))
    refuse("ovis", root, r"its mask is 72x40, expected the image's size 14x14", tmp_path)


@pytest.mark.parametrize("form", ["absent", "null", "empty"])
def test_splits_without_annotations(copy, tmp_path, form):
    root = copy("ovis")
    values = {"absent": None, "null": {"annotations": None}, "empty": {"annotations": []}}

    def change(content):
        content.pop("annotations")
        content.update(values[form] or {})

    edit(root / "annotations_train.json", change)
    report = prepare.prepare("ovis", root, tmp_path / "out", progress=False)
    assert report["train"]["unlabelled_share"] is None and report["train"]["frames"] == 8


def test_burst_tracks_without_masks_are_refused(copy, tmp_path):
    root = copy("burst")

    def change(content):
        track = next(iter(content["sequences"][0]["segmentations"][0].values()))
        track["point"] = {"x": 1, "y": 2}
        del track["rle"]

    edit(root / "train" / "train.json", change)
    refuse("burst", root, r"track \d has no rle in a frame; expected masks", tmp_path)


def test_two_files_of_one_frame_are_refused(copy, tmp_path):
    root = copy("cityscapes_vps")
    image = sorted((root / "train" / "img").iterdir())[0]
    shutil.copy(image, image.with_name(image.name.replace("newImg8bit", "leftImg8bit")))
    refuse("cityscapes_vps", root, r"frame 0001_0001 has .* too; expected one file per frame", tmp_path)


def test_the_tree_of_kitti_is_read_too(copy, drawn, tmp_path):
    root = copy("kitti_step")
    for split in ("train", "val"):
        for folder in (root / "images" / split).iterdir():
            shutil.copytree(folder, root / "training" / "image_02" / folder.name)
    shutil.rmtree(root / "images")
    (root / "kitti-step").mkdir()
    (root / "panoptic_maps").rename(root / "kitti-step" / "panoptic_maps")
    report = prepare.prepare("kitti_step", root, tmp_path / "out", progress=False)
    expected = prepare.prepare("kitti_step", drawn("kitti_step"), tmp_path / "moved", progress=False)
    assert report == expected


@pytest.mark.parametrize("name", [n for n in datasets.DATASETS if n != "youtube_vis_2019"])
def test_a_foreign_folder_is_told_what_is_missing(name, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "notes.md").write_text("")
    title = datasets.dataset(name).title
    refuse(name, tmp_path / "root", rf"root: no .*; nothing of it is there; expected {title} as", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotated_image_paths": [3]}, r"annotated_image_paths\[0\] is 3; expected the path of a file below"),
        ({"seq_name": "../other"}, r"sequences\[0\]: seq_name is '../other'; expected the path"),
        ({"segmentations": [5, {}, {}, {}]}, r"segmentations\[0\] is 5; expected an object"),
        ({"height": [40]}, r"sequences\[0\]: height is \[40\]; expected a whole number of pixels"),
    ],
)
def test_burst_fields_of_another_kind_are_refused(copy, tmp_path, change, message):
    root = copy("burst")
    (source,) = root.rglob("train.json")
    edit(source, lambda content: content["sequences"][0].update(change))
    refuse("burst", root, message, tmp_path)
