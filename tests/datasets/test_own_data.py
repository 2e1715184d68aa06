"""A user's own data in every form: the same label maps where the form can say it, and its faults in one line each."""

import dataclasses
import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tfds_builders.frames import BadFrame, image_size
from vps_jax.cli import app
from vps_jax.data import check, own_prepare, prepare, records
from vps_jax.datasets import class_file, dataset, instance_json, recognize, rle
from vps_jax.datasets.own import Own, specification
from vps_jax.datasets.tree_patterns import files_of
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.media.result_folders import make_writer
from vps_jax.runs import own_set
from vps_jax.types import PanopticFrame, UserError

ROWS = [
    {"value": 3, "name": "floor", "color": [120, 120, 120]},
    {"value": 7, "name": "wall", "color": [200, 180, 140]},
    {"value": 20, "name": "ball", "color": [220, 20, 60], "thing": True},
    {"value": 21, "name": "car", "color": [0, 90, 200], "thing": True},
]
CLASSES = class_file.parse({"name": "rooms", "void": [255], "classes": ROWS}, pathlib.Path("classes.yaml"))
SPLITS = {"train": ("a", "b"), "val": ("c",)}
FRAMES = ("8", "9", "10", "11")
CLASS = {0: 255, 1: 3, 2: 7, 3: 20, 4: 20, 5: 21}  # of the regions that `scene` draws
OBJECT = {3: 4, 4: 9, 5: 2}
WANTED = {0: 0, 1: 256, 2: 512, 3: 769, 4: 770, 5: 1025}  # (class + 1) * 256 + object, numbered anew


def scene(frame):
    """Regions 0..5 of a frame: void, floor, wall, two balls, a car."""
    regions = np.full((24, 32), 1)
    regions[:6], regions[:2] = 2, 0
    regions[8:12, 2 + frame : 8 + frame] = 3
    regions[14:18, 20 - frame : 24 - frame] = 4
    if frame:
        regions[19:23, 3 * frame : 3 * frame + 5] = 5
    return regions


def mapped(regions, table):
    return np.array([table.get(i, 0) for i in range(6)])[regions]


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.fixture
def frames(tmp_path):
    """Frames of all videos, without labels."""
    rng = np.random.default_rng(0)
    for split, videos in SPLITS.items():
        for video in videos:
            for frame in FRAMES:
                picture = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
                write(tmp_path / "root" / "frames" / split / video / f"{frame}.png", picture)
    return tmp_path / "root"


def every(split=None):
    return [
        (s, v, i, f) for s, videos in SPLITS.items() if split in (None, s) for v in videos for i, f in enumerate(FRAMES)
    ]


def as_index(root):
    for split, video, i, frame in every():
        write(root / "labels" / split / video / f"{frame}.png", mapped(scene(i), CLASS).astype(np.uint8))
        write(root / "instances" / split / video / f"{frame}.png", mapped(scene(i), OBJECT).astype(np.uint16))
    return Own(CLASSES)


def as_cityscapes(root):
    table = CLASS | {i: 1000 * CLASS[i] + number for i, number in OBJECT.items()}
    for split, video, i, frame in every():
        write(root / "labels" / split / video / f"{frame}.png", mapped(scene(i), table).astype(np.uint16))
    return Own(CLASSES)


def as_palette(root):
    for split, video, i, frame in every():
        for folder, table in (("labels", CLASS), ("instances", OBJECT)):
            path = root / folder / split / video / f"{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(mapped(scene(i), table).astype(np.uint8))
            picture.putpalette([level for v in range(256) for level in (v % 7, v, 255 - v)])
            picture.save(path)
    return Own(CLASSES, form="palette")


def as_cvat(root):
    colors = {255: (0, 0, 0), 3: (10, 20, 30), 7: (40, 50, 60), 20: (70, 80, 90), 21: (1, 2, 3)}
    for split, video, i, frame in every():
        labels = mapped(scene(i), CLASS)
        picture = np.zeros((*labels.shape, 3), np.uint8)
        for value, color in colors.items():
            picture[labels == value] = color[::-1]
        write(root / "labels" / split / video / f"{frame}.png", picture)
        write(root / "instances" / split / video / f"{frame}.png", mapped(scene(i), OBJECT).astype(np.uint8))
    names = {row["value"]: row["name"] for row in ROWS} | {255: "background"}
    lines = [f"{names[v]}:{c[0]},{c[1]},{c[2]}::" for v, c in colors.items()]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))
    return Own(CLASSES, form="palette")


