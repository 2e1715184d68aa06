"""VIPSeg result folders: colours, files, reading back, and folders that are never half-written."""

import json
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from vps_jax.datasets.classes import class_table, from_rows
from vps_jax.datasets.colors import SegmentColors, color_id
from vps_jax.media import result_folders
from vps_jax.media.submission_archive import write_archive
from vps_jax.types import PanopticFrame, UserError

CLASSES = class_table("vipseg")
WALL, CAR, SLIDE = 0, 48, 6  # slide (stuff) and car (thing) have the same colour in VIPSeg's table


def small_frame(stem="00000001"):
    """Wall with car 1 (two pixels) and car 9 (one), one unknown pixel."""
    categories = np.array([[WALL, CAR, CAR], [CAR, WALL, result_folders.UNKNOWN]], np.uint8)
    track_ids = np.array([[0, 1, 1], [9, 0, 0]], np.int32)
    return PanopticFrame(stem, categories, track_ids)


def test_stuff_has_its_colour_and_things_have_free_ones():
    colors = SegmentColors(CLASSES)
    base = CLASSES.colors
    assert base[SLIDE] == base[CAR] == (140, 140, 140)
    assert colors.stuff(WALL) == base[WALL]
    first_person, second_person, car = colors.thing(4, 60), colors.thing(2, 60), colors.thing(7, CAR)
    assert first_person == base[60]
    assert car != base[CAR]  # it would be taken for a slide
    assert colors.thing(4, 60) == first_person
    assert len({first_person, second_person, car}) == 3
    for color, category in ((second_person, 60), (car, CAR)):
        assert max(abs(a - b) for a, b in zip(color, base[category], strict=True)) <= 30


def test_colours_are_the_same_on_every_machine_and_enough_for_a_crowd():
    draws = [SegmentColors(CLASSES) for _ in range(2)]
    a, b = ([colors.thing(i, 60) for i in range(3000)] for colors in draws)
    assert a == b and len(set(a)) == 3000 and (0, 0, 0) not in a


def test_segments_of_a_frame():
    colors = SegmentColors(CLASSES)
    image, rows = result_folders.encode_frame(small_frame(), colors, CLASSES.official_ids)
    ids = image.astype(int) @ [1, 256, 65536]
    wall = color_id(CLASSES.colors[WALL])
    one, nine = (color_id(colors.thing(i, CAR)) for i in (1, 9))
    assert ids.tolist() == [[wall, one, one], [nine, wall, 0]]
    assert rows == [
        {"id": wall, "category_id": WALL, "iscrowd": 0, "area": 2},
        {"id": one, "category_id": CAR, "iscrowd": 0, "area": 2},
        {"id": nine, "category_id": CAR, "iscrowd": 0, "area": 1},
    ]


def test_a_folder_is_written_and_read_back(tmp_path):
    writer = result_folders.VipsegWriter(tmp_path / "out", CLASSES)
    with writer.video("7_a_b") as result:
        result.write(small_frame("00000003"))
        result.write(small_frame("00000006"))
    content = json.loads((tmp_path / "out" / "pred.json").read_text())
    (record,) = content["annotations"]
    assert record["video_id"] == "7_a_b"
    assert [row["file_name"] for row in record["annotations"]] == ["00000003.jpg", "00000006.jpg"]
    image = cv2.imread(str(tmp_path / "out" / "pan_pred" / "7_a_b" / "00000003.png"), cv2.IMREAD_UNCHANGED)
    assert image.shape == (2, 3, 3)
    painted = set((image[..., ::-1].astype(int) @ [1, 256, 65536]).ravel().tolist()) - {0}
    assert painted == {row["id"] for row in record["annotations"][0]["segments_info"]}
    frames = list(result_folders.read_video(tmp_path / "out", "7_a_b", CLASSES))
    assert [frame.stem for frame in frames] == ["00000003", "00000006"]
    assert frames[1].categories.tolist() == small_frame().categories.tolist()
    # numbered anew: segment ids tell tracks apart, not their old numbers
    assert np.array_equal(frames[1].track_ids > 0, small_frame().track_ids > 0)
    assert len(np.unique(frames[0].track_ids)) == 3 and np.array_equal(frames[0].track_ids, frames[1].track_ids)


