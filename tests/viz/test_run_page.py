"""The page of a run: its numbers worked out by hand, its pictures read back, and nothing that needs a network."""

import base64
import io
import json
import re
import zlib
from fractions import Fraction

import cv2
import numpy as np
import pytest

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation.protocol import CLASSES as CLASS_TABLE
from vps_jax.evaluation.protocol import Table
from vps_jax.types import PanopticFrame
from vps_jax.viz import run_page
from vps_jax.viz.overlay import UNKNOWN, track_color

CLASSES = ClassTable(("sky", "</script>", "cat"), ((0, 0, 255), (9, 9, 9), (200, 0, 0)), (False, False, True))
SKY, CAT = 0, 2


def frames():
    """Sky; cats 5 and 2 in frames 0 and 2; frame 1 has cat 5 alone and a pixel without class."""
    categories = np.array([[[0, 0, 0, 2], [0, 0, 2, 2]], [[0, 0, 0, 255], [0, 0, 0, 2]], [[0, 0, 0, 2], [0, 0, 2, 2]]])
    tracks = np.array([[[0, 0, 0, 5], [0, 0, 2, 2]], [[0, 0, 0, 0], [0, 0, 0, 5]], [[0, 0, 0, 5], [0, 0, 2, 2]]])
    stems = ("a", "b", "c")
    return [
        PanopticFrame(*row) for row in zip(stems, categories.astype(np.uint8), tracks.astype(np.int32), strict=True)
    ]


