"""The other layouts of the synthetic scenes, prepared and drawn from."""

import itertools
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from vps_jax import datasets
from vps_jax.data import mixture, pipeline, prepare, records, samples, synthetic, validation
from vps_jax.types import UserError

COCO_THINGS = [datasets.class_table("coco_panoptic").names.index(n) for n in ("person", "car", "umbrella", "suitcase",
    "sports ball", "kite")]  # fmt: skip
SMALL = {"seed": 3, "train": 4, "val": 1, "sizes": ((40, 72), (48, 64)), "lengths": (4, 6), "progress": False}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    out = tmp_path_factory.mktemp("layouts")
    for layout in ("vspw", "coco_panoptic", "davis"):
        synthetic.synthesize(out / layout, layout=layout, test=1, **SMALL)
        prepare.prepare(layout, out / layout, out / "prepared", progress=False)
    return out


def draws(source, count=4, **data):
    source = {**source, "path": str(source["path"])}
    small = {"batch_size": 4, "clip_frames": 2, "max_instances": 4, "chunk_steps": 1, "num_workers": 0}
    data = {**small, "sources": {"it": source}, **data}
    return list(itertools.islice(pipeline.train_batches(data), count)), data


def test_vspw_has_the_frames_of_vipseg_and_two_between(roots, raw_vipseg):
    names = (roots / "vspw" / "train.txt").read_text().split()
    assert names == (raw_vipseg / "train.txt").read_text().split()[:4]
    for name in names:
        stems = [int(p.stem) for p in sorted((roots / "vspw" / "data" / name / "origin").iterdir())]
        assert stems == list(range(stems[0], stems[0] + len(stems)))
        shared = sorted(int(p.stem) for p in (raw_vipseg / "imgs" / name).iterdir())
        assert stems[::3] == shared
        for stem in shared:
            same = roots / "vspw" / "data" / name / "origin" / f"{stem:08d}.jpg"
            assert same.read_bytes() == (raw_vipseg / "imgs" / name / same.name).read_bytes()
    test = (roots / "vspw" / "test.txt").read_text().split()[0]
    assert [p.name for p in (roots / "vspw" / "data" / test).iterdir()] == ["origin"]


