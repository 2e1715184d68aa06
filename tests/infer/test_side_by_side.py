"""Several devices in one process: each takes the next video, and the files are those of one device."""

import os
import signal
import threading

import jax
import micro_checkpoint
import pytest
from test_many_videos import OneThing, listed, results, run, write_video

from vps_jax.infer.side_by_side import devices, share
from vps_jax.media.result_folders import WriteError
from vps_jax.media.sources import open_sources
from vps_jax.runs import experiment
from vps_jax.runs.segmenter import load
from vps_jax.types import UserError


class Meeting(OneThing):
    """Waits at its first frame until all have come to theirs, so that no thread does all the work."""

    def __init__(self, barrier, at=None):
        super().__init__()
        self._barrier, self._at = barrier, at

    def stream(self, video):
        for i, frame in enumerate(super().stream(video)):
            if len(self.videos) == 1 and i == 0:
                self._barrier.wait(20)
            if self._at is not None and i == 1:
                self._at(video)
            yield frame


def pair(at=None):
    """Two predictors; the first does something at its second frame."""
    barrier = threading.Barrier(2)
    return [Meeting(barrier, at), Meeting(barrier)]


@pytest.fixture
def folders(tmp_path):
    return [write_video(tmp_path / "in" / name) for name in "abcde"]


def test_two_predictors_write_the_files_of_one(tmp_path, folders):
    run(folders, tmp_path / "one", overlay=True, tracks=True)
    report, both = run(folders, tmp_path / "two", pair(), overlay=True, tracks=True)
    assert (report.videos, report.frames, report.busy) == (5, 15, 0)
    assert all(model.videos for model in both) and sorted(both[0].videos + both[1].videos) == list("abcde")
    assert listed(tmp_path / "two") == list("abcde")
    assert results(tmp_path / "one") == results(tmp_path / "two") and results(tmp_path / "one")
    assert run(folders, tmp_path / "two", pair(), overlay=True, tracks=True)[0].skipped == 5


def test_an_unreadable_video_of_two_is_listed_and_stops_nobody(tmp_path, folders):
    def fail(video):
        if video.video_id < "c":
            raise UserError(f"{video.video_id}: cannot be read")

    report, _ = run(folders, tmp_path / "out", pair(fail), keep_going=True)
    (name,) = {"a", "b"} - set(listed(tmp_path / "out"))
    assert report.videos == 4 and report.failed == ((name, f"{name}: cannot be read"),)


def test_results_that_cannot_be_written_end_both(tmp_path, folders):
    def fail(video):
        raise WriteError("the disk is full")

    with pytest.raises(WriteError, match="the disk is full"):
        run(folders, tmp_path / "out", pair(fail), keep_going=True)
    assert no_pieces(tmp_path / "out")


def test_sigterm_ends_both_in_one_line_and_the_next_run_goes_on(tmp_path, folders):
    model = pair(lambda video: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt, match="^0 of 5 videos are finished in .*; run the same again to go on$"):
        run(folders, tmp_path / "out", [model[0], Endless(model[1])], keep_going=True)
    assert no_pieces(tmp_path / "out")
    run(folders, tmp_path / "out", pair())
    run(folders, tmp_path / "whole")
    assert results(tmp_path / "out") == results(tmp_path / "whole")


class Endless(OneThing):
    """Gives the first frame again and again."""

    def __init__(self, model):
        super().__init__()
        self._model = model

    def stream(self, video):
        first = next(iter(self._model.stream(video)))
        while True:
            yield first._replace(tracks=None)


def no_pieces(out):
    return not [p for p in out.rglob("*") if p.name.endswith(".claim") or ".partial" in p.name]


def test_items_keep_their_order_and_the_first_error_is_raised():
    stopped, barrier = threading.Event(), threading.Barrier(2)

    def wait(item):
        barrier.wait(20)
        return item

    assert share([1, 2, 3, 4], [wait, wait], stopped) == [1, 2, 3, 4] and not stopped.is_set()

    def fail(item):
        barrier.wait(20)
        raise ValueError(item)

    def until_stopped(item):
        barrier.wait(20)
        assert stopped.wait(20)
        raise KeyboardInterrupt

    with pytest.raises(ValueError):
        share([1, 2, 3, 4], [fail, until_stopped], stopped)


@pytest.mark.parametrize("asked", [0, -1, "two", "9", ""])
def test_devices_that_are_not_there_are_named(asked):
    with pytest.raises(UserError, match=f"--devices {asked}: "):
        devices(asked)
    assert devices(2) == devices("2") == jax.local_devices()[:2] and devices("all") == jax.local_devices()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return micro_checkpoint.videomt(tmp_path_factory.mktemp("devices") / "run")


def test_a_model_on_two_devices_writes_the_bytes_of_one(tmp_path, folders, checkpoint):
    options = {"split": None, "overlay": False, "progress": False}
    experiment.predict_with_checkpoint(folders, checkpoint, tmp_path / "one", **options)
    report = experiment.predict_with_checkpoint(folders, checkpoint, tmp_path / "two", devices=2, **options)
    assert report.videos == 5 and results(tmp_path / "one") == results(tmp_path / "two")
    (video,) = open_sources(folders[:1])
    for device, model in zip(jax.local_devices(), load(checkpoint).predictors(2), strict=False):
        frames = list(model.stream(video))
        assert [frame.scores.logits.devices() for frame in frames] == [{device}] * 3