IDS = {1: 5, 2: 6, 3: 1000, 4: 70000, 5: 7}  # R + 256 G + 65536 B


def segments(regions):
    return [{"id": IDS[r], "category_id": CLASS[r]} for r in np.unique(regions).tolist() if r]


def write_ids(root):
    for split, video, i, frame in every():
        ids = mapped(scene(i), IDS)
        picture = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1).astype(np.uint8)
        write(root / "labels" / split / video / f"{frame}.png", picture)


def as_vipseg(root):
    write_ids(root)
    for split, videos in SPLITS.items():
        rows = [
            {"video_id": v, "annotations": [{"file_name": f"{f}.png", "segments_info": segments(scene(i))}
                                            for i, f in enumerate(FRAMES)]}
            for v in videos
        ]  # fmt: skip
        (root / f"{split}.json").write_text(json.dumps({"annotations": rows, "categories": []}))
    return Own(CLASSES, form="panoptic-video")


def as_coco_panoptic(root):
    write_ids(root)
    for split in SPLITS:
        rows = [(k, v, i, f) for k, (_, v, i, f) in enumerate(every(split))]
        images = [{"id": k, "file_name": f"{v}/{f}.png"} for k, v, _, f in rows]
        annotations = [
            {"image_id": k, "file_name": f"{v}/{f}.png", "segments_info": segments(scene(i))} for k, v, i, f in rows
        ]
        (root / f"{split}.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return Own(CLASSES, form="panoptic-video")


def as_ytvis(root):
    for split, videos in SPLITS.items():
        heads = [
            {"id": k, "width": 32, "height": 24, "file_names": [f"{v}/{f}.png" for f in FRAMES]}
            for k, v in enumerate(videos)
        ]
        tracks = []
        for k, region in [(k, region) for k in range(len(videos)) for region in (3, 4, 5)]:
            runs = [rle.of_mask(scene(i) == region) for i in range(len(FRAMES))]
            codes = [{"size": [24, 32], "counts": rle.to_text(r) if region == 3 else r.tolist()} for r in runs]
            codes = [code if rle.area(r) else None for code, r in zip(codes, runs, strict=True)]
            tracks.append({"id": len(tracks), "video_id": k, "category_id": CLASS[region], "segmentations": codes})
        categories = [{"id": row["value"], "name": row["name"]} for row in ROWS]
        content = {"videos": heads, "annotations": tracks, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    return Own(CLASSES, form="ytvis")


def box(region):
    """The polygon around a rectangle of pixels."""
    rows, columns = np.nonzero(region)
    x, y, to_x, to_y = (int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return [x, y, to_x, y, to_x, to_y, x, to_y]


def as_coco(root):
    for split in SPLITS:
        images, annotations = [], []
        for k, (_, video, i, frame) in enumerate(every(split)):
            images.append({"id": k, "file_name": f"{video}/{frame}.png", "height": 24, "width": 32})
            for region in (r for r in (3, 4, 5) if (scene(i) == r).any()):
                row = {"id": len(annotations), "image_id": k, "category_id": CLASS[region]}
                track = {"attributes": {"track_id": region}} if region == 3 else {"track_id": region}
                annotations.append(row | track | {"segmentation": [box(scene(i) == region)]})
        categories = [{"id": row["value"], "name": row["name"]} for row in ROWS]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    return Own(CLASSES, form="coco")


FORMS = (as_index, as_cityscapes, as_palette, as_cvat, as_vipseg, as_coco_panoptic, as_ytvis, as_coco)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_labels(frames, tmp_path, form):
    spec = specification(form(frames))
    report = check.check(spec, frames, progress=False)
    assert not report.problems and [(s.split, s.videos, s.labelled) for s in report.splits] == [
        ("train", 2, 8), ("val", 1, 4),
    ]  # fmt: skip
    prepare.prepare(spec, frames, tmp_path / "out", progress=False, folder="records")
    for split, names in SPLITS.items():
        opened = records.open_records(tmp_path / "out" / "records", split)
        assert opened.classes == CLASSES.classes and [video.name for video in opened.videos] == list(names)
        for video in opened.videos:
            assert video.stems == FRAMES  # by number: 8, 9, 10, 11
            for i in range(len(FRAMES)):
                wanted = mapped(scene(i), WANTED)
                if form in (as_ytvis, as_coco):
                    wanted[wanted < 768] = 0  # they say nothing of stuff
                np.testing.assert_array_equal(records.read_frame(opened, video, i)[1], wanted)


def test_webp_frames(frames, tmp_path):
    """Stored as they are; of a lossless file every pixel is there. One that is cut off is named."""
    own, pixels = as_index(frames), {}
    for path in sorted((frames / "frames").rglob("*.png")):
        picture = cv2.imread(str(path))
        cv2.imwrite(str(path.with_suffix(".webp")), picture, [cv2.IMWRITE_WEBP_QUALITY, 101])
        pixels[path.parent.name, path.stem] = picture[..., ::-1]
        path.unlink()
    assert not check.check(specification(own), frames, progress=False).problems
    prepare.prepare(specification(own), frames, tmp_path / "out", progress=False, folder="records")
    opened = records.open_records(tmp_path / "out" / "records", "train")
    for video in opened.videos:
        for i, stem in enumerate(video.stems):
            np.testing.assert_array_equal(records.read_frame(opened, video, i)[0], pixels[video.name, stem])
    broken = frames / "frames" / "val" / "c" / "9.webp"
    broken.write_bytes(broken.read_bytes()[:-9])
    size = broken.stat().st_size
    problems = check.check(specification(own), frames, progress=False).problems
    assert problems == (f"{broken}: unreadable image ({size} bytes, cut off)",)
    with pytest.raises(UserError, match="9.webp: truncated WebP"):
        prepare.prepare(specification(own), frames, tmp_path / "again", progress=False)


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}, {"lossless": True, "exif": b"Exif\0\0"}])
def test_sizes_of_all_kinds_of_webp(tmp_path, options):
    """The three kinds of first chunk: lossy, lossless, extended."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 1500, 3), np.uint8))
    picture.save(tmp_path / "a.webp", **options)
    data = (tmp_path / "a.webp").read_bytes()
    assert image_size(data, tmp_path / "a.webp") == (37, 1500)
    with pytest.raises(BadFrame, match="expected a JPEG, PNG or WebP"):
        image_size(data.replace(b"WEBPVP8", b"WAVEfmt"), tmp_path / "a.webp")


def test_a_value_that_the_class_file_does_not_know(frames, tmp_path):
    own = as_index(frames)
    path = frames / "labels" / "train" / "b" / "9.png"
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    labels[0, :3] = 99
    write(path, labels)
    line = f"{path}: value 99 on 3 pixels is not in the class file; add it to its classes or to void"
    assert check.check(specification(own), frames, progress=False).problems == (line,)
    with pytest.raises(UserError, match="value 99 on 3 pixels"):
        prepare.prepare(specification(own), frames, tmp_path / "out", progress=False)


def test_a_category_that_the_class_file_does_not_know(frames):
    own = as_vipseg(frames)
    content = json.loads((frames / "val.json").read_text())
    content["annotations"][0]["annotations"][2]["segments_info"][0]["category_id"] = 88
    (frames / "val.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"val.json: video c: segment 5 has category 88, which is not in the class"):
        check.check(specification(own), frames, progress=False)


def test_other_trees_and_cuts(frames, tmp_path):
    other = tmp_path / "other"
    for split, video, i, frame in every():
        (other / split).mkdir(parents=True, exist_ok=True)
        number = int(frame) + 100 * (i > 1)
        shutil.copy(frames / "frames" / split / video / f"{frame}.png", other / split / f"x_{video}_{number}.png")
        if i != 3:
            write(other / f"{split}annot" / f"x_{video}_{number}.png", mapped(scene(i), CLASS).astype(np.uint8))
    patterns = {"frames": "{split}/{video}_{frame}.png", "labels": "{split}annot/{video}_{frame}.png"}
    whole, cut = (specification(Own(CLASSES, **patterns, max_gap=gap)) for gap in (None, 50))
    assert [video.name for video in whole.videos(other, "train")] == ["x_a", "x_b"]
    assert [video.name for video in cut.videos(other, "train")] == ["x_a", "x_a-110", "x_b", "x_b-110"]
    report = check.check(whole, other, progress=False)
    assert not report.problems and report.splits[0].findings == {"images without a label": 2}
    assert len(files_of(other, "{split}/{video}_{frame}", "train", (".png",))) == 8


@pytest.mark.parametrize("form", [as_ytvis, as_coco])
def test_a_gap_cuts_tracks_too_and_the_parts_are_scored(frames, tmp_path, form):
    """Frames 8, 9, 30, 31: two parts a video, whose tracks are scored against the json that is prepared."""
    own = form(frames)
    for split, video, i, frame in every():
        if i > 1:
            folder = frames / "frames" / split / video
            (folder / f"{frame}.png").rename(folder / f"{int(frame) + 20}.png")
    for split in SPLITS:
        text = (frames / f"{split}.json").read_text()
        (frames / f"{split}.json").write_text(text.replace("/10.png", "/30.png").replace("/11.png", "/31.png"))
    own_prepare.prepare(dataclasses.replace(own, max_gap=5), frames, tmp_path / "out", progress=False)
    truth = tmp_path / "out" / "truth"
    videos = dataset(str(truth)).videos(truth, "val")
    assert [video.name for video in videos] == ["c", "c-30"] and [len(video.images) for video in videos] == [2, 2]
    things = (3, 4, 5)
    writer = make_writer(tmp_path / "results", str(truth), CLASSES.classes)
    for number, frames_of_part in zip((1, 2), ((0, 1), (2, 3)), strict=True):
        with writer.video(videos[number - 1].name, number=number) as result:
            for i in frames_of_part:
                category = mapped(scene(i), {region: {3: 2, 4: 2, 5: 3}.get(region, 255) for region in range(6)})
                tracks = mapped(scene(i), {region: region for region in things})
                scores = {region: 0.9 for region in things}
                result.write(PanopticFrame(str(i), category.astype(np.uint8), tracks.astype(np.int32), scores))
    found = evaluate_folders(truth, tmp_path / "results", split="val", metrics="ap")
    assert found["ap"]["ap"] == 100 and found["videos"] == 2 and found["layout"] == "ytvis"


def test_classes_of_a_form_with_tracks_are_things(frames):
    """A json of categories does not say it; a class file that does is taken by its word."""
    silent = class_file.parse([{"id": row["value"], "name": row["name"]} for row in ROWS], pathlib.Path("c.json"))
    assert not silent.classes.thing_ids and Own(silent, form="ytvis").classes.classes.thing_ids == (0, 1, 2, 3)
    as_ytvis(frames)
    said = class_file.parse([row | {"thing": row["name"] == "car"} for row in ROWS], pathlib.Path("c.yaml"))
    with pytest.raises(UserError, match="train.json: video 0 has tracks of 'ball', which is no thing"):
        check.check(specification(Own(said, form="ytvis")), frames, progress=False)


@pytest.mark.parametrize("form", ["index", "panoptic-video"])
def test_objects_beyond_the_limit_of_a_class_are_told(tmp_path, form):
    """16 x 20 balls of one pixel in a frame, of which 255 find a number; the floor's own numbers do not count."""
    numbers = np.arange(320).reshape(16, 20)
    classes = np.where(numbers < 300, 20, 3)
    write(tmp_path / "frames" / "train" / "v" / "0.png", np.zeros((16, 20, 3), np.uint8))
    write(tmp_path / "frames" / "train" / "v" / "1.png", np.zeros((16, 20, 3), np.uint8))
    if form == "index":  # frame 0 has no label
        write(tmp_path / "labels" / "train" / "v" / "1.png", classes.astype(np.uint8))
        write(tmp_path / "instances" / "train" / "v" / "1.png", (1 + numbers).astype(np.uint16))
    else:
        ids = 1 + numbers
        picture = np.stack([np.zeros_like(ids), ids >> 8, ids & 255], -1)
        write(tmp_path / "labels" / "train" / "v" / "1.png", picture.astype(np.uint8))
        rows = [{"id": int(i), "category_id": int(c)} for i, c in zip(ids.ravel(), classes.ravel(), strict=True)]
        frame = {"file_name": "1.png", "segments_info": rows}
        content = {"annotations": [{"video_id": "v", "annotations": [frame]}]}
        (tmp_path / "train.json").write_text(json.dumps(content))
    report = check.check(specification(Own(CLASSES, form=form)), tmp_path, progress=False)
    assert not report.problems
    assert report.splits[0].findings == {"images without a label": 1, "objects beyond 255 of their class": 45}


