"""Many videos through the command line: killed at random, shared by processes, on a full disk, and in how much memory.

Memory is counted in processes of their own: this file is their program.
"""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
VIDEOS, FRAMES, KILLS = 8, 12, 10
TO_KILL = 48  # videos of the run that is killed, so many that no kill comes after its end
MANY, LATER = 300, 1.05  # videos; peak memory after the last of them over that after the tenth
LONG, SHORT, LONGER = 2000, 200, 1.1  # frames of 854x480; peak memory of the first over that of the second

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> pathlib.Path:
    """A folder with a checkpoint, some videos in `in`, and in `whole` what one uninterrupted run makes of them."""
    folder = tmp_path_factory.mktemp("scene")
    program(folder, "make")
    assert finished(start(folder, "whole")) == ""
    return folder


def start(scene: pathlib.Path, out: str | pathlib.Path, videos: str = "in") -> subprocess.Popen:
    command = [sys.executable, "-m", "vps_jax", "predict", *sorted((scene / videos).iterdir())]
    return subprocess.Popen(
        [*command, "--checkpoint", scene / "run", "--output", scene / out], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(process: subprocess.Popen) -> str:
    """Waits for a run that ends well; what it said beside its progress."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-2000:]
    return "\n".join(line for line in err.splitlines() if "━" not in line)


def files(out: pathlib.Path) -> dict[str, bytes]:
    """What a run has written, without the records of its state."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and ".state" not in path.parts]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def recorded(out: pathlib.Path) -> int:
    return len(list((out / ".state").glob("*.json")))


def test_a_run_that_is_killed_ten_times_at_random_ends_with_the_same_bytes(scene):
    for i in range(TO_KILL):
        draw(scene / "more" / f"v{i}.mp4", i, FRAMES, (96 + 16 * (i % 2), 160))
    finished(start(scene, "undisturbed", "more"))
    rng, done = random.Random(0), [0]
    for i in range(KILLS):
        process = start(scene, "killed", "more")
        if i % 5:  # within a video or soon after one; the others while the run starts
            while process.poll() is None and recorded(scene / "killed") == done[-1]:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.5))
        else:
            time.sleep(rng.uniform(0, 3))
        assert process.poll() is None, "it ended before it was killed; draw more videos"
        process.send_signal((signal.SIGKILL, signal.SIGTERM)[i % 2])
        said = process.communicate()[1].strip().splitlines()
        done.append(recorded(scene / "killed") if (scene / "killed").exists() else 0)
        if process.returncode == 130 and said:  # one that has hardly started says nothing
            line = re.fullmatch(rf"interrupted: (\d+) of {TO_KILL} videos are finished in .* again to go on", said[-1])
            assert line is None or int(line[1]) in (done[-1] - 1, done[-1])  # it may end before a video is counted
    process = start(scene, "killed", "more")
    out = process.communicate()[0]
    print(f"finished after each kill: {done}; {out.strip()}")
    assert process.returncode == 0 and done == sorted(done) and len(set(done)) > KILLS // 2
    assert out.startswith(f"{TO_KILL - done[-1]} videos, {FRAMES * (TO_KILL - done[-1])} frames, ")
    assert f", {done[-1]} were finished before" in out
    assert files(scene / "killed") == files(scene / "undisturbed")
    assert not list((scene / "killed" / ".state").glob("*.claim*"))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_share_an_output_write_the_bytes_of_one(scene, processes):
    out = scene / f"shared{processes}"
    for process in [start(scene, out) for _ in range(processes)]:
        assert finished(process) == ""
    assert files(out) == files(scene / "whole") and recorded(out) == VIDEOS


def test_two_workers_of_ray_write_the_bytes_of_one(scene):
    pytest.importorskip("ray", reason="pip install 'vps-jax[ray]'")
    script = [sys.executable, ROOT / "examples" / "predict_ray.py", "--workers", "2"]
    inputs = [f"in/{path.name}" for path in sorted((scene / "in").iterdir())]
    environ = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [*script, *inputs, "--checkpoint", "run", "--output", "ray"], cwd=scene, env=environ, text=True,
        capture_output=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout[-500:])
    assert files(scene / "ray") == files(scene / "whole")


