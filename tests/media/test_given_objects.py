"""Objects to follow: PNGs of ids, clicks, and what is refused in one line."""

import json

import cv2
import numpy as np
import pytest

from vps_jax.media import given_objects
from vps_jax.media.sources import open_videos
from vps_jax.types import UserError


@pytest.fixture
def videos(tmp_path):
    found = []
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for stem in ("0", "1", "2"):
            cv2.imwrite(str(tmp_path / "in" / name / f"{stem}.png"), np.zeros((4, 6, 3), np.uint8))
        found += open_videos(tmp_path / "in" / name)
    return found


def write(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.array(ids, np.uint8))
    return path


FIRST = [[0, 1, 1, 7, 0, 255]] * 4
LATER = [[1, 1, 0, 7, 9, 255]] * 4


def test_an_object_is_taken_from_the_first_map_that_shows_it(tmp_path, videos):
    for name in ("a", "b"):
        write(tmp_path / "masks" / name / "0.png", FIRST)
        write(tmp_path / "masks" / name / "2.png", LATER)
        write(tmp_path / "masks" / name / "stray.png", LATER)
    shown = given_objects.with_masks(videos, tmp_path / "masks")
    assert [video.video_id for video in shown] == ["a", "b"]
    for video in shown:
        one, seven, nine = video.objects()
        assert [(x.object_id, x.stem) for x in (one, seven, nine)] == [(1, "0"), (7, "0"), (9, "2")]
        assert np.array_equal(one.mask, np.array(FIRST) == 1) and np.array_equal(nine.mask, np.array(LATER) == 9)


def test_one_video_takes_a_png_a_folder_or_an_array(tmp_path, videos):
    png = write(tmp_path / "m" / "0.png", FIRST)
    for source in (png, tmp_path / "m", np.array(FIRST)):
        (video,) = given_objects.with_masks(videos[:1], source)
        assert [(x.object_id, x.stem) for x in video.objects()] == [(1, "0"), (7, "0")]


def test_masks_are_part_of_what_made_a_result(tmp_path, videos):
    path = write(tmp_path / "m.png", FIRST)
    (before,) = given_objects.with_masks(videos[:1], path)
    found = before.fingerprint()
    assert found.startswith(videos[0].fingerprint()) and found != videos[0].fingerprint()
    path.write_bytes(path.read_bytes() + b"more")
    assert given_objects.with_masks(videos[:1], path)[0].fingerprint() != found


def test_wrong_masks_are_named(tmp_path, videos):
    png = write(tmp_path / "m" / "0.png", [[1, 2]])
    with pytest.raises(UserError, match="nowhere: does not exist; expected a PNG of object ids"):
        given_objects.with_masks(videos, tmp_path / "nowhere")
    with pytest.raises(UserError, match="m: no masks for video a; expected PNGs named as frames"):
        given_objects.with_masks(videos, tmp_path / "m")
    with pytest.raises(UserError, match="0.png: no masks for video a"):
        given_objects.with_masks(videos, png)
    with pytest.raises(UserError, match=r"0.png: has size \(1, 2\); expected \(4, 6\) as the video"):
        given_objects.with_masks(videos[:1], png)[0].objects()


def test_clicks_are_in_pixels_of_a_frame(tmp_path, videos):
    clicks = [{"object": 2, "x": 3, "y": 1}, {"object": 5, "x": 0, "y": 3, "frame": "1"}]
    for content in (clicks, {"a": clicks}):
        (tmp_path / "c.json").write_text(json.dumps(content))
        (video,) = given_objects.with_points(videos[:1], tmp_path / "c.json")
        two, five = video.objects()
        assert (two.object_id, two.stem, two.mask, five.object_id, five.stem) == (2, "0", None, 5, "1")
        np.testing.assert_allclose([two.point, five.point], [[1.5 / 4, 3.5 / 6], [3.5 / 4, 0.5 / 6]])
    (video,) = given_objects.with_points(videos[:1], {2: (3, 1)})
    np.testing.assert_allclose(video.objects()[0].point, two.point)


def test_first_frames_of_burst_are_clicks(tmp_path, videos):
    rows = [{"3": {"point": {"x": 3, "y": 1}, "rle": "x"}}, {}, {"4": {"point": {"x": 0, "y": 0}}}]
    row = {
        "dataset": "in",
        "seq_name": "a",
        "annotated_image_paths": ["0.jpg", "1.jpg", "2.jpg"],
        "segmentations": rows,
    }
    (tmp_path / "first.json").write_text(json.dumps({"sequences": [row]}))
    (video,) = given_objects.with_points([videos[0]._replace(video_id="in/a")], tmp_path / "first.json")
    assert [(x.object_id, x.stem) for x in video.objects()] == [(3, "0"), (4, "2")]
    del rows[2]["4"]["point"]
    (tmp_path / "first.json").write_text(json.dumps({"sequences": [row]}))
    with pytest.raises(UserError, match="in/a: track 4 has no point"):
        given_objects.with_points(videos, tmp_path / "first.json")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "cannot be read as json"),
        ("3", "is no list by video; expected"),
        ("{}", "no clicks for video a"),
        ('[{"object": 1, "x": 2}]', "click .*: expected"),
        ('[{"object": 0, "x": 2, "y": 1}]', "object 0 comes twice, or is below 1"),
        ('[{"object": 1, "x": 2, "y": 1}, {"object": 1, "x": 2, "y": 1}]', "object 1 comes twice"),
        ('[{"object": 1, "x": 2, "y": 1, "frame": "7"}]', "frame '7' is not among those that are read"),
    ],
)
def test_wrong_clicks_are_named(tmp_path, videos, content, line):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(UserError, match=f"c.json: .*{line}"):
        given_objects.with_points(videos[:1], tmp_path / "c.json")


def test_a_click_outside_of_the_frame_is_named(videos):
    (video,) = given_objects.with_points(videos[:1], {1: (6, 0)})
    with pytest.raises(UserError, match=r"object 1 at \(6, 0\) is not in 6x4 pixels"):
        video.objects()
