"""Data sets as specifications: class tables, label codes, roots that are recognised, videos that are found."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from vps_jax import datasets
from vps_jax.config import ClipInference, WindowInference
from vps_jax.datasets import label_files, vipseg
from vps_jax.datasets.colors import SegmentColors, color_id
from vps_jax.parsing import parse, resolve
from vps_jax.types import UserError


def test_a_class_list_survives_json():
    for spec in datasets.DATASETS.values():
        rows = json.loads(json.dumps(spec.classes.rows()))
        assert datasets.from_rows(rows) == spec.classes
        assert [row["id"] for row in rows] == list(spec.classes.official_ids)


@pytest.mark.parametrize(
    ("name", "classes", "things", "first", "last"),
    [
        ("vipseg", 124, 58, (0, "wall"), (123, "train")),
        ("vspw", 124, 58, (0, "wall"), (123, "train")),
        ("coco_panoptic", 133, 80, (1, "person"), (200, "rug-merged")),
        ("davis", 1, 1, (0, "object"), (0, "object")),
    ],
)
def test_class_tables(name, classes, things, first, last):
    table = datasets.dataset(name).classes
    assert (len(table.names), len(table.thing_ids)) == (classes, things)
    assert sorted(table.thing_ids + table.stuff_ids) == list(range(classes))
    assert (table.official_ids[0], table.names[0]) == first
    assert (table.official_ids[-1], table.names[-1]) == last


def test_unknown_names_are_refused():
    for ask in (datasets.dataset, datasets.class_table, datasets.label_code):
        with pytest.raises(UserError, match="'cocoa'"):
            ask("cocoa")


def test_vipseg_values_there_and_back():
    code, classes = datasets.dataset("vipseg").labels, datasets.dataset("vipseg").classes
    for c in classes.thing_ids:
        for instance in (0, 99):
            value = vipseg.value_of(c, instance)
            assert (code.classes[value], code.is_instance[value], code.known[value]) == (c, True, True)
            assert vipseg.class_of(value) == c
    for c in classes.stuff_ids:
        assert (code.classes[c + 1], code.is_instance[c + 1], code.known[c + 1]) == (c, False, True)
    assert code.known.sum() == 1 + 66 + 58 * 100
    # the wrong value of the published files, and a thing class without its instance
    assert (code.classes[200], code.known[200], vipseg.class_of(200)) == (-1, False, 1)
    assert (code.classes[3], code.known[3]) == (2, False)


def test_segment_colors_follow_the_format():
    table = datasets.dataset("vipseg").classes
    colors = SegmentColors(table)
    car, slide = 48, 6  # one colour, one of them stuff
    assert colors.stuff(slide) == table.colors[slide] == table.colors[car]
    drawn = [colors.thing(i, car) for i in range(40)]
    assert len({*drawn, *(table.colors[c] for c in table.stuff_ids), (0, 0, 0)}) == 40 + 66 + 1 - duplicates(table)
    assert max(abs(a - b) for color in drawn for a, b in zip(color, table.colors[car], strict=True)) <= 30
    assert [colors.thing(i, car) for i in range(40)] == drawn
    assert colors.thing("person", 60) == table.colors[60]
    assert color_id((1, 2, 3)) == 1 + 512 + 3 * 65536


def duplicates(table):
    stuff = [table.colors[c] for c in table.stuff_ids]
    return len(stuff) - len(set(stuff))


def write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def test_png_frames_are_frames(tmp_path):
    for stem, suffix in (("00000002", "png"), ("00000001", "JPG"), ("00000003", "jpeg")):
        write(tmp_path / "imgs" / "1_a" / f"{stem}.{suffix}", np.zeros((2, 3, 3), np.uint8))
    write(tmp_path / "panomasks" / "1_a" / "00000002.png", np.zeros((2, 3), np.uint8))
    (tmp_path / "imgs" / "1_a" / ".00000004.jpg").write_bytes(b"")
    (tmp_path / "val.txt").write_text("1_a\n")
    spec = datasets.recognize(tmp_path)
    assert spec.name == "vipseg" and spec.splits(tmp_path) == ("val",)
    (video,) = spec.videos(tmp_path, "val")
    assert [f.name for f in video.images] == ["00000001.JPG", "00000002.png", "00000003.jpeg"]
    assert [m and m.name for m in video.masks] == [None, "00000002.png", None]
    assert spec.predicted(tmp_path, "val")[0].images == video.images


def test_roots_are_told_apart(tmp_path):
    assert datasets.recognize(tmp_path) is None
    marks = {
        "vipseg": ("imgs/", "train.txt"), "vspw": ("data/", "train.txt"),
        "coco_panoptic": ("annotations/panoptic_val2017/", "annotations/panoptic_val2017.json"),
        "davis": ("JPEGImages/480p/", "Annotations/480p/", "ImageSets/2017/", "ImageSets/2017/val.txt"),
    }  # fmt: skip
    for name, paths in marks.items():
        for path in paths:
            place = tmp_path / name / path
            place.mkdir(parents=True) if path.endswith("/") else place.write_text("")
        assert datasets.recognize(tmp_path / name).name == name


def test_truth_is_found_per_split(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "panoptic_gt_VIPSeg_val.json").write_text("{}")
    spec = datasets.recognize(tmp_path)
    assert spec.truth_file(tmp_path, "val").name == "panoptic_gt_VIPSeg_val.json"
    assert spec.truth_file(tmp_path, "train") is None
    assert spec.splits(tmp_path) == ("val",)
    with pytest.raises(UserError, match="no split 'train'; expected one of val"):
        spec.predicted(tmp_path, "train")


def test_the_converted_layout_follows_its_truth(tmp_path):
    for video, stems in (("a", "123"), ("b", "1")):
        for stem in stems:
            write(tmp_path / "images" / video / f"{stem}.jpg", np.zeros((2, 3, 3), np.uint8))
    listed = [("b", ["1"]), ("a", ["3", "1"])]
    rows = [{"video_id": v, "images": [{"file_name": f"{s}.png"} for s in stems]} for v, stems in listed]
    truth = tmp_path / "panoptic_gt_VIPSeg_val.json"
    truth.write_text(json.dumps({"videos": rows}))
    spec = datasets.dataset("vipseg")
    found = spec.predicted(tmp_path, "val")
    assert [(v.name, [f.stem for f in v.images]) for v in found] == listed
    (tmp_path / "images" / "a" / "1.jpg").unlink()
    with pytest.raises(UserError, match="frame 1 is missing; expected 2 listed frames"):
        spec.predicted(tmp_path, "val")
    truth.write_text("{")
    with pytest.raises(UserError, match=r"panoptic_gt_VIPSeg_val.json: cannot be read"):
        spec.predicted(tmp_path, "val")


def test_a_foreign_root_is_told_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match="no imgs; nothing of it is there; expected VIPSeg as raw"):
        datasets.dataset("vipseg").layout(tmp_path)
    for name in ("coco_panoptic", "ade20k_panoptic"):
        with pytest.raises(UserError, match=r"expected \w+ panoptic( 2017)? as downloaded \("):
            datasets.dataset(name).layout(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="no train.txt or val.txt.*its layout 'converted' is there in part"):
        datasets.dataset("vipseg").layout(tmp_path)


@pytest.mark.parametrize("depth", ["1", "2", "4", "8", "palette", "16"])
def test_masks_of_every_kind_give_their_values(tmp_path, depth):
    values = np.array([[0, 1, 1], [1, 0, 1]] if depth == "1" else [[0, 1, 2], [3, 2, 1]], np.uint8)
    path = tmp_path / "m.png"
    if depth == "palette":
        picture = Image.fromarray(values)
        picture.putpalette([200, 10, 30] * 256)
        picture.save(path)
    elif depth in ("2", "4"):
        path.write_bytes(grey_png(values, int(depth)))
    elif depth == "1":
        Image.fromarray(values.astype(bool)).save(path)
    else:
        cv2.imwrite(str(path), values.astype(np.uint16) + 300 if depth == "16" else values)
    assert label_files.read_mask(path).tolist() == (values.astype(int) + 300 * (depth == "16")).tolist()


def grey_png(values, depth):
    """A PNG of 2 or 4 bits, which no library here writes."""
    import struct
    import zlib

    rows = b""
    for row in values:
        bits = "".join(f"{v:0{depth}b}" for v in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    height, width = values.shape
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)))
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in (*chunks, (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


def test_damaged_masks_are_named(tmp_path):
    path = tmp_path / "m.png"
    for data in (b"", b"no png", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(data)
        with pytest.raises(label_files.BadFrame, match=r"m.png: unreadable PNG"):
            label_files.read_mask(path)
    cv2.imwrite(str(path), np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(label_files.BadFrame, match="3 channels; expected a single-channel"):
        label_files.read_mask(path)
    cv2.imwrite(str(path), np.zeros((2, 3), np.uint8))
    with pytest.raises(label_files.BadFrame, match="single-channel PNG; expected RGB"):
        label_files.read_rgb(path)
    with pytest.raises(label_files.BadFrame, match="gone.png: unreadable"):
        label_files.read_mask(tmp_path / "gone.png")


def test_specifications_are_light():
    code = "import sys, vps_jax.datasets; assert not {'cv2', 'PIL', 'jax', 'tensorflow_datasets'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_published_inference_settings_are_settings():
    """Keys of `config.ClipInference`; the image sets of pretraining have none."""
    given = {name: spec.inference for name, spec in datasets.DATASETS.items() if spec.inference}
    images = {"coco_panoptic", "ade20k_panoptic", "cityscapes_panoptic", "mapillary_vistas"}
    assert set(given) == set(datasets.DATASETS) - images
    found = {name: parse(WindowInference if name == "vspw" else ClipInference, rows) for name, rows in given.items()}
    windows = {n: (s.clip_frames, s.overlap_frames) for n, s in found.items() if n != "vspw"}
    assert windows == {
        "vipseg": (12, 6), "davis": (12, 6), "ovis": (12, 6), "youtube_vis_2019": (12, 6), "youtube_vis_2021": (12, 6),
        "kitti_step": (6, 3), "cityscapes_vps": (10, 5), "burst": (8, 4),
    }  # fmt: skip


def test_references_of_higher_rooms_resolve():
    for spec in datasets.DATASETS.values():
        for reference in filter(None, (spec.truth, spec.writer)):
            assert resolve(reference) is not None
