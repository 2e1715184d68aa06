"""Many videos into one folder: what is finished is skipped, what is damaged is listed, what is stopped goes on."""

import csv
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import jax
import numpy as np
import pytest

from vps_jax.datasets.classes import class_table
from vps_jax.infer.fusion import fuse_frames
from vps_jax.infer.predict import predict
from vps_jax.infer.score_maps import GridScores
from vps_jax.media import run_state
from vps_jax.media.result_folders import WriteError
from vps_jax.media.run_state import RunState
from vps_jax.media.sources import open_videos
from vps_jax.types import ClosedTrack, FrameScores, FrameTracks, Geometry, UserError

CLASSES = class_table("vipseg")
PERSON, SKY = 60, 28


class OneThing:
    """Every frame is sky with one person, four cells wide, that moves a cell to the right with every frame."""

    kind, final_identities, programs = "logits", False, {}

    def __init__(self, delay=0.0):
        self.videos, self._delay = [], delay

    def stream(self, video):
        self.videos.append(video.video_id)
        logits = np.zeros(125)
        logits[1 + PERSON] = 9
        for i, frame in enumerate(video.frames()):
            time.sleep(self._delay)
            sizes = Geometry((64, 64), (64, 64), frame.image.shape[:2])
            semantic = np.zeros((124, 16, 16), np.float32)
            semantic[SKY] = 1
            mask = np.full((1, 16, 16), -1, np.float32)
            mask[0, 4:8, i : i + 4] = 1
            closed = [ClosedTrack(7, logits)] if i == video.num_frames - 1 else ()
            yield FrameScores(frame.stem, sizes, GridScores(semantic, sizes), FrameTracks(np.array([7]), mask, closed))

    def fuse(self, frames, classes):
        return fuse_frames(frames, classes, min_score=0.5)


def write_video(folder, count=3, height=64):
    folder.mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((height, 64, 3), 10 * i, np.uint8))
    return folder


@pytest.fixture
def folders(tmp_path):
    return [write_video(tmp_path / "in" / name) for name in "abc"]


def run(sources, out, model=None, **options):
    model = model or OneThing()
    return predict(sources, model, CLASSES, out, progress=False, **{"made_by": "m", "overlay": False, **options}), model


def results(out):
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in sorted(out.rglob("*"))
        if p.is_file() and ".state" not in p.parts
    }


def listed(out):
    return [record["video_id"] for record in json.loads((out / "pred.json").read_text())["annotations"]]


def test_finished_videos_are_skipped_until_something_changes(tmp_path, folders):
    out = tmp_path / "out"
    report, model = run(folders[:2], out)
    assert model.videos == ["a", "b"] and report.videos == 2
    report, model = run(folders, out)
    assert model.videos == ["c"] and (report.videos, report.skipped) == (1, 2)
    assert "1 videos, 3 frames, 0 compiled programs, 2 were finished before" in report.summary(out)
    assert listed(out) == ["a", "b", "c"]
    assert run(folders, out, made_by="other weights")[1].videos == ["a", "b", "c"]
    cv2.imwrite(str(folders[1] / "1.png"), np.full((64, 64, 3), 99, np.uint8))
    assert run(folders, out, made_by="other weights")[1].videos == ["b"]  # another video of the same name
    assert run(folders, out, made_by="other weights", overlay=True)[1].videos == [
        "a",
        "b",
        "c",
    ]  # what was not made yet
    assert run(folders, out, made_by="")[1].videos == ["a", "b", "c"]


def sized_videos(tmp_path):
    """Folders a to d, of frames with 32, 64, 32 and 64 rows."""
    return [write_video(tmp_path / "in" / name, height=32 + 32 * (name in "bd")) for name in "abcd"]


def test_the_largest_videos_are_taken_first_and_listed_in_their_own_order(tmp_path):
    folders, model = sized_videos(tmp_path), OneThing()
    model.network_size = lambda original: original
    run(folders, tmp_path / "out", model)
    assert model.videos == ["b", "d", "a", "c"] and listed(tmp_path / "out") == ["a", "b", "c", "d"]
    videos = [open_videos(folder)[0] for folder in folders]
    videos[1] = videos[1]._replace(size=damaged, frames=damaged)
    report, _ = run(videos, tmp_path / "other", model, keep_going=True)
    assert model.videos[4:] == ["d", "a", "c", "b"] and [name for name, _ in report.failed] == ["b"]


def damaged():
    raise UserError("a frame is damaged")


