"""Data that are broken or odd, in the stream of a run: it stops or goes on as configured, and says what it met."""

import dataclasses
import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from micro_experiment import OPTIM, micro_config, use_micro_rooms
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vps_jax.config import Source
from vps_jax.data import prepare
from vps_jax.data.records import BrokenRecord, open_records, read_frame
from vps_jax.runs import replay
from vps_jax.train import loop
from vps_jax.types import UserError

GRASS, DOOR, PERSON, CAR = 40, 300, 6100, 4700  # label values; those of things are the first of a hundred
SIZE = (40, 72)


def crowd() -> np.ndarray:
    """Three hundred instances of nine pixels."""
    cells = np.arange(13 * 24).reshape(13, 24)
    values = np.where(cells < 300, np.array([DOOR, PERSON, CAR])[cells // 100 % 3] + cells % 100, GRASS)
    return np.pad(values.repeat(3, 0).repeat(3, 1), ((0, 1), (0, 0)), constant_values=GRASS)


def two_people() -> np.ndarray:
    labels = np.full(SIZE, GRASS)
    labels[5:20, 5:20], labels[10:30, 40:60] = PERSON, PERSON + 1
    return labels


def beyond_the_classes() -> np.ndarray:
    """Values that the data set does not define."""
    labels = two_people()
    labels[:5] = 125
    labels[35:] = 65535
    return labels


VIDEOS = {  # labels of every frame, number of frames
    "ordinary": (two_people(), 3),
    "void": (np.zeros(SIZE), 3),
    "crowd": (crowd(), 3),
    "single": (two_people(), 1),
    "beyond": (beyond_the_classes(), 3),
    "wide": (np.tile(two_people()[:32, :64], (1, 2)), 3),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> pathlib.Path:
    """The videos as records."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for name, (labels, frames) in VIDEOS.items():
        for folder in ("imgs", "panomasks"):
            (raw / folder / name).mkdir(parents=True)
        for i in range(frames):
            cv2.imwrite(str(raw / "imgs" / name / f"{i:05d}.jpg"), rng.integers(0, 255, (*labels.shape, 3), np.uint8))
            cv2.imwrite(str(raw / "panomasks" / name / f"{i:05d}.png"), labels.astype(np.uint16))
    (raw / "train.txt").write_text("\n".join(VIDEOS) + "\n")
    prepare.prepare("vipseg", raw, out, progress=False)
    return out / "vipseg"


def record_file(prepared: pathlib.Path) -> pathlib.Path:
    (file,) = prepared.rglob("*train.array_record*")
    return file


def rewrite(prepared: pathlib.Path, number: int, part: str) -> None:
    """Zeros over the second half of the image or label of one record, whose length stays."""
    stored = open_records(prepared, "train").source[number][part]
    reader = ArrayRecordReader(str(record_file(prepared)))
    rows = reader.read_all()
    reader.close()
    half = len(stored) // 2
    assert stored in rows[number]
    rows[number] = rows[number].replace(stored, stored[:half] + bytes(len(stored) - half))
    writer = ArrayRecordWriter(str(record_file(prepared)), "group_size:1")
    for row in rows:
        writer.write(row)
    writer.close()


def break_label(prepared) -> None:
    rewrite(prepared, first_record(prepared, "crowd"), "label")


def break_image(prepared) -> None:
    rewrite(prepared, first_record(prepared, "crowd"), "image")


def flip_bytes(prepared) -> None:
    file = record_file(prepared)
    data = bytearray(file.read_bytes())
    data[130:140] = bytes(255 - b for b in data[130:140])  # in the first record
    file.write_bytes(data)


def first_record(prepared, name: str) -> int:
    return next(video.first for video in open_records(prepared, "train").videos if video.name == name)


@pytest.mark.parametrize(
    ("damage", "name", "reason"),
    [
        (break_label, "crowd", "decompressing"),
        (break_image, "crowd", "the image cannot be decoded"),
        (flip_bytes, "ordinary", "Corrupted"),
    ],
)
def test_a_broken_record_is_named(prepared, tmp_path, damage, name, reason):
    copy = shutil.copytree(prepared, tmp_path / "vipseg")
    damage(copy)
    opened = open_records(copy, "train")
    broken = next(video for video in opened.videos if video.name == name)
    with pytest.raises(BrokenRecord, match=f"{record_file(copy)}: video {name}, frame 00000 .*: .*{reason}"):
        read_frame(opened, broken, 0)
    whole = next(video for video in opened.videos if video.name == "single")
    assert read_frame(opened, whole, 0)[0].shape == (*SIZE, 3)


def run(prepared, workdir, monkeypatch, *, broken_records="stop", **train):
    """A run of the micro model on the stream of real records; the names of the clips that it took."""
    use_micro_rooms(monkeypatch, stream=False)
    config = micro_config(**{"steps": 6, "checkpoint_every": 0, "evaluate_every": 0, **train})
    source = Source(str(prepared), short_side=32, max_side=128, task="micro", group="g", needs_instances=False)
    data = dataclasses.replace(
        config.data, sources={"clips": source}, num_workers=0, chunk_steps=1, max_instances=64, clip_frames=2,
        broken_records=broken_records,
    )  # fmt: skip
    taken, batches = [], loop.pipeline.train_batches

    def listed(data, **where):
        for batch in batches(data, **where):
            taken.extend(name.partition("/")[0] for name in batch.records)
            yield batch

    monkeypatch.setattr(loop.pipeline, "train_batches", listed)
    loop.train(dataclasses.replace(config, data=data), workdir)
    return taken


def test_odd_videos_are_trained_on(prepared, tmp_path, monkeypatch, capsys):
    assert set(run(prepared, tmp_path, monkeypatch)) == set(VIDEOS)
    losses = EventAccumulator(str(tmp_path)).Reload().Tensors("train_micro/loss")
    assert [e.step for e in losses] == [2, 4, 6]
    assert all(np.isfinite(e.tensor_proto.float_val[0]) for e in losses)
    assert "cannot be read" not in capsys.readouterr().err


def break_crowd(prepared, part: str) -> None:
    """Break image or label of every frame of one video."""
    for number in range(3):
        rewrite(prepared, first_record(prepared, "crowd") + number, part)


@pytest.mark.parametrize("part", ["label", "image"])
def test_a_broken_record_stops_the_run(prepared, tmp_path, monkeypatch, part):
    copy = shutil.copytree(prepared, tmp_path / "vipseg")
    break_crowd(copy, part)
    message = r"step \d: data.sources.clips: .*array_record.*: video crowd, frame 0000\d .*set data.broken_records=skip"
    with pytest.raises(UserError, match=message) as error:
        run(copy, tmp_path / "run", monkeypatch)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["label", "image"])
def test_broken_records_are_skipped_and_counted(prepared, tmp_path, monkeypatch, capsys, part):
    copy = shutil.copytree(prepared, tmp_path / "vipseg")
    break_crowd(copy, part)
    taken = run(copy, tmp_path / "run", monkeypatch, broken_records="skip")
    assert set(taken) == set(VIDEOS) - {"crowd"} and len(taken) >= 6 * 8
    text = capsys.readouterr().err
    told = [line for line in text.splitlines() if "video crowd" in line]
    assert told and len(told) == len(set(told)) and all("another clip in its place, " in line for line in told)
    counts = EventAccumulator(str(tmp_path / "run")).Reload().Tensors("train/broken_records")
    assert counts[-1].tensor_proto.float_val[0] >= len(told)
    found = replay.replay(tmp_path / "run", counts[0].step - 1)
    assert any("video crowd" in line for line in found.broken)
    assert "broken: data.sources.clips" in "\n".join(replay.lines(found))


@pytest.mark.parametrize("choice", ["stop", "skip"])
def test_a_set_that_is_broken_altogether_ends_the_run(prepared, tmp_path, monkeypatch, choice):
    copy = shutil.copytree(prepared, tmp_path / "vipseg")
    file = record_file(copy)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(UserError, match="clips in a row are broken, the last: data.sources.clips: .*prepare the set"):
        run(copy, tmp_path / "run", monkeypatch, broken_records=choice)


def test_the_record_of_a_step_that_is_not_finite_has_norms_by_module(tmp_path, monkeypatch):
    use_micro_rooms(monkeypatch, broken_step=1)
    with pytest.raises(UserError, match="step 1: grad_norm, loss, squared not finite"):
        loop.train(micro_config(), tmp_path)
    terms = json.loads((tmp_path / "nonfinite_step1.json").read_text())["terms"]
    assert {"grad_norm/backbone", "grad_norm/head", "grad_norm/norm"} < set(terms)
    assert terms["grad_norm/backbone"] == "nan"


@pytest.mark.parametrize(
    ("choice", "message"), [("stop", "loss, .*not finite on 8 clips"), ("skip", "train.skip_at_most=10 steps in a row")]
)
def test_a_rate_that_destroys_the_weights_ends_the_run_and_replay_shows_it(tmp_path, monkeypatch, choice, message):
    use_micro_rooms(monkeypatch)
    optim = {**OPTIM, "lr": 1e9, "clip_norm": 0.0}
    with pytest.raises(UserError, match=message):
        loop.train(micro_config(optim=optim, steps=40, checkpoint_every=0, on_nonfinite=choice), tmp_path)
    found = replay.replay(tmp_path)
    assert not np.isfinite(found.terms["loss"]) and max(found.before.values()) > 1e9
