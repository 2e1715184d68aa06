"""`vps-jax data prepare` killed at random moments, on a full disk and in a folder that cannot be written."""

import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from small_disk import small_disk

from vps_jax.data import synthetic

pytestmark = pytest.mark.acceptance
ROOT = pathlib.Path(__file__).resolve().parents[2]
KILLS = 10


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> pathlib.Path:
    """A folder with 200 drawn videos of eight frames in `raw`, several shards, and what one run makes of them."""
    folder = tmp_path_factory.mktemp("scene")
    synthetic.synthesize(folder / "raw", train=200, val=4, test=0, sizes=((360, 640),), lengths=(8,), progress=False)
    assert finished(start(folder / "raw", folder / "whole"))[0] == 0
    return folder


def start(source: pathlib.Path, out: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "vps_jax", "data", "prepare", "vipseg", "--workers", "2"]
    return subprocess.Popen(
        [*command, "--source", source, "--out", out], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True, start_new_session=True,
    )  # fmt: skip


def finished(process: subprocess.Popen) -> tuple[int, list[str]]:
    """The exit status, and what was said beside the progress."""
    lines = process.communicate(timeout=300)[1].splitlines()
    return process.returncode, [line for line in lines if line and "━" not in line]


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parts(out: pathlib.Path) -> dict[str, int]:
    """When each finished shard was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "vipseg").glob(".*.parts/*.json")}


def test_ten_kills_end_in_the_files_of_one_run_and_no_shard_is_written_twice(scene):
    out, rng, seen, survived = scene / "pieces", random.Random(0), {}, 0
    for number in range(KILLS):
        before = parts(out)
        process = start(scene / "raw", out)
        if number % 3:  # soon after a shard is there
            while process.poll() is None and parts(out).keys() <= before.keys():
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.2))
        else:  # while it starts
            time.sleep(rng.uniform(0, 2))
        assert process.poll() is None, "it ended before it was killed; draw more videos"
        # everything of the run at once, or its first process alone, whose workers must then end too
        os.killpg(process.pid, signal.SIGKILL) if number % 2 else process.kill()
        process.communicate()
        now = parts(out)
        assert {name: now[name] for name in before if name in now} == before
        assert not (out / "vipseg" / "1.0.0").exists()
        survived += len(now) > len(before)
        seen |= now
    status, said = finished(start(scene / "raw", out))
    print(f"{KILLS} kills; {survived} runs added shards to those before them, {len(seen)} shards in all")
    assert status == 0, said
    assert survived >= KILLS // 2 and contents(out) == contents(scene / "whole")


def test_a_full_disk_ends_in_one_line_and_the_next_run_goes_on(scene):
    out = scene / "small"
    with small_disk(out, "2m") as remount:
        status, said = finished(start(scene / "raw", out / "records"))
        print(said)
        assert status == 2 and len(said) == 1
        assert re.match("error: .*(No space left on device|[GM]B free)", said[0])
        assert not (out / "records" / "vipseg" / "1.0.0").exists()
        remount("size=256m")
        assert finished(start(scene / "raw", out / "records"))[0] == 0
        assert contents(out / "records") == contents(scene / "whole")
        remount("ro")
        status, said = finished(start(scene / "raw", out / "others"))
        print(said)
        assert status == 2 and len(said) == 1 and "others" in said[0] and said[0].startswith("error: ")