def test_what_cannot_be_is_refused(frames):
    for change, words in (
        ({"form": "voc"}, "--format 'voc'; expected one of index, palette"),
        ({"frames": "/frames/{frame}"}, "--frames '/frames/{frame}'; expected a pattern below --source"),
        ({"frames": "frames/*.png"}, "has no {frame}"),
    ):
        with pytest.raises(UserError, match=words):
            Own(CLASSES, **change)
    with pytest.raises(UserError, match=r"no labels/\*/\*/\*.png"):
        check.check(specification(Own(CLASSES)), frames, progress=False)


def test_an_object_map_of_another_size(frames):
    own = as_index(frames)
    path = frames / "instances" / "val" / "c" / "8.png"
    write(path, np.zeros((12, 32), np.uint8))
    line = f"{path}: object map is 32x12, expected 32x24 as 8.png of the labels"
    assert check.check(specification(own), frames, progress=False).problems == (line,)


def command(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output, result.exception


def test_commands_need_nothing_but_files(frames, tmp_path):
    own, out = as_index(frames), tmp_path / "out"
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps(CLASSES.as_mapping()))
    options = ("--source", frames, "--classes", classes)
    code, text, _ = command("data", "check", "own", *options)
    assert code == 0 and "3 videos, 12 frames, 0 problems" in text
    for _ in range(2):  # the second time it is only reported
        code, text, _ = command("data", "prepare", "own", *options, "--out", out, "--workers", 1)
        assert code == 0 and "train: 2 videos, 8 frames" in text
        assert f"names on labels -> {out / 'preview.jpg'}" in text and (out / "preview.jpg").is_file()
    assert class_file.read(out / "classes.yaml") == CLASSES
    truth = recognize(out / "truth")
    assert truth.classes == CLASSES.classes and dataset(str(out / "truth")).name == "rooms"
    assert [video.name for video in truth.predicted(out / "truth", "val")] == ["c"]
    assert truth.truth_file(out / "truth", "val") == frames / "labels" / "val"
    with pytest.raises(UserError, match="truth: no truth of split 'vall'; expected one of train, val$"):
        evaluate_folders(out / "truth", tmp_path, split="vall")
    rows = [row | {"like": "road"} for row in CLASSES.as_mapping()["classes"]]  # says nothing of the labels
    alike = class_file.parse(CLASSES.as_mapping() | {"classes": rows}, classes)
    own_prepare.prepare(Own(alike), frames, out, progress=False)
    assert class_file.read(out / "classes.yaml").like == ("road",) * 4
    classes.write_text(json.dumps(CLASSES.as_mapping() | {"void": [255, 254]}))
    changed = Own(class_file.read(classes))
    with pytest.raises(UserError, match="was prepared from another class file; give --again"):
        own_prepare.prepare(changed, frames, out, progress=False)
    own_set.prepare(changed, frames, out, again=True, progress=False)
    assert class_file.read(out / "classes.yaml").void == (255, 254)
    frames.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="its source .* is not there"):
        recognize(out / "truth")
    assert own.form == "index"