@pytest.mark.parametrize(("keep_going", "compiled"), [(True, 2), (False, 1)])
def test_programs_are_forgotten_after_the_last_video_of_a_size(tmp_path, keep_going, compiled):
    model, traced = OneThing(), []
    program = jax.jit(lambda x: traced.append(x) or x)
    model.network_size, stream = lambda original: original, model.stream
    model.stream = lambda video: (frame for frame in stream(video) if program(0) == 0)
    run(sized_videos(tmp_path), tmp_path / "out", model, keep_going=keep_going)
    assert len(traced) == compiled


def test_an_interruption_does_not_wait_for_the_end_of_a_video(tmp_path, folders):
    model, read = OneThing(), []
    stream = model.stream
    (video,) = open_videos(folders[0])

    def at_the_end(video):  # as a track that lasts as long as the video
        yield from list(stream(video))

    def frames():
        for i in range(200):
            time.sleep(0.02)
            read.append(i)
            if i == 5:
                os.kill(os.getpid(), signal.SIGINT)
            yield from video.frames()

    with pytest.raises(KeyboardInterrupt, match="0 of 1 videos are finished"):
        model.stream = at_the_end
        run([video._replace(frames=frames)], tmp_path / "out", model)
    assert len(read) < 100


def test_damaged_videos_are_listed_at_the_end(tmp_path, folders):
    path = folders[1] / "2.png"
    report, _ = run_with_damage(tmp_path, folders, path)
    assert (report.videos, [name for name, _ in report.failed]) == (2, ["b"])
    assert report.failed[0][1].startswith(f"{path}: is truncated")
    assert listed(tmp_path / "out") == ["a", "c"]
    assert sorted(p.name for p in (tmp_path / "out" / "pan_pred").iterdir()) == ["a", "c"]


def run_with_damage(tmp_path, folders, path):
    """The file is damaged after the videos were opened."""
    from vps_jax.media.sources import open_sources

    videos = open_sources(folders)
    path.write_bytes(path.read_bytes()[:-20])
    return run(videos, tmp_path / "out", keep_going=True)


def test_sources_that_cannot_be_opened_are_listed_too(tmp_path, folders):
    (tmp_path / "no.mp4").write_text("no video")
    report, model = run([*folders[:1], tmp_path / "no.mp4"], tmp_path / "out", keep_going=True)
    assert model.videos == ["a"] and [name for name, _ in report.failed] == [str(tmp_path / "no.mp4")]
    with pytest.raises(UserError, match="no.mp4: cannot be read"):
        run([tmp_path / "no.mp4"], tmp_path / "out", keep_going=True)


def test_a_disk_that_is_full_ends_the_run_in_one_line_and_keeps_what_is_finished(tmp_path, folders, monkeypatch):
    original = pathlib.Path.write_bytes

    def full(path, data):
        if "b" in path.parts or ".b.partial" in path.parts:
            raise OSError(28, "No space left on device")
        return original(path, data)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(WriteError, match="No space left on device.; finished videos are kept"):
        run(folders, tmp_path / "out", keep_going=True)
    assert listed(tmp_path / "out") == ["a"] and [p.name for p in (tmp_path / "out" / "pan_pred").iterdir()] == ["a"]
    monkeypatch.undo()
    run(folders, tmp_path / "out")
    run(folders, tmp_path / "whole")
    assert results(tmp_path / "out") == results(tmp_path / "whole")


@pytest.mark.parametrize("place", ["tracks", "overlay", ".state"])
def test_a_disk_may_be_full_for_any_file(tmp_path, folders, monkeypatch, place):
    original = os.replace

    def full(source, target, **more):
        if place in str(target) and "b." in str(target):
            raise OSError(28, "No space left on device", str(target))
        return original(source, target, **more)

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(pathlib.Path, "replace", full)
    with pytest.raises(WriteError, match=f"{place}/b.*No space left on device.; finished videos are kept"):
        run(folders, tmp_path / "out", keep_going=True, tracks=True, overlay=True)
    assert listed(tmp_path / "out") == ["a"]
    monkeypatch.undo()
    assert run(folders, tmp_path / "out", tracks=True, overlay=True)[0].skipped == 1
    run(folders, tmp_path / "whole", tracks=True, overlay=True)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