def test_nothing_but_void_is_a_legal_frame(tmp_path):
    writer = result_folders.VipsegWriter(tmp_path, CLASSES)
    void = PanopticFrame("1", np.full((2, 2), result_folders.UNKNOWN, np.uint8), np.zeros((2, 2), np.int32))
    with writer.video("v") as result:
        result.write(void)
    (frame,) = result_folders.read_video(tmp_path, "v", CLASSES)
    assert frame.categories.tolist() == void.categories.tolist() and not frame.track_ids.any()


def test_a_video_that_fails_leaves_the_earlier_result(tmp_path):
    for stem in ("old", "new"):
        writer = result_folders.VipsegWriter(tmp_path, CLASSES)
        with writer.video("v") as result:
            result.write(small_frame(stem))
    before = (tmp_path / "pred.json").read_text()
    writer = result_folders.VipsegWriter(tmp_path, CLASSES)
    with pytest.raises(RuntimeError), writer.video("v") as result:
        result.write(small_frame("broken"))
        raise RuntimeError
    with pytest.raises(RuntimeError), writer.video("w"):
        raise RuntimeError
    assert (tmp_path / "pred.json").read_text() == before
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*.png"))] == ["pan_pred/v/new.png"]
    assert [p.name for p in (tmp_path / "pan_pred").iterdir()] == ["v"]


def test_videos_of_earlier_runs_stay_listed(tmp_path):
    for video in ("a", "b", "a"):
        writer = result_folders.VipsegWriter(tmp_path, CLASSES)
        with writer.video(video) as result:
            result.write(small_frame())
    listed = [record["video_id"] for record in json.loads((tmp_path / "pred.json").read_text())["annotations"]]
    assert listed == ["a", "b"]


def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        result_folders.VipsegWriter(tmp_path / "file", CLASSES)
    with pytest.raises(UserError, match="cannot be written"):
        result_folders.VipsegWriter(tmp_path / "file" / "below", CLASSES)


def test_a_foreign_pred_json_is_left_alone(tmp_path):
    (tmp_path / "pred.json").write_text("[1, 2")
    with pytest.raises(UserError, match="pred.json"):
        result_folders.VipsegWriter(tmp_path, CLASSES)
    assert (tmp_path / "pred.json").read_text() == "[1, 2"


def test_reading_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="no video 'v'"):
        next(result_folders.read_video(tmp_path, "v", CLASSES))
    writer = result_folders.VipsegWriter(tmp_path, CLASSES)
    with writer.video("v") as result:
        result.write(small_frame("00000001"))
    (tmp_path / "pan_pred" / "v" / "00000001.png").unlink()
    with pytest.raises(UserError, match="00000001.png"):
        next(result_folders.read_video(tmp_path, "v", CLASSES))