def test_object_maps_that_are_not_there(frames, tmp_path):
    """A pattern that fits none is refused; a frame that has none is counted where others of its video have one."""
    own, classes = as_index(frames), tmp_path / "classes.json"
    classes.write_text(json.dumps(CLASSES.as_mapping()))
    options = ("--source", frames, "--classes", classes, "--instances", "objects/{split}/{video}/{frame}.png")
    for name, more in (("check", ()), ("prepare", ("--out", tmp_path / "none"))):
        code, text, error = command("data", name, "own", *options, *more)
        assert code and "--instances 'objects/{split}/{video}/{frame}.png' fits no PNG below" in str(error)
        assert not text and not (tmp_path / "none").exists()
    (frames / "instances" / "train" / "b" / "9.png").unlink()
    shutil.rmtree(frames / "instances" / "val")
    counted = {"labelled frames without an object PNG, in videos that have some": 1}
    report = check.check(specification(own), frames, progress=False)
    assert not report.problems and [split.findings for split in report.splits] == [counted, {}]
    report = prepare.prepare(specification(own), frames, tmp_path / "out", progress=False)
    assert [report[split]["findings"] for split in SPLITS] == [counted, {}]


def test_options_that_mean_nothing_are_refused(frames, tmp_path):
    for name, options, words in (
        ("own", (), "need --classes"),
        ("vipseg", ("--format", "index"), "'vipseg' takes no options of own data"),
        ("own", ("--classes", tmp_path / "none.yaml"), "none.yaml: No such file"),
    ):
        code, _, error = command("data", "check", name, "--source", frames, *options)
        assert code and words in str(error)


def test_polygons_cover_the_pixels_whose_centre_is_inside():
    triangle, square = [0, 0, 8, 0, 0, 8], [10, 2, 14, 2, 14, 6, 10, 6]
    mask = instance_json.of_polygons([triangle, square], (10, 16), "x")
    y, x = np.mgrid[:10, :16] + 0.5
    np.testing.assert_array_equal(mask[:, :9], (x + y < 8)[:, :9])
    assert mask[:, 9:].sum() == 16 and mask[2:6, 10:14].all()
    with pytest.raises(UserError, match="x: a polygon cannot be read"):
        instance_json.of_polygons([[0, 0, 1, 1]], (4, 4), "x")