@pytest.mark.parametrize("layout", ["vipseg", "cityscapes-vps", "ytvis"])
def test_a_video_that_was_finished_but_not_listed_is_listed_by_the_next_run(tmp_path, folders, layout):
    """As after a kill between the two."""
    run(folders[:2], tmp_path / "out", layout=layout)
    path = tmp_path / "out" / ("results.json" if layout == "ytvis" else "pred.json")
    before = path.read_bytes()
    run(folders, tmp_path / "out", layout=layout)
    whole = results(tmp_path / "out")
    path.write_bytes(before)
    assert run(folders, tmp_path / "out", layout=layout)[0].skipped == 3
    assert results(tmp_path / "out") == whole


def test_an_input_inside_of_the_output_and_a_file_in_the_way_are_refused(tmp_path, folders):
    with pytest.raises(UserError, match="lies in the output folder"):
        run(folders, tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "overlay").write_text("")
    with pytest.raises(UserError, match="overlay: cannot be written"):
        run(folders, tmp_path / "out", overlay=True)


def test_a_track_has_one_number_in_tables_and_frames(tmp_path, folders):
    run(folders[:1], tmp_path / "out", tracks=True)
    (row,) = csv.DictReader((tmp_path / "out" / "tracks" / "a.csv").open())
    score = np.exp(9) / (np.exp(9) + 124)
    assert row == {
        "track": "7", "class": "person", "category_id": str(PERSON), "first_frame": "0", "last_frame": "2",
        "frames": "3", "mean_score": f"{score:.6f}", "mean_area": row["mean_area"], "segment_id": row["segment_id"],
    }  # fmt: skip
    content = json.loads((tmp_path / "out" / "tracks" / "a.json").read_text())
    (track,) = content["tracks"]
    assert content["video_id"] == "a" and track["track"] == 7
    assert [one["frame"] for one in track["per_frame"]] == ["0", "1", "2"]
    for i, (one, record) in enumerate(zip(track["per_frame"], annotations(tmp_path / "out"), strict=True)):
        (thing,) = [segment for segment in record if segment["category_id"] == PERSON]
        assert thing["id"] == track["segment_id"] == int(row["segment_id"]) and thing["area"] == one["area"]
        x, y, width, height = one["box"]
        assert abs(x - 4 * i) <= 2 and abs(width - 16) <= 4 and abs(y - 16) <= 2 and abs(height - 16) <= 4


def annotations(out):
    (record,) = json.loads((out / "pred.json").read_text())["annotations"]
    return [row["segments_info"] for row in record["annotations"]]


def test_claims_belong_to_one_process_and_end_with_it(tmp_path):
    one, two = RunState(tmp_path), RunState(tmp_path)
    with one.claim("v") as ours:
        assert ours
        with two.claim("v") as theirs:
            assert not theirs
    with two.claim("v") as theirs:
        assert theirs
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    claim = tmp_path / ".state" / "v.claim"
    claim.write_text(f"{run_state._place()} {dead.stdout.strip()} token")
    with one.claim("v") as ours:  # its process is dead
        assert ours
    claim.write_text("elsewhere 1 token")
    with one.claim("v") as ours:  # another host's, fresh
        assert not ours
    old = time.time() - 2 * run_state.STALE_SECONDS
    os.utime(claim, (old, old))
    with one.claim("v") as ours:
        assert ours
    assert not list((tmp_path / ".state").glob("*claim*"))


def test_a_video_of_another_process_is_left_to_it(tmp_path, folders):
    (tmp_path / "out").mkdir()
    with RunState(tmp_path / "out").claim("b"):
        report, model = run(folders, tmp_path / "out")
    assert model.videos == ["a", "c"] and report.busy == 1 and "1 are left to others" in report.summary("")


def test_what_a_lost_machine_left_is_taken_over_in_the_same_run(tmp_path, folders, monkeypatch):
    monkeypatch.setattr(run_state, "STALE_SECONDS", 0.6)
    monkeypatch.setattr(run_state, "POLL_SECONDS", 0.05)
    (tmp_path / "out" / ".state").mkdir(parents=True)
    (tmp_path / "out" / ".state" / "b.claim").write_text("elsewhere 1 token")
    report, model = run(folders, tmp_path / "out")
    assert sorted(model.videos) == ["a", "b", "c"] and report.busy == 0  # b last, unless the machine is slow


