import errno
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tfds_builders import shards
from vps_jax import files
from vps_jax.cli import app
from vps_jax.data import prepare, prepare_lock, records, synthetic
from vps_jax.types import UserError


def test_report_lines(raw_vipseg, tmp_path, capsys):
    report = prepare.prepare("vipseg", raw_vipseg, tmp_path, progress=True)
    lines = prepare.describe_report(report)
    assert lines[0] == "train: 8 videos, 40 frames, sizes 72x40 (4 videos), 64x48 (4 videos)"
    assert "8 videos show instances" in lines[1] and "% of the pixels are unlabelled" in lines[1]
    out, err = capsys.readouterr()
    assert out == "" and "54/54" in err  # the bar is on stderr, TFDS says nothing


def test_a_finished_set_is_only_reported(raw_vipseg, tmp_path):
    first = prepare.prepare("vipseg", raw_vipseg, tmp_path, progress=False)
    stamp = (tmp_path / "vipseg" / "1.0.0" / "dataset_info.json").stat().st_mtime_ns
    # the source is not even looked at
    assert prepare.prepare("vipseg", tmp_path / "gone", tmp_path, progress=False) == first
    assert (tmp_path / "vipseg" / "1.0.0" / "dataset_info.json").stat().st_mtime_ns == stamp


def test_leftovers_of_a_killed_run_are_removed(raw_vipseg, tmp_path):
    leftover = tmp_path / "vipseg" / "1.0.0.incompleteABCDEF"
    leftover.mkdir(parents=True)
    (leftover / "half").write_bytes(b"x")
    with pytest.raises(UserError, match="no prepared data set"):
        records.open_records(tmp_path / "vipseg", "train")
    prepare.prepare("vipseg", raw_vipseg, tmp_path, progress=False)
    assert [p.name for p in (tmp_path / "vipseg").iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("kind", ["missing", "empty", "foreign", "unknown"])
def test_wrong_sources_are_named(kind, tmp_path):
    source = tmp_path / "source"
    name, message = "vipseg", {
        "missing": "is no folder; expected", "empty": "is empty; expected",
        "foreign": "no imgs; nothing of it is there; expected VIPSeg",
        "unknown": "'vipsec' is unknown; expected one of",
    }[kind]  # fmt: skip
    if kind != "missing":
        source.mkdir()
    if kind == "foreign":
        (source / "notes.txt").write_text("x")
    if kind == "unknown":
        name = "vipsec"
    with pytest.raises(UserError, match=message):
        prepare.prepare(name, source, tmp_path / "out", progress=False)
    with pytest.raises(UserError, match="no prepared data set"):
        records.open_records(tmp_path / "out" / "vipseg", "train")


def test_a_broken_frame_is_a_user_error_and_no_set_is_left(raw_vipseg, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(raw_vipseg, source)
    image = sorted((source / "imgs").rglob("*.jpg"))[0]
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"{image.name}: truncated JPEG"):
        prepare.prepare("vipseg", source, tmp_path / "out", progress=False)
    assert [p.name for p in (tmp_path / "out" / "vipseg").iterdir()] == [".1.0.0.parts"]  # shards that are done
    report = prepare.prepare("vipseg", source, tmp_path / "out", skip_bad=True, progress=False)
    assert [p.name for p in (tmp_path / "out" / "vipseg").iterdir()] == ["1.0.0"]
    assert any("left out" in line for line in prepare.describe_report(report))


def test_space_is_checked(tmp_path, monkeypatch):
    files.require_space(tmp_path / "not" / "there", 1)
    with pytest.raises(UserError, match=r"GB free, the files need 1000000000.0 GB"):
        files.require_space(tmp_path, 10**18)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_340_000))
    with pytest.raises(UserError, match=r"has 2.3 MB free, the files need 5.0 MB; free some"):
        files.require_space(tmp_path, 5_000_000)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def many_shards(monkeypatch):
    """A shard for every few frames."""
    monkeypatch.setattr(shards, "LEAST", 6)


def test_an_interrupted_run_goes_on_and_ends_in_the_same_files(raw_vipseg, tmp_path, many_shards, monkeypatch):
    prepare.prepare("vipseg", raw_vipseg, tmp_path / "whole", progress=False)
    write, done = shards.write_shard, []

    def stopped(shard, spec, serialize, options):
        if shards.finished(shard) is None:
            if len(done) % 3 == 2:
                done.append("stopped")
                raise KeyboardInterrupt
            done.append(shard.stem.name)
        return write(shard, spec, serialize, options)

    monkeypatch.setattr(shards, "write_shard", stopped)
    tries = 0
    while True:
        tries += 1
        try:
            prepare.prepare("vipseg", raw_vipseg, tmp_path / "pieces", progress=False)
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "pieces" / "vipseg" / "1.0.0").exists()
    written = [name for name in done if name != "stopped"]
    assert tries == 3 and len(written) == len(set(written))  # no shard twice
    assert contents(tmp_path / "pieces") == contents(tmp_path / "whole")


