"""`vps-jax weights get` against a server of this test: what is printed, and what is left."""

import dataclasses
import hashlib
import os
import pickle

import pytest

from vps_jax import cli
from vps_jax.runs import experiment
from vps_jax.weights import catalogue

NAME = "videomt_large_vipseg"
DATA = bytes(range(256)) * 400
SUM = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def get(served, tmp_path, monkeypatch, capsys):
    """Runs the command with a row of the table that leads to the server: exit code, stdout, stderr."""
    row = dataclasses.replace(catalogue.find(NAME), address=f"{served.address}/model.pth", file="model.pth")
    served.files["/model.pth"] = DATA
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(**changes):
        monkeypatch.setattr(catalogue, "entries", lambda: (dataclasses.replace(row, **changes),))
        with pytest.raises(SystemExit) as stop:
            cli.main(["weights", "get", NAME])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run


@pytest.fixture
def converted(monkeypatch):
    """A conversion that only says so."""

    def convert_weights(source, config, out):
        (out / "checkpoints").mkdir()
        return {"notes": ["one note"], "from_file": 5, "parameters": 5}

    monkeypatch.setattr(experiment, "convert_weights", convert_weights)


def test_a_broken_download_resumes_and_is_converted(get, served, converted, tmp_path):
    served.most_bytes, served.breaks = 60_000, 1
    code, _, error = get(sha256=SUM)
    assert code == cli.BAD_INPUT and "broke off after 60000 of 102400 bytes" in error and error.count("\n") == 1
    code, out, error = get(sha256=SUM)
    cache = tmp_path / "cache" / "vps_jax" / "weights"
    assert (code, error) == (0, "")
    assert out.splitlines()[-1] == str(cache / "checkpoints" / NAME)
    assert f"{cache / 'files' / NAME / 'model.pth'}: 102400 bytes, sha256 {SUM} (as expected)" in out
    assert served.requests[-1][2]["Range"] == "bytes=60000-"
    asked = len(served.requests)
    assert get(sha256=SUM)[1] == f"{cache / 'checkpoints' / NAME}\n" and len(served.requests) == asked


def test_an_unknown_sum_is_said(get, converted):
    assert f"sha256 {SUM} (none is known to compare it with)" in get()[1]


@pytest.mark.parametrize(
    ("changes", "words"), [({"sha256": "0" * 64}, f"sha256 {SUM}, expected {'0' * 64}"), ({}, "answers 404 Not Found")]
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(get, served, converted, tmp_path, changes, words):
    if not changes:
        served.files.clear()
    code, _, error = get(**changes)
    assert code == cli.BAD_INPUT and words in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_hostile_pickle_is_refused(get, served, tmp_path, monkeypatch):
    class Hostile:
        def __reduce__(self):
            return os.system, ("touch hacked",)

    monkeypatch.chdir(tmp_path)
    served.files["/model.pth"] = pickle.dumps({"model": Hostile()})
    code, _, error = get()
    assert code == cli.BAD_INPUT and "neither a tensor, a plain container nor a number" in error
    assert error.count("\n") == 1 and not (tmp_path / "hacked").exists()
    assert not (tmp_path / "cache" / "vps_jax" / "weights" / "checkpoints").exists()
