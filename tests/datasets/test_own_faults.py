"""Faults in the files of a user's own data: each is one line that names the place, the value and what is expected."""

import json

import numpy as np
import own_scenes
import pytest

from vps_jax import files
from vps_jax.data import check, prepare
from vps_jax.datasets.label_files import read_mask
from vps_jax.datasets.own import specification
from vps_jax.types import UserError

DRAWN = list(own_scenes.drawn({"train": 2, "val": 1}, size=(24, 32), frames=3))
FORMS = {
    "index": own_scenes.as_index,
    "palette": own_scenes.as_palette,
    "panoptic-video": own_scenes.as_panoptic_video,
    "ytvis": own_scenes.as_ytvis,
    "coco": own_scenes.as_coco,
}


@pytest.fixture
def root(tmp_path):
    own_scenes.write_frames(tmp_path / "source", DRAWN)
    return tmp_path / "source"


def made(root, form):
    """The specification of data in a form."""
    return specification(FORMS[form](root, DRAWN))


def report(root, form):
    return check.check(made(root, form), root, progress=False)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def put(*keys):
    """A change that sets the last of the keys at the place that the others lead to."""
    *way, last, value = keys

    def change(content):
        for key in way:
            content = content[key]
        content[last] = value

    return change


def twice(*way):
    """A change that puts the first entry of a list into it again."""

    def change(content):
        for key in way:
            content = content[key]
        content.append(content[0])

    return change


def same_track(content):
    content["annotations"][1].update({k: content["annotations"][0][k] for k in ("image_id", "track_id", "category_id")})


FRAME = ("annotations", 0, "annotations", 0)
SEGMENT = (*FRAME, "segments_info", 0)
ANY_ID, ANY_FILE = "expected a whole number or a text", "expected the path of a file below its folder"


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        ("ytvis", put("videos", 0, "id", [1]), rf"train.json: videos\[0\]: id is \[1\]; {ANY_ID}"),
        ("ytvis", put("videos", 0, 7), r"videos\[0\] is 7; expected entries with id, width, height, file_names"),
        ("ytvis", put("videos", 0, "width", "a"), r"videos\[0\]: width is 'a'; expected a whole number of pixels"),
        ("ytvis", put("videos", 0, "file_names", 0, 3), rf"video 1: file_names\[0\] is 3; {ANY_FILE}"),
        ("ytvis", put("videos", 0, "file_names", 0, "/etc/passwd"), rf"file_names\[0\] is '/etc/passwd'; {ANY_FILE}"),
        ("ytvis", put("videos", 0, "file_names", 0, "train0/../../x"), rf"is 'train0/../../x'; {ANY_FILE}"),
        ("ytvis", put("videos", 0, "file_names", 1, "train0/0.png"), r"file_names\[0\] and \[1\] are both 'train0/0.p"),
        ("ytvis", put("annotations", 0, "video_id", [1]), rf"annotations\[0\]: video_id is \[1\]; {ANY_ID}"),
        ("ytvis", put("annotations", 0, "category_id", [1]), rf"annotations\[0\]: category_id is \[1\]; {ANY_ID}"),
        ("ytvis", put("annotations", 0, "category_id", 99), "category 99, which is not in the class file; add it to"),
        ("ytvis", put("annotations", 1, "id", 1), r"annotations has two entries with id 1; expected one each"),
        ("ytvis", put("annotations", 0, "segmentations", 5), r"annotations\[0\]: segmentations is 5; expected a list"),
        ("ytvis", put("categories", 5), r"'categories' is no list"),
        ("ytvis", put("categories", 0, "id", [3]), rf"categories\[0\]: id is \[3\]; {ANY_ID}"),
        ("coco", put("images", 0, "id", [1]), rf"images\[0\]: id is \[1\]; {ANY_ID}"),
        ("coco", put("images", 0, "width", None), r"images\[0\]: width is None; expected a whole number of pixels"),
        ("coco", put("images", 0, "file_name", 3), rf"images\[0\]: file_name is 3; {ANY_FILE}"),
        ("coco", put("images", 1, "file_name", "train0/0.png"), r"are both 'train0/0.png'; expected every frame once"),
        ("coco", put("annotations", 0, "track_id", [5]), rf"annotations\[0\]: track_id is \[5\]; {ANY_ID}"),
        ("coco", put("annotations", 0, "attributes", 5), r"annotations\[0\]: attributes is 5; expected an object"),
        ("coco", put("annotations", 1, "id", 0), r"annotations has two entries with id 0; expected one each"),
        ("coco", same_track, r"annotations\[1\] has track_id .* which is on train0/0.png already; expected"),
        ("panoptic-video", put("annotations", 0, 5), r"annotations\[0\] is 5; expected an object with keys"),
        ("panoptic-video", put("annotations", 0, "video_id", [0]), rf"annotations\[0\]: video_id is \[0\]; {ANY_ID}"),
        ("panoptic-video", put("annotations", 1, "video_id", "train0"), "two entries with video_id 'train0'; expected"),
        ("panoptic-video", twice("annotations", 0, "annotations"), "frame '0' of video 'train0' is there twice"),
        ("panoptic-video", put(*FRAME, "file_name", 4), rf"annotations\[0\]: file_name is 4; {ANY_FILE}"),
        ("panoptic-video", put(*FRAME, "segments_info", 5), r"segments_info is 5; expected a list"),
        ("panoptic-video", put(*SEGMENT, 5), "video train0: segment 5; expected id and category_id"),
        ("panoptic-video", put(*SEGMENT, "category_id", [1]), rf"category_id of segment \d+ is \[1\]; {ANY_ID}"),
        ("panoptic-video", twice(*FRAME, "segments_info"), r"segment id \d+ stands in segments_info of a frame twice"),
    ],
)  # fmt: skip
def test_a_json_that_breaks_a_rule(root, form, change, message):
    spec = made(root, form)
    edit(root / "train.json", change)
    with pytest.raises(UserError, match=message) as caught:
        check.check(spec, root, progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [[24], None, ["a", "b"], [-24, -32]])