def test_a_disk_of_one_mebibyte_ends_the_run_in_one_line_and_keeps_what_was_finished(scene):
    from small_disk import small_disk  # here, since this file is a program too

    out = scene / "small"
    with small_disk(out, "1m") as remount:
        process = start(scene, out / "results")
        said = [line for line in process.communicate()[1].splitlines() if "━" not in line]
        assert process.returncode == 2 and len(said) == 1 and re.match("error: .*No space left on device", said[0])
        names = [one["video_id"] for one in json.loads((out / "results" / "pred.json").read_text())["annotations"]]
        print(f"{len(names)} videos are kept; {said[0]}")
        kept, whole = files(out / "results"), files(scene / "whole")
        done = recorded(out / "results")
        assert 0 < len(names) < VIDEOS and done - len(names) in (0, "pred.json:" in said[0])  # the list did not fit
        assert sum(name.startswith("pan_pred") for name in kept) == FRAMES * done
        extra = {name for name in kept if kept[name] != whole.get(name)} - {"pred.json"}
        assert not {name for name in extra if "/v" not in name or name.split("/v")[1][0] in "".join(names)}, extra
        remount("size=64m")
        finished(start(scene, out / "results"))
        assert files(out / "results") == whole


def test_memory_after_300_videos_of_mixed_size_is_that_after_ten(scene):
    peaks = program(scene, "many")
    print({i: round(peaks[i - 1]) for i in (1, 10, 20, 50, 100, 200, MANY)}, f"MiB, ratio {peaks[-1] / peaks[9]:.3f}")
    assert peaks[-1] <= LATER * peaks[9]


def test_memory_of_2000_frames_is_that_of_200(scene):
    (short,), (long,) = program(scene, "long", SHORT), program(scene, "long", LONG)
    print(f"{SHORT} frames {short:.0f} MiB, {LONG} frames {long:.0f} MiB, ratio {long / short:.3f}")
    assert long <= LONGER * short


def program(folder: pathlib.Path, *what: object) -> list[float]:
    """Runs a function of this file in a process of its own; the peaks of its memory in MiB."""
    command = [sys.executable, __file__, folder, *map(str, what)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def make(folder: pathlib.Path) -> None:
    """A checkpoint, and videos that are drawn."""
    import micro_checkpoint

    micro_checkpoint.tarvis(folder / "run")
    for i in range(VIDEOS):
        draw(folder / "in" / f"v{i}.mp4", i, FRAMES, (96 + 16 * (i % 2), 160))


def draw(path: pathlib.Path, seed: int, frames: int, size: tuple[int, int]) -> None:
    """A video of smooth noise with three boxes that move."""
    import cv2

    from vps_jax.media.movie_writer import MovieWriter

    rng, (height, width) = np.random.default_rng(seed), size
    ground = cv2.resize(rng.integers(0, 256, (5, 7, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    colors, steps = rng.integers(0, 256, (3, 3)).tolist(), rng.integers(1, 5, (3, 2))
    path.parent.mkdir(exist_ok=True)
    with MovieWriter(path, fps=24) as movie:
        for i in range(frames):
            image = ground.copy()
            for color, (down, right) in zip(colors, steps, strict=True):
                y, x = down * i % height, right * i % width
                cv2.rectangle(image, (int(x), int(y)), (int(x) + width // 5, int(y) + height // 4), color, -1)
            movie.write(image)


def many(folder: pathlib.Path) -> list[float]:
    """The peak after each of the videos; their sizes and lengths are drawn."""
    rng, sources = np.random.default_rng(0), []
    for i in range(MANY):
        sources.append(folder / "many" / f"{i}.mp4")
        draw(sources[-1], i, int(rng.integers(2, 9)), tuple(2 * rng.integers(24, 96, 2)))
    return predict(folder, sources)


def long(folder: pathlib.Path, frames: str) -> list[float]:
    """The peak after a video of so many frames."""
    path = folder / "long" / f"{frames}.mp4"
    subprocess.run([sys.executable, __file__, folder, "draw", path, frames], check=True)  # drawing takes memory too
    return predict(folder, [path])


def predict(folder: pathlib.Path, sources: list[pathlib.Path]) -> list[float]:
    """The peak after each video."""
    from vps_jax.media.run_state import RunState
    from vps_jax.runs import experiment

    finish, peaks = RunState.finish, []

    def finish_and_measure(*arguments) -> None:
        finish(*arguments)
        peaks.append(peak_mib())

    RunState.finish = finish_and_measure
    experiment.predict_with_checkpoint(
        sources, folder / "run", folder / f"out_{sources[0].parent.name}_{len(sources)}_{sources[0].stem}", split=None,
        overlay=True, tracks=True, progress=False, keep_going=True,
    )  # fmt: skip
    return [*peaks[:-1], peak_mib()]


def peak_mib() -> float:
    status = pathlib.Path("/proc/self/status").read_text()  # ru_maxrss would start at the parent's size
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    folder, what, *more = sys.argv[1:]
    if what == "draw":
        draw(pathlib.Path(more[0]), 0, int(more[1]), (480, 854))
        return
    print(json.dumps({"make": make, "many": many, "long": long}[what](pathlib.Path(folder), *more)))


if __name__ == "__main__":
    main()