def test_processes_write_the_same_files(raw_vipseg, tmp_path):
    """Two processes, killed and started again."""
    source = tmp_path / "source"
    for part in ("imgs", "panomasks"):
        for number in range(4):  # 160 frames in several shards
            for video in (raw_vipseg / part).iterdir():
                shutil.copytree(video, source / part / f"{video.name}_{number}")
    names = sorted(p.name for p in (source / "panomasks").iterdir())
    (source / "train.txt").write_text("".join(f"{name}\n" for name in names))
    command = [
        sys.executable, "-c",
        "from vps_jax.data import prepare\n"
        "if __name__ == '__main__':\n"
        f"    prepare.prepare('vipseg', {str(source)!r}, {str(tmp_path / 'pieces')!r}, workers=2, progress=False)\n",
    ]  # fmt: skip
    parts = tmp_path / "pieces" / "vipseg" / ".1.0.0.parts"
    run = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])})
    while run.poll() is None and len(list(parts.glob("*.json"))) < 1:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = {path: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert before and not (tmp_path / "pieces" / "vipseg" / "1.0.0").exists()
    prepare.prepare("vipseg", source, tmp_path / "whole", progress=False)
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])})
    assert contents(tmp_path / "pieces") == contents(tmp_path / "whole")


def test_another_source_under_the_same_name_is_refused(raw_vipseg, tmp_path):
    prepare.prepare("vipseg", raw_vipseg, tmp_path / "out", progress=False)
    other = tmp_path / "other"
    shutil.copytree(raw_vipseg, other)
    prepare.prepare("vipseg", other, tmp_path / "out", progress=False)  # the same files elsewhere
    names = (other / "train.txt").read_text().split()
    (other / "train.txt").write_text("".join(f"{name}\n" for name in names[1:]))
    with pytest.raises(UserError, match=r"out/vipseg was prepared from other files or options than .*other"):
        prepare.prepare("vipseg", other, tmp_path / "out", progress=False)
    with pytest.raises(UserError, match="was prepared from other files or options"):
        prepare.prepare("vipseg", raw_vipseg, tmp_path / "out", short_side=30, progress=False)


def test_shards_of_changed_files_are_written_again(raw_vipseg, tmp_path, many_shards):
    source = tmp_path / "source"
    shutil.copytree(raw_vipseg, source)
    masks = sorted((source / "panomasks").rglob("*.png"))
    whole = masks[-1].read_bytes()
    masks[-1].write_bytes(b"")
    with pytest.raises(UserError, match="unreadable PNG"):
        prepare.prepare("vipseg", source, tmp_path / "out", progress=False)
    masks[-1].write_bytes(whole)
    prepare.prepare("vipseg", source, tmp_path / "out", progress=False)
    prepare.prepare("vipseg", raw_vipseg, tmp_path / "whole", progress=False)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_frames_can_be_stored_smaller(raw_vipseg, tmp_path):
    prepare.prepare("vipseg", raw_vipseg, tmp_path, short_side=24, progress=False)
    opened = records.open_records(tmp_path / "vipseg", "train")
    assert {video.size for video in opened.videos} == {(24, 43), (24, 32)}
    video = opened.videos[0]
    image, labels = records.read_frame(opened, video, 1)
    jpeg = cv2.imread(str(raw_vipseg / "imgs" / video.name / f"{video.stems[1]}.jpg"))
    mask = cv2.imread(str(raw_vipseg / "panomasks" / video.name / f"{video.stems[1]}.png"), -1)
    size = video.size[::-1]
    np.testing.assert_array_equal(labels, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT))
    expected = cv2.resize(jpeg, size, interpolation=cv2.INTER_LINEAR)[..., ::-1].astype(int)
    assert np.abs(image - expected).mean() < 6  # JPEG


def test_a_target_that_cannot_be_written_is_named(raw_vipseg, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/out cannot be written \(.*\); choose another output folder"):
        prepare.prepare("vipseg", raw_vipseg, tmp_path / "file" / "out", progress=False)

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "write_json", full)
    with pytest.raises(UserError, match=r"vipseg cannot be written \(No space left on device\); make room"):
        prepare.prepare("vipseg", raw_vipseg, tmp_path / "out", progress=False)
    monkeypatch.undo()
    prepare.prepare("vipseg", raw_vipseg, tmp_path / "out", progress=False)


