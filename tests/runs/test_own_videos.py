"""Own data whose frames are in video files: labels name frames by their number, and nothing is unpacked twice."""

import json
import shutil

import numpy as np
import pytest
from own_scenes import write
from typer.testing import CliRunner

from vps_jax.cli import app
from vps_jax.data import records
from vps_jax.datasets import dataset
from vps_jax.media.movie_writer import MovieWriter
from vps_jax.runs.own_videos import name_of
from vps_jax.types import UserError

COLORS = [(40, 40, 40), (200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)]
CLASSES = "{name: clips, classes: [{value: 1, name: wall}, {value: 2, name: floor}]}"


def write_video(path, colors=COLORS):
    path.parent.mkdir(parents=True, exist_ok=True)
    with MovieWriter(path, fps=5) as writer:
        for color in colors:
            writer.write(np.full((32, 48, 3), color, np.uint8))


def write_label(root, split, name):
    labels = np.ones((32, 48), np.uint8)
    labels[16:] = 2
    write(root / "labels" / split / "drive" / f"{name}.png", labels)


@pytest.fixture
def root(tmp_path):
    """Of train the frames 1 and 3 have a label, of val frame 2."""
    root = tmp_path / "clips"
    for split, names in (("train", ("f_01", "f_03")), ("val", ("2",))):
        write_video(root / "frames" / split / "drive.mp4")
        for name in names:
            write_label(root, split, name)
    (tmp_path / "classes.yaml").write_text(CLASSES)
    return root


def command(name, root, *more):
    words = ["data", name, "own", "--source", root, "--classes", root.parent / "classes.yaml", *more]
    found = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(found.exception, UserError):
        raise found.exception
    assert found.exit_code == 0, (found.output, found.exception)
    return found.output


def test_frames_of_videos_are_those_that_their_labels_name(root, tmp_path):
    assert "3 videos" not in command("check", root) and sorted(p.name for p in tmp_path.iterdir()) == [
        "classes.yaml", "clips",
    ]  # fmt: skip
    out = tmp_path / "out"
    command("prepare", root, "--out", out, "--workers", 1)
    opened = records.open_records(out / "records", "train")
    (video,) = opened.videos
    assert (video.name, video.stems) == ("drive", ("f_01", "f_03"))
    for i, color in enumerate((COLORS[1], COLORS[3])):
        image, labels = records.read_frame(opened, video, i)
        assert np.abs(image.astype(int) - color).max() < 16  # two lossy codes
        assert labels[0, 0] == 256 and labels[-1, 0] == 512
    before = (out / "frames" / "train" / "drive" / "f_01.jpg").stat().st_mtime_ns
    command("prepare", root, "--out", out, "--workers", 1)
    assert (out / "frames" / "train" / "drive" / "f_01.jpg").stat().st_mtime_ns == before
    shutil.move(out, tmp_path / "moved")
    truth = tmp_path / "moved" / "truth"
    (video,) = dataset(str(truth)).predicted(truth, "val")  # all frames, for the context
    assert [path.stem for path in video.images] == ["0", "1", "2", "3", "4"]
    assert [mask is not None for mask in video.masks] == [False, False, True, False, False]


def test_a_pattern_may_name_the_videos(root, tmp_path):
    (root / "frames").rename(root / "films")
    command("prepare", root, "--out", tmp_path / "out", "--workers", 1, "--frames", "films/{split}/{video}.mp4")
    assert len(records.open_records(tmp_path / "out" / "records", "val").videos) == 1


def test_a_json_names_frames_by_eight_digits(root, tmp_path):
    names = ["drive/00000001.jpg", "drive/00000003.jpg"]
    code = {"size": [32, 48], "counts": [0, 32 * 48]}
    for split in ("train", "val"):
        content = {
            "videos": [{"id": 5, "file_names": names, "height": 32, "width": 48}],
            "annotations": [{"id": 1, "video_id": 5, "category_id": 2, "segmentations": [code, None]}],
            "categories": [{"id": 1, "name": "wall"}, {"id": 2, "name": "floor"}],
        }
        (root / f"{split}.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    command("prepare", root, "--out", out, "--workers", 1, "--format", "ytvis")
    (video,) = records.open_records(out / "records", "train").videos
    assert video.stems == ("00000001", "00000003") and video.instances == (1, 0)
    assert json.loads((out / "truth" / "val.json").read_text())["videos"][0]["file_names"] == names


def test_images_without_a_label_are_named_as_those_with_one():
    assert [name_of(i, {3: "f_003_x", 5: "f_005_x"}) for i in (0, 3, 1234)] == ["f_000_x", "f_003_x", "f_1234_x"]
    assert name_of(7, {}) == "00000007"


def test_what_does_not_fit_is_refused_and_leaves_nothing(root, tmp_path):
    out = tmp_path / "out"
    write_label(root, "train", "12")
    with pytest.raises(
        UserError, match="drive.mp4: no frame for label 12; expected a number from 0 to 4, counted from"
    ):
        command("prepare", root, "--out", out)
    assert not (out / "frames" / "train" / "drive").exists() and not (out / "truth").exists()
    (root / "labels" / "train" / "drive" / "12.png").unlink()
    command("prepare", root, "--out", out, "--workers", 1)
    write_video(root / "frames" / "val" / "drive.mp4", COLORS[:3])
    with pytest.raises(UserError, match="frames/val/drive is not of .*drive.mp4, or that or its labels have"):
        command("prepare", root, "--out", out)
    command("prepare", root, "--out", out, "--workers", 1, "--again")
    assert len(list((out / "frames" / "val" / "drive").glob("*.jpg"))) == 3
    write_label(root, "train", "f_04")  # a frame that was not unpacked
    with pytest.raises(UserError, match="frames/train/drive is not of .* its labels have changed; give --again"):
        command("prepare", root, "--out", out)
    command("prepare", root, "--out", out, "--workers", 1, "--again")
    assert len(list((out / "frames" / "train" / "drive").glob("*.jpg"))) == 3


def test_images_beside_video_files_and_two_files_of_one_video_are_refused(root, tmp_path):
    write(root / "frames" / "train" / "walk" / "0.png", np.zeros((32, 48, 3), np.uint8))
    for name in ("check", "prepare"):
        more = ("--out", tmp_path / "out") if name == "prepare" else ()
        with pytest.raises(UserError, match="walk/0.png is an image and .*drive.mp4 a video file, one of 2; expected"):
            command(name, root, *more)
    shutil.rmtree(root / "frames" / "train" / "walk")
    write_video(root / "frames" / "train" / "drive.avi")
    with pytest.raises(UserError, match="drive.avi and drive.mp4 are one video; expected one file for each"):
        command("check", root)
    assert not (tmp_path / "out").exists()


def test_a_video_file_without_a_label_is_counted(root, tmp_path):
    write_video(root / "frames" / "train" / "walk.mp4")
    line = "video files without a label, such as walk: 1"
    assert f"train: {line}" in command("check", root)
    out = tmp_path / "out"
    assert f"  {line}" in command("prepare", root, "--out", out, "--workers", 1)
    assert [video.name for video in dataset(str(out / "truth")).predicted(out / "truth", "train")] == ["drive"]
    (root / "labels" / "train" / "drive").rename(root / "labels" / "train" / "other")
    with pytest.raises(UserError, match="drive.mp4: none of the 2 video files of train has a label; expected --labels"):
        command("check", root)