def test_a_mask_whose_size_is_none(root, size):
    spec = made(root, "ytvis")
    edit(root / "train.json", put("annotations", 0, "segmentations", 0, {"size": size, "counts": [24 * 32]}))
    (line,) = check.check(spec, root, progress=False).problems
    assert line.endswith(f"video 1, 0.png: the size of a mask is {size}; expected height and width in pixels")


@pytest.mark.parametrize(("form", "key"), [("ytvis", "segmentations"), ("coco", "segmentation")])
def test_annotations_without_a_mask_are_counted_and_not_trained_on_alone(root, tmp_path, form, key):
    spec = made(root, form)

    def boxes(content, first):
        for row in content["annotations"][:first]:
            row[key] = [] if form == "coco" else [None] * len(row[key])

    edit(root / "train.json", lambda content: boxes(content, 2))
    words = "annotations without a mask, left out"
    assert check.check(spec, root, progress=False).splits[0].findings == {words: 2}
    found = prepare.prepare(spec, root, tmp_path / "out", progress=False)
    assert found["train"]["findings"] == {words: 2}
    edit(root / "train.json", lambda content: boxes(content, None))
    with pytest.raises(UserError, match=r"train.json: none of \d+ annotations has a mask; .* boxes cannot be trained"):
        check.check(spec, root, progress=False)


def test_segments_that_the_picture_does_not_show_are_counted(root):
    spec = made(root, "panoptic-video")
    edit(root / "train.json", lambda c: c["annotations"][0]["annotations"][0]["segments_info"].append(
        {"id": 9999, "category_id": 7}
    ))  # fmt: skip
    found = check.check(spec, root, progress=False)
    assert found.splits[0].findings == {"ids in a json that its PNG does not show": 1} and not found.problems