def test_vspw_results_are_class_maps(tmp_path):
    writer = result_folders.make_writer(tmp_path / "out", "vspw", CLASSES)
    with writer.video("7_a") as result:
        result.write(small_frame("00000003"))
    with pytest.raises(RuntimeError), writer.video("broken") as result:
        result.write(small_frame("00000003"))
        raise RuntimeError
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".state", "7_a"]
    image = cv2.imread(str(tmp_path / "out" / "7_a" / "00000003.png"), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint8 and image.tolist() == small_frame().categories.tolist()


def test_davis_results_are_palette_maps_of_tracks(tmp_path):
    writer = result_folders.make_writer(tmp_path, "davis", CLASSES)
    with writer.video("v") as result:
        result.write(small_frame("00000"))
    picture = Image.open(tmp_path / "v" / "00000.png")
    assert picture.mode == "P" and np.asarray(picture).tolist() == small_frame().track_ids.tolist()
    colors = np.array(picture.getpalette()).reshape(-1, 3)
    assert colors[:5].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    crowd = small_frame()._replace(track_ids=np.full((2, 3), 300, np.int32))
    with pytest.raises(UserError, match="track 300; a DAVIS map holds 254"), writer.video("w") as result:
        result.write(crowd)
    assert not (tmp_path / "w").exists()


def test_kitti_step_results_are_read_by_the_data_set(tmp_path):
    from vps_jax.datasets import kitti_step

    writer = result_folders.make_writer(tmp_path, "kitti-step", kitti_step.CLASSES)
    frame = PanopticFrame("000000", np.array([[0, 11, 13, 255]], np.uint8), np.array([[0, 300, 7, 0]], np.int32))
    with writer.video("0002") as result:
        result.write(frame)
    assert kitti_step.wide_values(tmp_path / "0002" / "000000.png").tolist() == [
        [0, 11 * kitti_step.numbering.WIDE + 300, 13 * kitti_step.numbering.WIDE + 7, -1]
    ]


def test_youtube_vis_results_have_a_mask_per_track_and_frame(tmp_path):
    from pycocotools import mask as coco

    writer = result_folders.make_writer(tmp_path, "ytvis", CLASSES)
    second = PanopticFrame("b", np.full((2, 3), WALL, np.uint8), np.zeros((2, 3), np.int32))
    for video in ("2", "1"):
        with writer.video(video, order=("1", "2")) as result:
            result.write(small_frame("a")._replace(scores={1: 0.75, 9: 0.5}))
            result.write(second)
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [(row["video_id"], row["track"], row["score"]) for row in rows] == [
        (1, 1, 0.75), (1, 9, 0.5), (2, 1, 0.75), (2, 9, 0.5),
    ]  # fmt: skip
    first, missing = rows[0]["segmentations"]
    assert missing is None and rows[0]["category_id"] == CAR
    assert np.array_equal(coco.decode(first), small_frame().track_ids == 1)


def test_coco_results_hold_every_segment(tmp_path):
    from pycocotools import mask as coco

    writer = result_folders.make_writer(tmp_path, "coco-rle", CLASSES)
    with writer.video("v") as result:
        result.write(small_frame("a"))
    rows = json.loads((tmp_path / "results.json").read_text())
    assert {(row["image_id"], row["category_id"], row["track"]) for row in rows} == {
        ("a", WALL, 0), ("a", CAR, 1), ("a", CAR, 9),
    }  # fmt: skip
    assert sum(int(coco.area(row["segmentation"])) for row in rows) == 5  # one pixel is unknown


def test_an_archive_holds_the_results_alone_and_has_the_same_bytes_again(tmp_path):
    writer = result_folders.VipsegWriter(tmp_path / "out", CLASSES)
    with writer.video("v") as result:
        result.write(small_frame())
    for extra in ("overlay/v.mp4", "tracks/v.json", "pan_pred/.v.partial/1.png"):
        (tmp_path / "out" / extra).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / extra).write_text("no result")
    for name in ("a.zip", "new/b.zip"):
        assert write_archive(tmp_path / "out", tmp_path / name) == 2
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert sorted(archive.namelist()) == ["pan_pred/v/00000001.png", "pred.json"]
        assert archive.read("pred.json") == (tmp_path / "out" / "pred.json").read_bytes()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "new" / "b.zip").read_bytes()


def test_results_of_other_classes_are_not_mixed(tmp_path):
    writer = result_folders.VipsegWriter(tmp_path, CLASSES)
    with writer.video("a") as result:
        result.write(small_frame())
    rows = CLASSES.rows()
    recolored = from_rows([{**row, "color": [1, 2, i]} for i, row in enumerate(rows)])
    result_folders.VipsegWriter(tmp_path, recolored)  # the same classes in other colours
    before = (tmp_path / "classes.json").read_bytes()
    with pytest.raises(
        UserError, match="its videos have 124 classes from 'wall' on, these are 10 from 'wall' on; choose"
    ):
        result_folders.VipsegWriter(tmp_path, from_rows(rows[:10]))
    assert (tmp_path / "classes.json").read_bytes() == before
    result_folders.VipsegWriter(tmp_path / "new", from_rows(rows[:10]))


def test_the_root_of_an_own_set_of_tracks_has_no_place_for_classes_alone(monkeypatch):
    tracks = SimpleNamespace(writer="vps_jax.media.mask_lists:ytvis_writer")
    monkeypatch.setattr(result_folders, "recognize", lambda root: tracks)
    with pytest.raises(UserError, match="format 'data/fish/truth': holds tracks, and task 'semantic' has none"):
        result_folders.check_has_tracks("semantic", "data/fish/truth")
    for layout in ("vipseg", "vspw", "kitti-step", "coco-rle"):
        result_folders.check_has_tracks("semantic", layout)