def test_large_frames_of_mapillary_are_shrunk(tmp_path):
    sizes = {"sizes": ((900, 1200), (600, 1600)), "lengths": (4, 5)}
    synthetic.synthesize(tmp_path / "raw", layout="mapillary_vistas", train=2, val=0, test=0, progress=False, **sizes)
    prepare.prepare("mapillary_vistas", tmp_path / "raw", tmp_path / "out", progress=False)
    opened = records.open_records(tmp_path / "out" / "mapillary_vistas", "train")
    assert {video.size for video in opened.videos} == {(800, 1067), (500, 1333)}  # short side 800, long side 1,333
    for video in opened.videos:
        image, labels = records.read_frame(opened, video, 0)
        assert image.shape[:2] == labels.shape == video.size


def test_a_disk_that_fills_up_ends_in_one_line(raw_vipseg, tmp_path, many_shards, monkeypatch):
    """The record writer raises a RuntimeError of its own."""
    from array_record.python import array_record_module

    class FullDisk(array_record_module.ArrayRecordWriter):
        def __init__(self, path, options):
            super().__init__(path, options)
            self.full = "train-00002" in path

        def close(self):
            super().close()
            if self.full:
                raise RuntimeError(f"write() failed: No space left on device; writing {tmp_path}")

    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", FullDisk)
    with pytest.raises(UserError, match=r"cannot be written \(write\(\) failed: No space left on device\); make"):
        prepare.prepare("vipseg", raw_vipseg, tmp_path / "out", progress=False)
    kept = sorted(path.name for path in (tmp_path / "out" / "vipseg" / ".1.0.0.parts").iterdir())
    assert kept == [f"train-{i:05d}.{suffix}" for i in range(2) for suffix in ("array_record", "json")]
    monkeypatch.undo()
    monkeypatch.setattr(shards, "LEAST", 6)
    prepare.prepare("vipseg", raw_vipseg, tmp_path / "out", progress=False)
    prepare.prepare("vipseg", raw_vipseg, tmp_path / "whole", progress=False)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


HOLD = "import pathlib, sys, time\nfrom vps_jax.data import prepare_lock\n" + (
    "with prepare_lock.held(pathlib.Path(sys.argv[1]), 'vipseg'):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


def test_two_runs_for_one_folder(raw_vipseg, tmp_path):
    """The second is refused and changes nothing; a lock whose owner was killed holds nobody up."""
    out = tmp_path / "new" / "out"
    command = ["data", "prepare", "vipseg", "--source", str(raw_vipseg), "--out", str(out), "--workers", "1"]
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )  # fmt: skip
    assert other.stdout.readline() == "held\n"
    line = rf"new/out is being prepared by process {other.pid} on .*: wait for its end, or name another --out"
    with pytest.raises(UserError, match=line):
        app(command, standalone_mode=False)
    assert [path.name for path in out.iterdir()] == [".vipseg.lock"]
    other.kill()
    other.wait()
    app(command, standalone_mode=False)
    assert [path.name for path in out.iterdir()] == ["vipseg"]


def test_a_lock_leaves_nothing_and_is_no_condition(tmp_path, monkeypatch):
    out = tmp_path / "new" / "out"
    with prepare_lock.held(out, "own"):
        assert (out / ".own.lock").is_file()
        with pytest.raises(UserError, match=f"process {os.getpid()} on "), prepare_lock.held(out, "own"):
            pass
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with prepare_lock.held(tmp_path / "file" / "out", "own"):  # where nothing can be written
        pass

    def unknown(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)  # a disk of the network
    with prepare_lock.held(out, "own"), prepare_lock.held(out, "own"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_run_left_goes_from_a_finished_set_too(raw_vipseg, tmp_path):
    prepare.prepare("vipseg", raw_vipseg, tmp_path, progress=False)
    for name in ("incomplete.1A2B3C_1.0.0", ".1.0.0.parts"):  # the first as TFDS names it, the second ended too early
        (tmp_path / "vipseg" / name).mkdir()
        (tmp_path / "vipseg" / name / "half").write_bytes(b"x")
    prepare.prepare("vipseg", raw_vipseg, tmp_path, progress=False)
    assert [p.name for p in (tmp_path / "vipseg").iterdir()] == ["1.0.0"]
    shutil.rmtree(tmp_path / "vipseg" / "1.0.0")
    (tmp_path / "vipseg" / "incomplete.1A2B3C_1.0.0").mkdir()
    prepare.prepare("vipseg", raw_vipseg, tmp_path, progress=False)
    assert [p.name for p in (tmp_path / "vipseg").iterdir()] == ["1.0.0"]