def test_a_value_that_means_nothing_has_one_line_whatever_number_of_frames(root, tmp_path):
    spec = made(root, "index")
    paths = [root / "labels" / "train" / "train0" / f"{frame}.png" for frame in range(3)]
    for count, path in enumerate(paths):
        labels = read_mask(path).copy()
        labels[0, : 2 + count] = 99
        labels[1, 0] = 98 if count == 1 else labels[1, 0]
        files.write_image(path, labels)
    rest = "is not in the class file; add it to its classes or to void"
    assert check.check(spec, root, progress=False).problems == (
        f"{paths[0]}: value 99 on 9 pixels in 3 frames, first this one, {rest}",
        f"{paths[1]}: value 98 on 1 pixels {rest}",
    )
    paths[0].unlink()
    with pytest.raises(UserError, match="1.png: value 98 on 1 pixels, value 99 on 3 pixels are not in the class file"):
        prepare.prepare(spec, root, tmp_path / "out", progress=False)


def move(path, *parts):
    target = path.parent.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)


def test_files_that_nothing_accounts_for_are_counted_and_the_first_is_named(root):
    spec = made(root, "index")
    images, labels = root / "frames" / "train", root / "labels" / "train"
    (images / "train0" / "1.png").unlink()
    files.write_image(images / "train0" / "2.jpg", np.zeros((24, 32, 3), np.uint8))
    (images / "empty").mkdir()
    move(root / "frames" / "val" / "val0", "more", "val0")  # so the split has no frame at all
    move(root / "labels" / "val" / "val0", "more", "val0")
    assert check.check(spec, root, progress=False).problems == (
        f"1 frames of train have two images, first {images / 'train0' / '2.jpg'} and 2.png; expected one each",
        f"1 folders of train have no frame, first {images / 'empty'}",
        f"1 labels of train have no image, first {labels / 'train0' / '1.png'}",
        f"1 object maps of train have no image, first {root / 'instances' / 'train' / 'train0' / '1.png'}",
        f"3 images of val are one folder further down than --frames says, first "
        f"{root / 'frames' / 'val' / 'more' / 'val0' / '0.png'}",
        f"3 object maps of val have no image, first {root / 'instances' / 'val' / 'val0' / '0.png'}",
    )


@pytest.mark.parametrize("form", ["panoptic-video", "ytvis", "coco"])
def test_images_that_a_json_lists_and_that_are_not_there_are_named(root, form):
    spec = made(root, form)
    path = root / "frames" / "train" / "train1" / "1.png"
    path.unlink()
    problems = check.check(spec, root, progress=False).problems
    source = root / "train.json"
    assert problems[0] == {
        "panoptic-video": f"1 labels of train have no image, first {root / 'labels' / 'train' / 'train1' / '1.png'}",
    }.get(form, f"{source}: 1 listed images are not there, first {path}")
    if form == "panoptic-video":
        (root / "labels" / "train" / "train0" / "2.png").unlink()
        assert check.check(spec, root, progress=False).problems[1:] == (
            f"1 frames of {source} have no image, first train1/1",
            f"1 frames of {source} have no label, first train0/2",
        )


def test_names_that_are_not_those_of_the_class_file_are_told(root):
    spec = made(root, "ytvis")
    edit(root / "train.json", put("categories", 2, "name", "elephant"))
    with pytest.warns(UserWarning, match="train.json: categories have other names .*: 20 is 'elephant', there 'ball'$"):
        assert not check.check(spec, root, progress=False).problems
    spec = made(root, "palette")
    (root / "labelmap.txt").write_text("background:0,0,0::\nSky:1,1,1::\ncars:2,2,2::\n")
    with pytest.warns(UserWarning, match="labelmap.txt: cars: no class of the class file, so void$"):
        check.check(spec, root, progress=False)


def test_a_picture_in_place_of_a_label_does_not_fill_the_report(root, tmp_path):
    spec = made(root, "index")
    path = root / "labels" / "train" / "train0" / "0.png"
    files.write_image(path, (1000 + np.arange(24 * 32).reshape(24, 32)).astype(np.uint16))
    problems = check.check(spec, root, progress=False).problems
    assert len(problems) == check.VALUES + 1 and problems[0].startswith(f"{path}: value 1000 on 1 pixels is not in")
    assert problems[-1].startswith(f"{24 * 32 - check.VALUES} more values mean nothing; expected labels in the form")
    with pytest.raises(UserError, match="value 1007 on 1 pixels, 760 more are not in the class file"):
        prepare.prepare(spec, root, tmp_path / "out", progress=False)