def unpack(text, shape):
    """The slow way back from `pack_labels`."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, *shape).astype(np.uint16)
    labels = planes[0] + 256 * planes[1]
    for y in range(1, shape[0]):
        labels[y] ^= labels[y - 1]
    return labels


def blocks(text):
    """The blocks of json of a page, as a browser finds them."""
    found = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', text, re.S)
    return {name: json.loads(content) for name, content in found}


@pytest.fixture
def content():
    page = run_page.VideoPage(3, (0, 2), side=640)
    for i, frame in enumerate(frames()):
        image = np.full((2, 4, 3), (250, 100, 20 * i), np.uint8) if page.wants(i) else None
        page.add(frame, image, None if image is None else i / 10)
    return page.content("v", CLASSES, scores={5: 0.75}, rows=[("vpq", 50.0)], notes=["n"])


def test_numbers_of_a_video(content):
    assert content["stems"] == ["a", "b", "c"] and content["size"] == [2, 4] and content["step"] == 1
    assert content["areas"] == {SKY: [5, 6, 5], CAT: [3, 1, 3]}
    assert content["classes"] == [
        {"class": SKY, "frames": 3, "mean": round(16 / 24, 6), "most": 0.75},
        {"class": CAT, "frames": 3, "mean": round(7 / 24, 6), "most": 0.375},
    ]
    two, five = content["tracks"]
    assert (two["track"], two["spans"], two["frames"], two["pixels"], two["score"]) == (
        2,
        [[0, 0], [2, 2]],
        2,
        2.0,
        None,
    )
    assert (five["track"], five["spans"], five["frames"], five["pixels"], five["score"]) == (5, [[0, 2]], 3, 1.0, 0.75)
    assert content["scores"] == [["vpq", 50.0]] and content["notes"] == ["n"]


def test_labels_name_segments_with_the_colours_of_the_overlay(content):
    first, last = content["pictures"]
    assert (first["frame"], first["time"], last["frame"], last["time"]) == (0, 0.0, 2, 0.2)
    assert first["areas"] == {SKY: 5, CAT: 3}
    segments = content["segments"]
    for picture, frame in ((first, frames()[0]), (last, frames()[2])):
        rows = [segments[label] for label in unpack(picture["labels"], (2, 4)).ravel()]
        assert [row["class"] for row in rows] == frame.categories.ravel().tolist()
        assert [row["track"] for row in rows] == frame.track_ids.ravel().tolist()
    assert segments[0] == {"class": -1, "track": 0, "color": [0, 0, 0]}
    colors = {row["track"]: row["color"] for row in segments if row["class"] == CAT}
    assert colors == {2: list(track_color(2)), 5: list(track_color(5))}
    assert [row["color"] for row in segments if row["class"] == SKY] == [[0, 0, 255]]
    for row in content["tracks"]:
        assert segments[row["segment"]]["track"] == row["track"]


def test_a_pixel_without_class_is_segment_zero():
    page = run_page.VideoPage(1, (0,), side=640)
    page.add(frames()[1])
    picture = page.content("v", CLASSES)["pictures"][0]
    assert unpack(picture["labels"], (2, 4))[0, 3] == 0 and picture["image"] is None


def test_images_are_what_was_given(content):
    data = np.frombuffer(base64.b64decode(content["pictures"][1]["image"]), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    assert image.shape == (2, 4, 3) and np.abs(image.astype(int) - (250, 100, 40)).max() < 12


def test_labels_beyond_a_byte_survive():
    labels = np.random.default_rng(0).integers(0, 1 << 16, (37, 23)).astype(np.uint16)
    assert np.array_equal(unpack(run_page.pack_labels(labels), labels.shape), labels)


@pytest.mark.parametrize(
    ("shape", "side", "aspect", "expected"),
    [
        ((480, 854), 640, 1, (640, 360)),
        ((1280, 720), 640, 1, (360, 640)),
        ((64, 128), 640, 1, (128, 64)),  # never enlarged
        ((576, 720), 512, Fraction(16, 15), (512, 384)),
        ((1, 5000), 500, 1, (500, 1)),
    ],
)
def test_sizes_of_pictures(shape, side, aspect, expected):
    assert run_page.picture_size(shape, side, float(aspect)) == expected


def test_large_pictures_are_made_smaller_and_wide_pixels_square():
    page = run_page.VideoPage(1, (0,), side=8, pixel_aspect=Fraction(2))
    frame = PanopticFrame("a", np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.int32))
    page.add(frame, np.zeros((8, 8, 3), np.uint8), 0.0)
    content = page.content("v", CLASSES)
    assert content["picture"] == [4, 8] and content["areas"] == {SKY: [64]}
    assert unpack(content["pictures"][0]["labels"], (4, 8)).min() == 1


def test_long_videos_keep_every_so_many_areas_and_all_numbers(monkeypatch):
    monkeypatch.setattr(run_page, "MOST_POINTS", 2)
    page = run_page.VideoPage(3, (), side=640)
    for frame in frames():
        page.add(frame)
    content = page.content("v", CLASSES)
    assert content["step"] == 2 and content["areas"] == {SKY: [5, 5], CAT: [3, 3]}
    assert content["classes"][0]["most"] == 0.75 and content["pictures"] == []


def test_a_page_holds_its_blocks_whatever_the_names_are(content):
    rows = Table(CLASS_TABLE, "t", ("class", "vpq"), [("</script>", None), ("cat", 1.5)])
    head = run_page.Head(
        "<b>run</b>", run_page.class_rows(CLASSES), [{"name": "</script>", "frames": 3}],
        tables=[run_page.table(rows, "Scores")], plots=[run_page.plot("bars", b"png")],
    )  # fmt: skip
    file = io.StringIO()
    run_page.write_page(file, head, iter([content]))
    found = blocks(file.getvalue())
    assert found["video0"] == json.loads(json.dumps(content))
    assert found["head"]["classes"][1] == {"name": "</script>", "thing": False, "color": [9, 9, 9]}
    assert found["head"]["tables"][0]["rows"] == [["</script>", None], ["cat", 1.5]]
    assert base64.b64decode(found["head"]["plots"][0]["png"]) == b"png"
    assert list(found) == ["head", "video0"]


def test_a_page_asks_for_nothing_from_outside():
    text = "".join(run_page.page(run_page.Head("run", [], []), []))
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text) and "@import" not in text and "fetch(" not in text
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}  # the name of SVG
    assert "/* style */" not in text and "/* script */" not in text


def test_unknown_is_the_number_of_the_result_files():
    from vps_jax.media import result_folders

    assert UNKNOWN == result_folders.UNKNOWN
