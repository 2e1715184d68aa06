import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vps_jax.data import vipseg_convert
from vps_jax.datasets import vipseg
from vps_jax.datasets.colors import SegmentColors
from vps_jax.types import UserError


@pytest.fixture(scope="module")
def converted(raw_vipseg, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "VIPSeg_90P"
    counts = vipseg_convert.convert(raw_vipseg, out, height=90, progress=False)
    return out, counts


def load(out, split=None):
    return json.loads((out / f"panoptic_gt_VIPSeg{f'_{split}' if split else ''}.json").read_text())


def png(path):
    return np.asarray(Image.open(path)).astype(np.int64)


def test_counts_and_files(converted, raw_vipseg):
    out, counts = converted
    frames = len(list((raw_vipseg / "imgs").rglob("*.jpg")))
    assert counts == {"videos": 11, "frames": frames}
    assert {p.name for p in out.iterdir()} == {
        "images", "panomasks", "panomasksRGB", "train.txt", "val.txt", "test.txt", "panoVIPSeg_categories.json",
        "panoptic_gt_VIPSeg.json", "panoptic_gt_VIPSeg_train.json", "panoptic_gt_VIPSeg_val.json",
        "panoptic_gt_VIPSeg_test.json",
    }  # fmt: skip
    assert not list(out.rglob(".*"))


def test_resize_is_the_official_one(converted, raw_vipseg):
    out, _ = converted
    for video in load(out)["videos"]:
        for image in video["images"]:
            raw = Image.open(raw_vipseg / "imgs" / video["video_id"] / f"{image['id']}.jpg")
            size = int(90 * raw.width / raw.height), 90
            assert (image["width"], image["height"]) == size
            buffer = io.BytesIO()
            raw.resize(size, Image.BILINEAR).save(buffer, "JPEG")
            assert (out / "images" / video["video_id"] / f"{image['id']}.jpg").read_bytes() == buffer.getvalue()
            mask = Image.open(raw_vipseg / "panomasks" / video["video_id"] / f"{image['id']}.png")
            expected = np.asarray(mask.resize(size, Image.NEAREST))
            np.testing.assert_array_equal(png(out / "panomasks" / video["video_id"] / image["file_name"]), expected)


def test_truth_json_describes_the_pngs(converted):
    """The official writer's rules, restated pixel by pixel: ids, classes, areas, order (spec: metrics 1.5)."""
    out, _ = converted
    truth = load(out)
    assert [v["video_id"] for v in truth["videos"]] == sorted(p.name for p in (out / "panomasks").iterdir())
    things = {c["id"]: c["isthing"] for c in truth["categories"]}
    colors = {c["id"]: c["color"] for c in truth["categories"]}
    for video in truth["annotations"]:
        ids_of_value = {}
        for frame in video["annotations"]:
            assert frame["file_name"] == frame["image_id"] + ".png"
            raw = png(out / "panomasks" / video["video_id"] / frame["file_name"])
            rgb = png(out / "panomasksRGB" / video["video_id"] / frame["file_name"])
            ids = rgb @ [1, 256, 65536]
            assert ((ids == 0) == (raw == 0)).all()
            values = []
            for segment in frame["segments_info"]:
                here = ids == segment["id"]
                (value,) = np.unique(raw[here])
                values.append(value)
                category = value - 1 if value < 125 else value // 100 - 1
                assert list(segment) == ["id", "category_id", "iscrowd", "area"]
                assert segment["category_id"] == category
                assert (segment["iscrowd"], segment["area"]) == (0, here.sum())
                assert ids_of_value.setdefault(value, segment["id"]) == segment["id"]
                near = np.abs(np.array(colors[category]) - rgb[here][0]).max()
                assert near <= (30 if things[category] else 0)
            assert values == sorted(set(np.unique(raw)) - {0})
        assert len(set(ids_of_value.values())) == len(ids_of_value)


def test_split_jsons(converted, raw_vipseg):
    out, _ = converted
    for split in ("train", "val"):
        names = set((raw_vipseg / f"{split}.txt").read_text().split())
        part, truth = load(out, split), load(out)
        for key in ("videos", "annotations"):
            assert part[key] == [v for v in truth[key] if v["video_id"] in names]
        assert part["categories"] == truth["categories"] and len(part["categories"]) == 124


def test_test_json_has_the_list_s_order_and_no_segments(converted, raw_vipseg):
    out, _ = converted
    part = load(out, "test")
    names = (raw_vipseg / "test.txt").read_text().split()
    assert [v["video_id"] for v in part["videos"]] == names
    for video, annotations in zip(part["videos"], part["annotations"], strict=True):
        stems = [i["id"] for i in video["images"]]
        assert stems == sorted(p.stem for p in (out / "images" / video["video_id"]).iterdir())
        assert [a["segments_info"] for a in annotations["annotations"]] == [[]] * len(stems)
        assert [a["image_id"] for a in annotations["annotations"]] == stems


def test_native_size_keeps_the_files(raw_vipseg, tmp_path):
    vipseg_convert.convert(raw_vipseg, tmp_path / "out", height=None, progress=False)
    for folder, ours in (("imgs", "images"), ("panomasks", "panomasks")):
        for path in (raw_vipseg / folder).rglob("*.*"):
            assert (tmp_path / "out" / ours / path.relative_to(raw_vipseg / folder)).read_bytes() == path.read_bytes()


def test_colours_first_instance_later_instances_and_the_bad_value():
    def colors():
        return SegmentColors(vipseg.CLASSES, np.random.default_rng(7))

    # car 48 shares its colour with the stuff class 6, so already its first instance takes another
    values = np.array([[2, 200, 4900, 6100, 6101, 0]], np.int32)
    rgb, segments = vipseg_convert.paint(values, colors())
    ceiling, person = [180, 120, 120], list(vipseg.CLASSES.colors[60])
    assert rgb[0, 0].tolist() == rgb[0, 1].tolist() == ceiling
    assert rgb[0, 3].tolist() == person and rgb[0, 4].tolist() != person
    assert rgb[0, 2].tolist() != [140, 140, 140] and rgb[0, 5].tolist() == [0, 0, 0]
    assert [(s["category_id"], s["area"]) for s in segments] == [(1, 2), (48, 1), (60, 1), (60, 1)]
    assert len({s["id"] for s in segments}) == 4
    again, _ = vipseg_convert.paint(values, colors())
    np.testing.assert_array_equal(again, rgb)


def test_an_interrupted_conversion_goes_on(raw_vipseg, converted, tmp_path, monkeypatch):
    whole = vipseg_convert.convert_video
    done = []

    def failing(source, out, name, height):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(name)
        return whole(source, out, name, height)

    out = tmp_path / "out"
    monkeypatch.setattr(vipseg_convert, "convert_video", failing)
    with pytest.raises(KeyboardInterrupt):
        vipseg_convert.convert(raw_vipseg, out, height=90, progress=False)
    assert not list(out.glob("*.json"))
    touched = {p: p.stat().st_mtime_ns for p in (out / "images").rglob("*.jpg")}
    monkeypatch.setattr(vipseg_convert, "convert_video", whole)
    with pytest.raises(UserError, match="begun with height 90, not 120"):
        vipseg_convert.convert(raw_vipseg, out, height=120, progress=False)
    assert vipseg_convert.convert(raw_vipseg, out, height=90, progress=False) == converted[1]
    assert load(out) == load(converted[0])
    assert {p: p.stat().st_mtime_ns for p in touched} == touched
    assert vipseg_convert.convert(raw_vipseg, out, height=90, progress=False) == converted[1]


def test_wrong_input_is_named(raw_vipseg, tmp_path):
    with pytest.raises(UserError, match="has no folder imgs"):
        vipseg_convert.convert(tmp_path / "nothing", tmp_path / "out", progress=False)
    source = tmp_path / "source"
    shutil.copytree(raw_vipseg, source)
    image = sorted((source / "imgs").rglob("*.jpg"))[0]
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(UserError, match=rf"{image.name} or its mask cannot be read"):
        vipseg_convert.convert(source, tmp_path / "out", height=30, progress=False)
    assert not list((tmp_path / "out").glob("*.json"))
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").write_text("x")
    with pytest.raises(UserError, match="is not empty"):
        vipseg_convert.convert(raw_vipseg, tmp_path / "used", progress=False)
    for name in ("train", "val", "test"):
        (source / f"{name}.txt").unlink()
    with pytest.raises(UserError, match="has no train.txt"):
        vipseg_convert.convert(source, tmp_path / "out2", progress=False)
