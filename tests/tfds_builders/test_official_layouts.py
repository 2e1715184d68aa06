"""Synthetic data in the official layouts: prepared, and read back as a slow reader reads the files."""

import shutil
import zlib

import numpy as np
import pytest
import slow_readers
import tensorflow_datasets as tfds

from vps_jax import datasets
from vps_jax.data import prepare, records, synthetic

SETS = (
    "ade20k_panoptic", "cityscapes_panoptic", "mapillary_vistas", "youtube_vis_2021", "ovis", "kitti_step",
    "cityscapes_vps", "burst",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("official")


@pytest.fixture(scope="module", params=SETS)
def prepared(request, folder):
    """(name, raw folder, report) of a prepared set."""
    name = request.param
    sizes = {"sizes": ((40, 72), (48, 64)), "lengths": (4, 7)}
    synthetic.synthesize(folder / name, layout=name, train=4, val=2, test=1, seed=5, progress=False, **sizes)
    assert datasets.recognize(folder / name) is datasets.dataset(name)
    return name, folder / name, prepare.prepare(name, folder / name, folder / "prepared", progress=False)


def read_slowly(name, root):
    table = datasets.dataset(name).classes
    extra = ({color: c for c, color in enumerate(table.colors)},) if name == "cityscapes_vps" else ()
    return list(getattr(slow_readers, name)(root, table.thing_ids, *extra))


def meaning(value, combinations, first):
    """What a stored value says: void, (class, object), or several."""
    if value >= first:
        return [meaning(v, combinations, first) for v in combinations[value - first]]
    return None if value < 256 else (value // 256 - 1, value % 256)


def test_every_image_and_label_comes_back(prepared, folder):
    name, root, _ = prepared
    builder = tfds.builder_from_directory(str(folder / "prepared" / name / "1.0.0"))
    expected, first = read_slowly(name, root), datasets.dataset(name).first_combination
    sets_of_tracks = any(isinstance(pixel, set) for *_, rows in expected[:1] for row in rows or () for pixel in row)
    overlaps = 0
    for split in builder.info.splits:
        own = [row for row in expected if row[0] == split]
        stored = list(builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}))
        table = {row["id"]: row.get("combinations", []) for row in builder.info.metadata[f"videos_{split}"]}
        assert [(r["video_id"].decode(), r["stem"].decode()) for r in stored] == [(v, i.stem) for _, v, i, _ in own]
        for record, (_, video, image, rows) in zip(stored, own, strict=True):
            assert record["image"] == image.read_bytes()
            if rows is None:
                assert record["label"] == b""
                continue
            label = np.frombuffer(zlib.decompress(record["label"]), "<u2").reshape(record["height"], record["width"])
            for stored_row, row in zip(label.tolist(), rows, strict=True):
                found = [meaning(value, table[video], first) for value in stored_row]
                if sets_of_tracks:
                    found = [set(f) if isinstance(f, list) else {f} - {None} for f in found]
                    overlaps += sum(len(pixel) > 1 for pixel in row)
                assert found == row
    assert (overlaps > 100) == (name == "ovis")


def test_the_folder_says_what_it_holds(prepared, folder):
    name, root, report = prepared
    opened = records.open_records(folder / "prepared" / name, "train")
    assert opened.classes == datasets.dataset(name).classes and opened.labels.name == "panoptic"
    assert report["train"]["videos"] == 4 and not report["train"]["unknown_values"]
    assert not report["train"]["bad_frames"] and not report["train"]["videos_without_frames"]
    slow = [row for row in read_slowly(name, root) if row[0] == "train"]
    shown = {}
    for _, video, _, rows in slow:
        keys = set()
        for pixel in (pixel for row in rows for pixel in row):
            keys |= pixel if isinstance(pixel, set) else {pixel} if pixel and pixel[1] else set()
        shown.setdefault(video, []).append(min(9, len(keys)))
    assert {v.name: list(v.instances) for v in opened.videos} == shown


def test_the_same_files_elsewhere_are_the_same_source(prepared, folder, tmp_path):
    name, root, report = prepared
    shutil.copytree(root, tmp_path / "moved")
    assert prepare.prepare(name, tmp_path / "moved", folder / "prepared", progress=False) == report
    changed = datasets.dataset(name).videos(tmp_path / "moved", "train")[-1].images[-1]
    changed.write_bytes(changed.read_bytes() + b"  ")
    with pytest.raises(datasets.UserError, match="was prepared from other files or options"):
        prepare.prepare(name, tmp_path / "moved", folder / "prepared", progress=False)


def test_tables_are_the_official_ones():
    sizes = {name: (len(s.classes.names), len(s.classes.thing_ids)) for name, s in datasets.DATASETS.items()}
    assert sizes == {
        "vipseg": (124, 58), "vspw": (124, 58), "coco_panoptic": (133, 80), "ade20k_panoptic": (150, 100),
        "cityscapes_panoptic": (34, 10), "mapillary_vistas": (65, 37), "youtube_vis_2021": (40, 40),
        "youtube_vis_2019": (40, 40), "ovis": (25, 25), "kitti_step": (19, 2), "cityscapes_vps": (19, 8),
        "burst": (1, 1), "davis": (1, 1),
    }  # fmt: skip
    assert datasets.dataset("mapillary_vistas").classes.official_ids == tuple(range(1, 66))
    assert datasets.dataset("kitti_step").classes.thing_ids == (11, 13)
    assert datasets.dataset("cityscapes_vps").classes.thing_ids == tuple(range(11, 19))
    assert len(datasets.class_table("burst").names) == 1230
