"""Published weights by name: fetched, converted into the cache, and what `predict --weights` makes of them."""

import concurrent.futures
import dataclasses
import os
import pathlib
import pickle
import time
import zipfile

import jax
import numpy as np
import pytest

from vps_jax import cli, convert
from vps_jax.runs import experiment, predict_files, published
from vps_jax.train.checkpoint import restore_for_inference
from vps_jax.types import UserError
from vps_jax.weights import catalogue, download

NAME = "videomt_large_vipseg"
SMALL = {"size": "small", "width": 16, "num_heads": 2, "trunk_blocks": 1, "query_blocks": 1, "queries": 3}
CONVERTED = {"notes": ["one note"], "from_file": 5, "parameters": 6}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and no way to the network."""

    def fail(*_, **__):
        raise AssertionError("a test asked for an address")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "over_http", fail)
    monkeypatch.setattr(download, "from_hub", fail)
    return tmp_path / "cache" / "vps_jax" / "weights"


@pytest.fixture
def converted(monkeypatch):
    """Calls of the conversion, which writes a mark instead."""
    calls = []

    def convert_weights(source, config, out):
        calls.append((pathlib.Path(source).read_bytes(), config, out))
        (out / "checkpoints").mkdir()
        return CONVERTED

    monkeypatch.setattr(experiment, "convert_weights", convert_weights)
    return calls


def put(cache, content: bytes, name: str = NAME) -> pathlib.Path:
    entry = catalogue.find(name)
    path = cache / "files" / name / entry.file
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def change(monkeypatch, **changes):
    """The row of NAME with other facts."""
    row = dataclasses.replace(catalogue.find(NAME), **changes)
    monkeypatch.setattr(catalogue, "entries", lambda: (row,))


def test_a_file_put_there_by_hand_becomes_a_checkpoint(cache, monkeypatch, capsys):
    """The one real conversion, of a model in small."""
    change(monkeypatch, changes={"model": SMALL})
    entry = catalogue.find(NAME)
    model = dataclasses.replace(published.config_of(entry).model, image_size=96)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), convert.expected(model))
    file = put(cache, b"")
    file.unlink()
    convert.save_torch(file, convert.to_arrays(variables, model))
    folder = published.get(NAME)
    assert folder == cache / "checkpoints" / NAME and os.listdir(folder.parent) == [NAME]
    config, restored = restore_for_inference(folder)
    assert config.model == model
    np.testing.assert_array_equal(restored["params"]["trunk"]["pos_embed"], variables["params"]["trunk"]["pos_embed"])
    out = capsys.readouterr().out
    assert f"{NAME}: {entry.licence}\n" in out
    assert f"{file}: {file.stat().st_size} bytes, sha256 " in out and "(none is known to compare it with)" in out


def test_what_is_in_the_cache_is_not_made_again(cache, converted, capsys):
    put(cache, b"weights")
    assert published.get(NAME) == published.get(NAME)
    assert [content for content, _, _ in converted] == [b"weights"]
    assert [line.split()[1] for line in published.table() if line.startswith("*")] == [NAME]
    assert "one note\n5 of 6 parameters from vipseg_vit_large_55.2.pth -> " in capsys.readouterr().out


def test_processes_that_want_the_same_wait_for_the_first(cache, monkeypatch):
    put(cache, b"weights")
    calls = []

    def convert_weights(source, config, out):
        calls.append(out)
        time.sleep(0.3)
        (out / "checkpoints").mkdir()
        return CONVERTED

    monkeypatch.setattr(experiment, "convert_weights", convert_weights)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert set(pool.map(published.get, [NAME] * 3)) == {cache / "checkpoints" / NAME}
    assert len(calls) == 1


def test_another_folder(cache, converted, tmp_path):
    put(cache, b"weights")
    out = tmp_path / "runs" / "published"
    assert published.get(NAME, out) == out and (out / "checkpoints").is_dir()
    assert not (cache / "checkpoints").exists()
    with pytest.raises(UserError, match="is there already; expected a new or empty folder"):
        published.get(NAME, out)


def test_the_archive_of_tarvis_is_unpacked_while_it_is_read(cache, converted):
    path = put(cache, b"", "tarvis_swin_large")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("swin-large_finetune/../../evil.pth", "weights")  # its name leads nowhere
        archive.writestr("swin-large_finetune/config.yaml", "MODEL:")
    published.get("tarvis_swin_large")
    assert converted[0][0] == b"weights" and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no archive", "is damaged (File is not a zip file); remove it and fetch"), (None, "holds 0 .pth files")],
)
def test_archives_that_cannot_be_right(cache, converted, content, words):
    path = put(cache, content or b"", "tarvis_swin_large")
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "x")
    with pytest.raises(UserError) as error:
        published.get("tarvis_swin_large")
    assert words in str(error.value) and not converted and os.listdir(cache) == ["files"]


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_a_hostile_pickle_is_refused(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(cache, pickle.dumps({"model": Hostile()}))
    with pytest.raises(UserError, match="which is neither a tensor, a plain container nor a number; nothing was run"):
        published.get(NAME)
    assert not (tmp_path / "hacked").exists() and os.listdir(cache) == ["files"]


def test_without_a_file_nothing_is_left(tmp_path, monkeypatch, cache):
    change(monkeypatch, address=None)
    with pytest.raises(UserError, match=f"by hand from github.com/tue-mps/videomt, put it at {cache}/files/{NAME}/"):
        published.get(NAME)
    assert not list(tmp_path.iterdir())


def run(*arguments, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code, capsys.readouterr().err


@pytest.fixture
def predicted(monkeypatch):
    """Calls of predict_with_checkpoint, which predicts nothing."""
    calls = []

    def predict(inputs, checkpoint, output, *, weights, **_):
        calls.append((inputs, checkpoint, weights))
        return predict_files.Report(1, 2)

    monkeypatch.setattr(experiment, "predict_with_checkpoint", predict)
    return calls


def test_predict_takes_a_name_without_network(cache, converted, predicted, tmp_path, capsys):
    put(cache, b"weights")
    for _ in range(2):
        assert run("predict", "a.mp4", "--weights", NAME, "--output", tmp_path / "out", capsys=capsys) == (0, "")
    assert predicted == [(["a.mp4"], cache / "checkpoints" / NAME, "ema")] * 2 and len(converted) == 1


@pytest.mark.parametrize("which", ["ema", "raw"])
def test_predict_still_knows_the_weights_of_a_checkpoint(predicted, which, capsys):
    words = ("predict", "a.mp4", "--checkpoint", "run", "--weights", which, "--output", "out")
    assert run(*words, capsys=capsys) == (0, "")
    assert predicted == [(["a.mp4"], pathlib.Path("run"), which)]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--weights", "eam"], "--weights eam; expected ema, raw or a name of `vps-jax weights list`"),
        (["--weights", "raw"], "neither of --checkpoint and --ensemble; give one of them"),
        (["--weights", NAME, "--checkpoint", "run"], f"--weights {NAME} takes the place of --checkpoint run; leave"),
        (["--weights", "swin_large"], "--weights swin_large: Swin-L, 384 px is a start for training and predicts"),
    ],
)
def test_weights_that_mean_nothing(words, line, capsys, tmp_path):
    code, error = run("predict", "a.mp4", "--output", "out", *words, capsys=capsys)
    assert code == cli.BAD_INPUT and error.startswith(f"error: {line}") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_list_asks_nobody(capsys):
    with pytest.raises(SystemExit):
        cli.main(["weights", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(catalogue.entries())
    assert any(NAME in line and "VPQ 55.2, STQ 48.9 on VIPSeg val" in line for line in lines)
