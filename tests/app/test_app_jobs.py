"""Runs of the local page: one after the other, stopped when they are not wanted, with files that go with the visit."""

import threading
import time
import zipfile

import cv2
import numpy as np
import pytest

from vps_jax.app import fragments
from vps_jax.app.frame_archives import unpack
from vps_jax.app.jobs import ARCHIVE, REPORT, Job, Jobs, Stopped, Wanted
from vps_jax.datasets.classes import class_table
from vps_jax.types import PanopticFrame, UserError
from vps_jax.viz.overlay import Style

CLASSES = class_table("vipseg")
WALL, CAR = 0, 48
SIZE = (32, 48)


class Stand:
    """In place of a segmenter: a wall with car 3. It waits for `go` before each frame, as slow models do."""

    classes, programs = CLASSES, {}

    def __init__(self):
        self.go, self.at_work = threading.Event(), threading.Event()
        self.go.set()
        self.tasks, self.videos = [], []

    def __call__(self, task):
        self.tasks.append(task)
        return self

    @property
    def predictor(self):
        return self

    def stream(self, video):
        self.videos.append(video.video_id)
        return video.frames()

    def fuse(self, frames, classes):
        for frame in frames:
            self.at_work.set()
            assert self.go.wait(60)
            categories, tracks = np.full(SIZE, WALL, np.uint8), np.zeros(SIZE, np.int32)
            categories[:8, :8], tracks[:8, :8] = CAR, 3
            yield PanopticFrame(frame.stem, categories, tracks, {3: 0.5})


@pytest.fixture
def model():
    return Stand()


@pytest.fixture
def jobs(model, tmp_path):
    made = Jobs(model, tmp_path / "app")
    yield made
    model.go.set()
    made.close()


def png(value=0, size=SIZE) -> bytes:
    return cv2.imencode(".png", np.full((*size, 3), value, np.uint8))[1].tobytes()


def upload(jobs_folder, name, content=None):
    """A file where gradio puts uploads: a folder named by its content."""
    folder = jobs_folder / "app" / "uploads" / f"{hash(content or name):x}".strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(png() if content is None else content)
    return folder / name


def frames_zip(path, names=("a/1.png", "a/2.png", "a/10.png")):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/notes.txt", "no frame")
        archive.writestr("__MACOSX/a/._1.png", "no image")
        for i, name in enumerate(names):
            archive.writestr(name, png(5 * i))
    return path


def test_a_run_gives_overlay_tracks_report_and_archive(jobs, model, tmp_path):
    video = upload(tmp_path, "street.zip", frames_zip(tmp_path / "street.zip").read_bytes())
    done = jobs.start("me", [video], Wanted("panoptic", Style(0.5, classes=["car"]))).future.result(60)
    assert (done.frames, done.failed, model.tasks) == (3, (), ["panoptic"])
    (shown,) = done.videos
    assert shown.name == "street"
    (row,) = shown.tracks
    assert (row["track"], row["class"], row["first_frame"], row["last_frame"]) == (3, "car", "1", "10")
    assert b"ftyp" in jobs.file(done.run, shown.overlay).read_bytes()[:12]
    assert "<title>" in jobs.file(done.run, REPORT).read_text()
    with zipfile.ZipFile(jobs.file(done.run, ARCHIVE)) as archive:
        assert sorted(archive.namelist()) == [
            "classes.json", "overlay/street.mp4", "pan_pred/street/1.png", "pan_pred/street/10.png",
            "pan_pred/street/2.png", "pred.json", "report.html", "tracks/street.csv", "tracks/street.json",
        ]  # fmt: skip


def test_only_files_that_a_run_has_listed_are_given(jobs, tmp_path):
    done = jobs.start("me", [upload(tmp_path, "a.png")], Wanted("panoptic")).future.result(60)
    for run, name in ((done.run, "../results.zip"), (done.run, "/etc/passwd"), ("", ARCHIVE), ("..", ARCHIVE)):
        assert jobs.file(run, name) is None


@pytest.mark.parametrize("path", ["/etc/passwd", "{uploads}/../../secret.png", "{uploads}", "{uploads}/none.png"])
def test_what_was_not_uploaded_is_refused(jobs, tmp_path, path):
    (tmp_path / "secret.png").write_bytes(png())
    uploads = upload(tmp_path, "a.png").parents[1]
    with pytest.raises(UserError, match="was not uploaded here; upload it"):
        jobs.start("me", [path.format(uploads=uploads)], Wanted("panoptic"))


def test_a_link_among_the_uploads_leads_nowhere(jobs, tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    link = upload(tmp_path, "a.png").with_name("b.png")
    link.symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match="secret.png: was not uploaded here"):
        jobs.start("me", [link], Wanted("panoptic"))


