"""VIPSeg result folders: colours, files, reading back, and folders that are never half-written."""

import json

import cv2
import numpy as np
import pytest

from vps_jax import taxonomy
from vps_jax.media import writers
from vps_jax.types import PanopticFrame, UserError

CATEGORIES = taxonomy.categories("vipseg")
THINGS = taxonomy.class_table("vipseg").thing_ids
WALL, CAR, SLIDE = 0, 48, 6  # slide (stuff) and car (thing) have the same colour in VIPSeg's table


def small_frame(stem="00000001"):
    """Wall with car 1 (two pixels) and car 9 (one), one unknown pixel."""
    categories = np.array([[WALL, CAR, CAR], [CAR, WALL, writers.UNKNOWN]], np.uint8)
    track_ids = np.array([[0, 1, 1], [9, 0, 0]], np.int32)
    return PanopticFrame(stem, categories, track_ids)


def test_stuff_has_its_colour_and_things_have_free_ones():
    colors = writers.SegmentColors(CATEGORIES)
    base = {row["id"]: tuple(row["color"]) for row in CATEGORIES}
    assert base[SLIDE] == base[CAR] == (140, 140, 140)
    assert colors.stuff(WALL) == base[WALL]
    first_person, second_person, car = colors.track(4, 60), colors.track(2, 60), colors.track(7, CAR)
    assert first_person == base[60]
    assert car != base[CAR]  # it would be taken for a slide
    assert colors.track(4, 60) == first_person
    assert len({first_person, second_person, car}) == 3
    for color, category in ((second_person, 60), (car, CAR)):
        assert max(abs(a - b) for a, b in zip(color, base[category], strict=True)) <= 30


def test_colours_are_the_same_on_every_machine_and_enough_for_a_crowd():
    draws = [writers.SegmentColors(CATEGORIES) for _ in range(2)]
    a, b = ([colors.track(i, 60) for i in range(3000)] for colors in draws)
    assert a == b and len(set(a)) == 3000 and (0, 0, 0) not in a


def test_segments_of_a_frame():
    colors = writers.SegmentColors(CATEGORIES)
    image, rows = writers.encode_frame(small_frame(), colors)
    ids = image.astype(int) @ [1, 256, 65536]
    wall = writers.color_id(CATEGORIES[WALL]["color"])
    one, nine = (writers.color_id(colors.track(i, CAR)) for i in (1, 9))
    assert ids.tolist() == [[wall, one, one], [nine, wall, 0]]
    assert rows == [
        {"id": wall, "category_id": WALL, "iscrowd": 0, "area": 2},
        {"id": one, "category_id": CAR, "iscrowd": 0, "area": 2},
        {"id": nine, "category_id": CAR, "iscrowd": 0, "area": 1},
    ]


def test_a_folder_is_written_and_read_back(tmp_path):
    writer = writers.VipsegWriter(tmp_path / "out", categories=CATEGORIES)
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
    frames = list(writers.read_video(tmp_path / "out", "7_a_b", thing_ids=THINGS))
    assert [frame.stem for frame in frames] == ["00000003", "00000006"]
    assert frames[1].categories.tolist() == small_frame().categories.tolist()
    # numbered anew: segment ids tell tracks apart, not their old numbers
    assert np.array_equal(frames[1].track_ids > 0, small_frame().track_ids > 0)
    assert len(np.unique(frames[0].track_ids)) == 3 and np.array_equal(frames[0].track_ids, frames[1].track_ids)


def test_nothing_but_void_is_a_legal_frame(tmp_path):
    writer = writers.VipsegWriter(tmp_path, categories=CATEGORIES)
    void = PanopticFrame("1", np.full((2, 2), writers.UNKNOWN, np.uint8), np.zeros((2, 2), np.int32))
    with writer.video("v") as result:
        result.write(void)
    (frame,) = writers.read_video(tmp_path, "v", thing_ids=THINGS)
    assert frame.categories.tolist() == void.categories.tolist() and not frame.track_ids.any()


def test_a_video_that_fails_leaves_the_earlier_result(tmp_path):
    for stem in ("old", "new"):
        writer = writers.VipsegWriter(tmp_path, categories=CATEGORIES)
        with writer.video("v") as result:
            result.write(small_frame(stem))
    before = (tmp_path / "pred.json").read_text()
    writer = writers.VipsegWriter(tmp_path, categories=CATEGORIES)
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
        writer = writers.VipsegWriter(tmp_path, categories=CATEGORIES)
        with writer.video(video) as result:
            result.write(small_frame())
    listed = [record["video_id"] for record in json.loads((tmp_path / "pred.json").read_text())["annotations"]]
    assert listed == ["a", "b"]


def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        writers.VipsegWriter(tmp_path / "file", categories=CATEGORIES)
    with pytest.raises(UserError, match="cannot be written"):
        writers.VipsegWriter(tmp_path / "file" / "below", categories=CATEGORIES)


def test_a_foreign_pred_json_is_left_alone(tmp_path):
    (tmp_path / "pred.json").write_text("[1, 2")
    with pytest.raises(UserError, match="pred.json"):
        writers.VipsegWriter(tmp_path, categories=CATEGORIES)
    assert (tmp_path / "pred.json").read_text() == "[1, 2"


def test_reading_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="no video 'v'"):
        next(writers.read_video(tmp_path, "v", thing_ids=THINGS))
    writer = writers.VipsegWriter(tmp_path, categories=CATEGORIES)
    with writer.video("v") as result:
        result.write(small_frame("00000001"))
    (tmp_path / "pan_pred" / "v" / "00000001.png").unlink()
    with pytest.raises(UserError, match="00000001.png"):
        next(writers.read_video(tmp_path, "v", thing_ids=THINGS))


def test_vspw_results_are_class_maps(tmp_path):
    writer = writers.VspwWriter(tmp_path / "out")
    with writer.video("7_a") as result:
        result.write(small_frame("00000003"))
    with pytest.raises(RuntimeError), writer.video("broken") as result:
        result.write(small_frame("00000003"))
        raise RuntimeError
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["7_a"]
    image = cv2.imread(str(tmp_path / "out" / "7_a" / "00000003.png"), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint8 and image.tolist() == small_frame().categories.tolist()
