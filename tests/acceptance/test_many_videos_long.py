"""Many videos through the command line: shared by several processes, and on a full disk."""

import json
import pathlib
import re
import subprocess
import sys

import micro_checkpoint
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
VIDEOS, FRAMES = 8, 12

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> pathlib.Path:
    """A folder with a checkpoint, some videos in `in`, and in `whole` what one uninterrupted run makes of them."""
    folder = tmp_path_factory.mktemp("scene")
    make(folder)
    assert finished(start(folder, "whole")) == ""
    return folder


def start(scene: pathlib.Path, out: str | pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "vps_jax", "predict", *sorted((scene / "in").iterdir())]
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


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_share_an_output_write_the_bytes_of_one(scene, processes):
    out = scene / f"shared{processes}"
    for process in [start(scene, out) for _ in range(processes)]:
        assert finished(process) == ""
    assert files(out) == files(scene / "whole") and recorded(out) == VIDEOS


def test_a_disk_of_one_mebibyte_ends_the_run_in_one_line_and_keeps_what_was_finished(scene):
    out = scene / "small"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", out], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted; this needs root")
    try:
        process = start(scene, out / "results")
        said = [line for line in process.communicate()[1].splitlines() if "━" not in line]
        assert process.returncode == 2 and len(said) == 1 and re.match("error: .*No space left on device", said[0])
        names = [one["video_id"] for one in json.loads((out / "results" / "pred.json").read_text())["annotations"]]
        print(f"{len(names)} videos are kept; {said[0]}")
        kept, whole = files(out / "results"), files(scene / "whole")
        assert 0 < len(names) < VIDEOS and recorded(out / "results") == len(names)
        assert sum(name.startswith("pan_pred") for name in kept) == FRAMES * len(names)
        extra = {name for name in kept if kept[name] != whole.get(name)} - {"pred.json"}
        assert not {name for name in extra if "/v" not in name or name.split("/v")[1][0] in "".join(names)}, extra
        subprocess.run(["mount", "-o", "remount,size=64m", out], check=True)
        finished(start(scene, out / "results"))
        assert files(out / "results") == whole
    finally:
        subprocess.run(["umount", out], check=True)


def make(folder: pathlib.Path) -> None:
    """A checkpoint, and videos that are drawn."""
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