def test_a_video_of_another_machine_that_lives_is_left_to_it(tmp_path, folders, monkeypatch):
    monkeypatch.setattr(run_state, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(run_state, "POLL_SECONDS", 0.05)
    (tmp_path / "out").mkdir()
    with RunState(tmp_path / "out").claim("b"):
        claim = tmp_path / "out" / ".state" / "b.claim"
        claim.write_text("elsewhere 1 token")
        report, model = run(folders, tmp_path / "out")
        claim.unlink()
    assert model.videos == ["a", "c"] and report.busy == 1


def test_a_claim_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    """One that names nobody would be taken for that of another machine, and waited for."""

    def killed():
        raise SystemExit

    monkeypatch.setattr(os, "getpid", killed)
    with pytest.raises(SystemExit), RunState(tmp_path).claim("a"):
        pass
    assert not list((tmp_path / ".state").iterdir())


def test_an_empty_claim_is_free_once_a_living_process_would_have_renewed_it(tmp_path):
    claim = tmp_path / ".state" / "a.claim"
    claim.parent.mkdir()
    for age, free in ((0.5 * run_state.RENEW_SECONDS, False), (1.5 * run_state.RENEW_SECONDS, True)):
        claim.touch()
        os.utime(claim, (time.time() - age,) * 2)
        with RunState(tmp_path).claim("a") as ours:
            assert ours == free


def test_one_claims_a_video_where_files_have_no_links(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with RunState(tmp_path).claim("a") as ours, RunState(tmp_path).claim("a") as theirs:
        assert ours and not theirs
        assert [path.name for path in (tmp_path / ".state").iterdir()] == ["a.claim"]
    assert not list((tmp_path / ".state").iterdir())


SCRIPT = """
import pathlib, sys
sys.path.insert(0, {tests!r})
from test_many_videos import OneThing, run
sources, out = sorted(pathlib.Path(sys.argv[1]).iterdir()), pathlib.Path(sys.argv[2])
try:
    run(sources, out, OneThing(0.05), keep_going=True, tracks=True)
except KeyboardInterrupt as stop:
    sys.exit(f"interrupted: {{stop}}")
"""


def start(sources, out):
    script = SCRIPT.format(tests=str(pathlib.Path(__file__).parent))
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}  # XLA:CPU doubts its own cached programs, at great length
    command = [sys.executable, "-c", script, str(sources), str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=quiet)


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_bytes(tmp_path, kill):
    for i in range(4):
        write_video(tmp_path / "in" / f"v{i}", 12)
    run(sorted((tmp_path / "in").iterdir()), tmp_path / "whole", tracks=True)
    stopped = start(tmp_path / "in", tmp_path / "out")
    while not (tmp_path / "out" / ".state" / "v1.claim").exists():
        time.sleep(0.02)
        assert stopped.poll() is None
    stopped.send_signal(kill)
    said = stopped.communicate()[1]
    if kill is signal.SIGTERM:
        assert said.count("\n") == 1 and "1 of 4 videos are finished" in said and "run the same again to go on" in said
        assert not list((tmp_path / "out").rglob("*partial*")) and not list((tmp_path / "out").rglob("*.claim"))
    assert stopped.returncode != 0 and listed(tmp_path / "out") == ["v0"]
    report, _ = run(sorted((tmp_path / "in").iterdir()), tmp_path / "out", tracks=True)
    assert report.skipped == 1 and results(tmp_path / "out") == results(tmp_path / "whole")


def test_two_processes_share_an_output_and_write_the_bytes_of_one(tmp_path):
    for i in range(6):
        write_video(tmp_path / "in" / f"v{i}", 6)
    run(sorted((tmp_path / "in").iterdir()), tmp_path / "whole", tracks=True)
    both = [start(tmp_path / "in", tmp_path / "out") for _ in range(2)]
    assert [(p.communicate()[1], p.returncode) for p in both] == [("", 0)] * 2
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    assert len(list((tmp_path / "out" / ".state").glob("*.json"))) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heaps")
def test_threads_of_a_run_share_one_heap():
    """`malloc_stats` lists the heaps: one for each of several threads that allocate, unless they share."""
    script = (
        "import ctypes, threading\nfrom vps_jax.infer import process_memory\n{}\n"
        "c = ctypes.CDLL(None)\nc.malloc.restype = ctypes.c_void_p\n"
        "gate = threading.Barrier(4)\n"
        "def work():\n    gate.wait()\n    c.malloc(1000)\n    gate.wait()\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "[t.start() for t in threads]\n[t.join() for t in threads]\nc.malloc_stats()\n"
    )
    heaps = []
    for line in ("", "process_memory.one_heap()"):
        done = subprocess.run([sys.executable, "-c", script.format(line)], capture_output=True, text=True, timeout=60)
        heaps.append(done.stderr.count("Arena "))
    assert heaps[0] > heaps[1] == 1