def test_nothing_to_read_is_said_in_one_line_without_folders(jobs, tmp_path):
    with pytest.raises(UserError, match="no video was given; upload one"):
        jobs.start("me", [], Wanted("panoptic"))
    bad = upload(tmp_path, "bad.mp4", b"no video")
    with pytest.raises(UserError, match=r"^bad\.mp4: .*expected mp4, avi or webm"):
        jobs.start("me", [bad], Wanted("panoptic")).future.result(60)
    done = jobs.start("me", [bad, upload(tmp_path, "a.png")], Wanted("panoptic")).future.result(60)
    assert [video.name for video in done.videos] == ["a"]
    assert len(done.failed) == 1 and done.failed[0].startswith("bad.mp4: ")


def test_one_run_at_a_time_in_the_order_of_asking(jobs, model, tmp_path):
    model.go.clear()
    first, second, third = (
        jobs.start(who, [upload(tmp_path, f"{who}.png")], Wanted("panoptic")) for who in ("a", "b", "c")
    )
    assert model.at_work.wait(60)
    assert [jobs.before(job) for job in (first, second, third)] == [0, 1, 2]
    assert "Waiting: 2 other runs come first" in fragments.progress(third, 2)
    assert model.videos == ["a"]
    jobs.stop("b")
    assert second.future.cancelled() and jobs.before(third) == 1
    model.go.set()
    third.future.result(60)
    assert model.videos == ["a", "c"] and first.future.done()


def test_a_run_that_is_stopped_leaves_nothing(jobs, model, tmp_path):
    video = upload(tmp_path, "long.zip", frames_zip(tmp_path / "z", [f"{i}.png" for i in range(50)]).read_bytes())
    model.go.clear()
    job = jobs.start("me", [video], Wanted("panoptic"))
    assert model.at_work.wait(60)
    jobs.stop("me")
    model.go.set()
    with pytest.raises(Stopped):
        job.future.result(60)
    assert job.frames == 0 and not list((tmp_path / "app" / "visits").iterdir())
    assert jobs.start("me", [video], Wanted("semantic")).future.result(60).frames == 50
    assert model.tasks == ["panoptic", "semantic"]


def test_the_files_of_a_visit_go_with_it(jobs, tmp_path):
    own, shared = upload(tmp_path, "own.png"), upload(tmp_path, "shared.png")
    jobs.uploaded("you", [shared])
    done = jobs.start("me", [own, shared], Wanted("panoptic")).future.result(60)
    jobs.leave("me")
    jobs.close()
    assert not list((tmp_path / "app" / "visits").iterdir()) and jobs.file(done.run, ARCHIVE) is None
    assert not own.exists() and shared.exists()  # the same bytes from two visitors are one file


def test_a_new_run_takes_the_place_of_the_former_one(jobs, tmp_path):
    runs = [jobs.start("me", [upload(tmp_path, "a.png")], Wanted("panoptic")).future.result(60).run for _ in "12"]
    assert jobs.file(runs[0], ARCHIVE) is None and jobs.file(runs[1], ARCHIVE).is_file()
    assert len(list((tmp_path / "app" / "visits").iterdir())) == 1


def test_the_time_left_is_that_of_the_frames_after_the_first():
    job = Job()
    assert job.seconds_left() is None
    job.advance(1, 21, "clip")
    assert job.seconds_left() is None
    job.advance(11, 21, "clip")
    job.first = time.monotonic() - 300
    assert job.seconds_left() == pytest.approx(300, abs=5)
    assert "clip: frame 11 of 21, 0:0" in fragments.progress(job, 0) and "value='0.5238'" in fragments.progress(job, 0)
    job.advance(12, None, "stream")
    assert job.seconds_left() is None and "value" not in fragments.progress(job, 0)


def test_names_cannot_bring_markup():
    done = fragments.failure("<script>a</script>.mp4")
    assert "<script>" not in done and "&lt;script&gt;" in done


@pytest.mark.parametrize(
    ("names", "line"),
    [(["notes.txt"], "has no images"), (["a/1.png", "b/1.png"], "has two images named '1.png'")],
)
def test_archives_that_are_no_video(tmp_path, names, line):
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, png())
    with pytest.raises(UserError, match=f"z.zip: {line}"):
        unpack(path, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="z.zip is damaged"):
        unpack(path, tmp_path / "out")


def test_an_archive_writes_only_into_its_folder(tmp_path):
    path = frames_zip(tmp_path / "z.zip", ["../../up.png", "/abs.png", "..\\..\\win.png"])
    folder = unpack(path, tmp_path / "out")
    assert sorted(file.name for file in folder.iterdir()) == ["abs.png", "up.png", "win.png"]
    assert not (tmp_path / "up.png").exists()
