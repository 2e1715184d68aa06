"""Processes end with their parent, name the video that they died at, and leave no file half-written."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from label_scenes import video, write_vipseg

from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.types import UserError

pytestmark = pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="looks at /proc")
VIDEOS = ("0_v", "1_v", "2_v")
PIPE = "pan_pred/{}/00000002.png"
SCENE = (video(np.array([[[1, 1, 7, 7]]]), {1: 0, 7: 2}),) * 2


@pytest.fixture
def folders(tmp_path):
    """Root and results of videos whose first frame is a pipe, so that reading it takes as long as the test wants."""
    write_vipseg(tmp_path / "truth", tmp_path / "results", dict.fromkeys(VIDEOS, SCENE))
    for name in VIDEOS:
        png = tmp_path / "results" / PIPE.format(name)
        png.rename(tmp_path / "results" / f"{name}.png")
        os.mkfifo(png)
    return tmp_path / "truth", tmp_path / "results"


def running_processes() -> dict[int, int]:
    """Process -> its parent; what has ended and was not yet asked for its exit code is left out."""
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    return parents


def descendants(pid: int) -> set[int]:
    """All processes below one."""
    parents = running_processes()
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def workers(pid: int) -> set[int]:
    """Processes below one that score: those whose command is a spawned main."""
    commands = {one: pathlib.Path(f"/proc/{one}/cmdline").read_bytes() for one in descendants(pid)}
    return {one for one, command in commands.items() if b"spawn_main" in command}


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def other_end(pipe) -> int | None:
    """The writer's end of a named pipe, once a reader waits for it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


@contextlib.contextmanager
def started(folders, processes):
    """A command whose processes wait at a pipe each, all processes below it, and the pipes in the order of videos."""
    command = [sys.executable, "-m", "vps_jax", "evaluate", "--truth", folders[0], "--predictions", folders[1]]
    options = ["--processes", str(processes), "--json", folders[0].parent / "out.json"]
    running = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pipes = [wait_until(lambda name=name: other_end(folders[1] / PIPE.format(name))) for name in VIDEOS[:processes]]
    yield running, descendants(running.pid), pipes
    for pipe in pipes:
        with contextlib.suppress(OSError):
            os.close(pipe)
    if running.poll() is None:
        running.kill()


@pytest.mark.parametrize("number, code, line", [(signal.SIGTERM, 143, ""), (signal.SIGINT, 130, "interrupted\n")])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_ends_everything(folders, processes, number, code, line):
    with started(folders, processes) as (running, below, _):
        assert len(workers(running.pid)) == processes - 1
        running.send_signal(number)
        assert (*running.communicate(timeout=30), running.returncode) == ("", line, code)
        wait_until(lambda: not below & running_processes().keys(), 10)
    assert sorted(path.name for path in folders[0].parent.iterdir()) == ["results", "truth"]


def test_workers_end_with_a_parent_that_is_killed(folders):
    with started(folders, 2) as (running, below, _):
        running.kill()
        running.wait()
        wait_until(lambda: not below & running_processes().keys(), 10)


def test_a_worker_that_dies_names_its_video(folders):
    with started(folders, 2) as (running, _, pipes):
        (worker,) = workers(running.pid)
        os.kill(worker, signal.SIGKILL)
        os.write(pipes[0], (folders[1] / f"{VIDEOS[0]}.png").read_bytes())  # the other process goes on
        os.close(pipes[0])
        out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (2, "")
    assert err.startswith("error: video 1_v: the process that scored it died (signal 9 (SIGKILL))")
    assert err.count("\n") == 1
    assert not (folders[0].parent / "out.json").exists()


@pytest.mark.parametrize("processes", [0, -1])
def test_numbers_of_processes_below_one_are_refused(folders, processes):
    with pytest.raises(UserError, match=f"processes is {processes}; expected 1 or more"):
        evaluate_folders(*folders, processes=processes)