def test_vspw_masks_are_the_classes_of_vipseg_with_strays(roots, raw_vipseg):
    name = (roots / "vspw" / "train.txt").read_text().split()[1]
    values, strays = set(), 0
    for path in (raw_vipseg / "panomasks" / name).iterdir():
        pano = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(roots / "vspw" / "data" / name / "mask" / path.name), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8 and mask.ndim == 2
        values |= set(np.unique(mask).tolist())
        stray = mask == 252
        strays += stray.sum()
        void = (mask == 0) | (mask == 255) | stray | (mask == 253)
        np.testing.assert_array_equal(np.where(pano >= 300, pano // 100, pano)[~void], mask[~void])
        assert (void == (pano == 0))[2:].all()
    assert strays and {0, 255} & values


def test_coco_json_describes_the_pngs(roots):
    root = roots / "coco_panoptic"
    content = json.loads((root / "annotations" / "panoptic_train2017.json").read_text())
    assert [c["id"] for c in content["categories"]] == sorted(c["id"] for c in content["categories"])
    assert len(content["categories"]) == 12 and sum(c["isthing"] for c in content["categories"]) == 6
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        assert image["id"] == annotation["image_id"] and len(image["file_name"]) == 16
        rgb = np.asarray(Image.open(root / "annotations" / "panoptic_train2017" / annotation["file_name"])).astype(int)
        ids = rgb @ [1, 256, 65536]
        assert ids.shape == (image["height"], image["width"])
        assert {s["id"] for s in annotation["segments_info"]} == set(np.unique(ids)) - {0}
        for segment in annotation["segments_info"]:
            rows, columns = np.nonzero(ids == segment["id"])
            assert segment["area"] == len(rows)
            left, top, width, height = segment["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)


def test_davis_masks_number_the_objects(roots):
    root = roots / "davis"
    name = (root / "ImageSets" / "2017" / "train.txt").read_text().split()[0]
    seen = set()
    for path in (root / "Annotations" / "480p" / name).iterdir():
        picture = Image.open(path)
        assert picture.mode == "P"
        seen |= set(np.unique(np.asarray(picture)).tolist())
    assert seen == set(range(max(seen) + 1)) and len(seen) > 3


def test_unknown_layout_is_named(tmp_path):
    with pytest.raises(UserError, match="'kitti' is unknown; expected one of vipseg, vspw"):
        synthetic.synthesize(tmp_path / "x", layout="kitti", progress=False)


def test_single_frames_for_the_vit_adapter(roots):
    source = {
        "path": roots / "prepared" / "vspw", "task": "semantic", "recipe": "photometric", "short_side": 40,
        "max_side": 128, "crop_px": 64,
    }  # fmt: skip
    batches, config = draws(source, clip_frames=1, max_instances=0, pad_multiple=32)
    assert pipeline.describe(config) == [("semantic", "it", (4, 1, 64, 64))]
    values = set()
    for batch in batches:
        assert batch.clip.images.shape == (4, 1, 64, 64, 3) and batch.clip.instance_classes.shape == (4, 0)
        values |= set(np.unique(batch.clip.ids).tolist())
        padded = (batch.clip.images == np.array([124, 116, 104])).all(-1)
        assert (batch.clip.ids[padded & (batch.clip.ids == 0)] == 0).all() and padded.any()
        assert len({r.split("/")[0] for r in batch.records}) == 4  # an epoch takes one frame of every video
    classes = {29, 16, 19, 40, 22, 17, 75, 77, 47, 61, 49, 44}
    assert values <= {0} | classes and len(values) > 8


def test_three_views_of_an_image(roots):
    path = roots / "prepared" / "coco_panoptic"
    source = {"path": path, "recipe": "affine", "short_side": (40, 48), "crop_px": (40, 40)}
    batches, config = draws(source, clip_frames=3)
    assert pipeline.describe(config) == [("panoptic", "it", (4, 3, 64, 64))]
    for batch in batches:
        images = batch.clip.images
        assert (images[:, 0] != images[:, 1]).any(axis=(1, 2, 3)).all()
        assert (images[:, :, 40:] == 128).all() and (batch.clip.ids[:, :, :, 40:] == 0).all()
        assert (batch.clip.instance_classes[:, 0] >= 0).all()
        assert set(np.unique(batch.clip.instance_classes).tolist()) <= {-1, *COCO_THINGS}


@pytest.mark.parametrize(("data_set", "recipe"), [("davis", "vos"), ("coco_panoptic", "affine")])
def test_vos_batches_have_one_number_of_objects(roots, data_set, recipe):
    source = {
        "path": roots / "prepared" / data_set, "task": "vos", "recipe": recipe, "short_side": 40, "max_side": 72,
        "objects": (1, 2, 3), "crop": (0.75, 0.75), "crop_rule": "preserving", "crop_px": (40, 64), "frame_window": 2.0,
    }  # fmt: skip
    batches, config = draws(source, 9, max_instances=64)
    assert {shape[-1] for _, _, shape in pipeline.describe(config)} == {1, 2, 3}
    counts = [batch.clip.instance_classes.shape[1] for batch in batches]
    assert sorted(counts) == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    whole = 0
    for batch, count in zip(batches, counts, strict=True):
        for ids, classes in zip(batch.clip.ids, batch.clip.instance_classes, strict=True):
            first = set(np.unique(ids[0]).tolist()) & set(range(1, count + 1))
            whole += len(first) == count
            assert len(first) <= (classes >= 0).sum() <= count
    assert whole >= 30  # of 36; a clip that still misses an object after a few draws is taken as it is


def test_vos_clips_come_from_frames_that_show_enough_objects(roots):
    opened = records.open_records(roots / "prepared" / "davis", "train")
    shown = {(v.name, stem): n for v in opened.videos for stem, n in zip(v.stems, v.instances, strict=True)}
    path = roots / "prepared" / "davis"
    source = {"path": path, "task": "vos", "short_side": 40, "objects": (4,), "frame_window": 3.0}
    for batch in draws(source, 6)[0]:
        for record in batch.records:
            name, stems = record.split("/")
            first, last = stems.split("..")
            assert shown[name, first] >= 4 and 0 < int(last) - int(first) < 6


def objects_of(roots, data_set, **source):
    """(ids `[t, h, w]`, number of objects, reference) of many VOS clips."""
    source = {"path": roots / "prepared" / data_set, "task": "vos", "short_side": 40, "max_side": 72, **source}
    for batch in draws(source, 40)[0]:
        n = batch.clip.instance_classes.shape[1]
        assert batch.clip.reference.shape == (4,) and batch.clip.reference.dtype == np.int32
        yield from ((ids, n, r) for ids, r in zip(batch.clip.ids, batch.clip.reference.tolist(), strict=True))


def test_objects_of_a_vos_clip_come_in_random_order(roots):
    """Spec: tarvis 4.4: those that points show are the last, whatever their size."""
    places = []
    for ids, n, _ in objects_of(roots, "davis", objects=(3,), frame_window=2.0):
        areas = np.bincount(ids.ravel(), minlength=n + 1)[1 : n + 1]
        assert areas.all() and not (ids > n).any() or ids.max() == 1 + n  # objects, void, and the class of the others
        places.append(np.argmax(areas))
    np.testing.assert_allclose(np.bincount(places, minlength=3), len(places) / 3, atol=25)


def test_objects_of_an_image_are_shown_in_a_random_frame(roots):
    """Spec: tarvis 7.8; of a video, in the first frame."""
    source = {"recipe": "affine", "crop_px": (40, 64), "objects": (2,)}
    found = list(objects_of(roots, "coco_panoptic", **source))
    np.testing.assert_allclose(np.bincount([r for *_, r in found], minlength=2), 80, atol=30)
    whole = [{1, 2} <= set(np.unique(ids[r]).tolist()) for ids, _, r in found]
    assert np.mean(whole) > 0.9
    assert {r for *_, r in objects_of(roots, "davis", objects=(2,), frame_window=2.0)} == {0}


def table_of(*instances):
    """Records of videos of one size that show so many instances."""
    videos = tuple(records.Video(str(i), ("0",) * len(row), (40, 40), 0, row) for i, row in enumerate(instances))
    return records.Records(None, videos, datasets.dataset("davis").labels, "", "train")


def buckets_of(table, **source):
    source = {"path": "", "task": "vos", "short_side": (40, 44, 48), **source}
    data = validation.validated({"clip_frames": 3, "sources": {"it": source}})
    return samples.make_buckets(data, {"it": table})


def test_images_are_shown_with_the_objects_that_they_have():
    """Spec: tarvis 7.8: at most eight, and each image as often as any other; one program whatever the short side."""
    counts = (3, 0, 9, 8, 1, 3, 5, 3)
    table = table_of(*[(n,) for n in counts])
    source = {"recipe": "affine", "crop_px": (40, 40), "objects": tuple(range(1, 9)), "object_shares": "shown"}
    buckets = buckets_of(table, **source)
    assert {b.objects: b.videos for b in buckets} == {1: (4,), 3: (0, 5, 7), 5: (6,), 8: (2, 3)}
    assert {b.objects: b.weight for b in buckets} == pytest.approx({1: 1 / 7, 3: 3 / 7, 5: 1 / 7, 8: 2 / 7})
    assert {b.shape for b in buckets} == {(64, 64)} and len(buckets) == 4


def test_vos_videos_come_as_often_as_a_clip_can_start_in_them():
    """Spec: tarvis 7.6: uniform over pairs of video and frame; each number of objects has the same share."""
    table = table_of((1,) * 12, (0, 2, 2, 0, 1), (1, 1))  # in the last, no clip of three frames fits
    one, two = buckets_of(table, objects=(1, 2, 3), short_side=40)
    assert one.objects == 1 and one.videos == (0,) * 10 + (1, 1) + (2, 2) and one.weight == 1
    assert two.objects == 2 and two.videos == (1, 1) and two.weight == 1
    drawn = [mixture.video_of(one, 0, position, seed=0) for position in range(14 * 50)]
    assert np.bincount(drawn).tolist() == [500, 100, 100]


def test_semantic_clips_also_come_from_videos_without_instances(tmp_path):
    root = tmp_path / "raw"
    synthetic.synthesize(root, **{**SMALL, "train": 16, "test": 0, "lengths": (4,), "sizes": ((32, 48),)})
    prepare.prepare("vipseg", root, tmp_path, progress=False)
    empty = (root / "train.txt").read_text().split()[15]
    source = {"path": tmp_path / "vipseg", "short_side": 32}
    semantic = {r.split("/")[0] for b in draws({**source, "task": "semantic"})[0] for r in b.records}
    panoptic = {r.split("/")[0] for b in draws(source)[0] for r in b.records}
    assert len(semantic) == 16 and empty in semantic
    assert len(panoptic) == 15 and empty not in panoptic


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "mosaic"}, "recipe is 'mosaic'; expected one of clip, vos, affine, photometric"),
        ({"recipe": "affine"}, "data.sources.it.crop_px is missing; affine_views needs it"),
        ({"task": "vos", "objects": (9,)}, "no usable video"),
    ],
)
def test_wrong_sources_are_named(roots, changes, message):
    source = {"path": roots / "prepared" / "davis", "short_side": 40, **changes}
    with pytest.raises(UserError, match=message):
        draws(source)
