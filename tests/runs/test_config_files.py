"""Experiment files by name and by path, and the command that lists and prints them."""

import pathlib

import pytest

from vps_jax import cli
from vps_jax.runs import config_files
from vps_jax.types import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_names_are_the_experiments_with_their_first_line():
    names = config_files.names()
    assert {"tiny", "stage1", "stage4", "ensemble", "vspw_vit_adapter"} <= set(names)
    assert not {"common", "datasets"} & set(names)  # helpers of the others
    assert names["stage1"].startswith("Stage 1:")


@pytest.mark.parametrize("reference", ["stage2:resnet50", "stage2.py:resnet50", "configs/stage2.py:resnet50"])
def test_a_shipped_experiment_is_found_by_name_from_any_folder(reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.load(reference)["model"]["backbone"] == "resnet50"


def test_a_file_of_the_user_comes_before_a_shipped_one(tmp_path, monkeypatch):
    (tmp_path / "tiny.py").write_text(
        "import ml_collections\n\ndef get_config():\n    return ml_collections.ConfigDict({'name': 'mine'})\n"
    )
    monkeypatch.chdir(tmp_path)
    assert config_files.load("tiny.py") == {"name": "mine"}


@pytest.mark.parametrize(
    ("reference", "line"), [("nothing.py", "is not there"), ("configs/common.py", "no get_config")]
)
def test_wrong_files_are_named(reference, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=line):
        config_files.load(reference)


def test_a_wrong_argument_is_named():
    with pytest.raises(UserError, match="argument 'huge' of the experiment: expected one of beit_large_640"):
        config_files.load("vspw_vit_adapter:huge")


def test_a_wheel_finds_its_own_copy(tmp_path, monkeypatch):
    copy = tmp_path / "site" / "vps_jax" / "shipped" / "configs"
    copy.mkdir(parents=True)
    for name in ("common.py", "tiny.py"):
        (copy / name).write_bytes((ROOT / "configs" / name).read_bytes())
    monkeypatch.setattr(config_files, "PACKAGE", tmp_path / "site" / "vps_jax")
    assert config_files.folder() == copy
    assert set(config_files.names()) == {"tiny"}


def test_commands_list_and_print(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["configs"])
    assert done.value.code == 0
    assert "An ensemble at small scale" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        cli.main(["configs", "stage2:swin_tiny"])
    out = capsys.readouterr().out
    assert done.value.code == 0
    assert out.startswith("Stage 2:")
    assert "backbone: 'swin_tiny'" in out


def test_version(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out.startswith("vps-jax ")


def test_a_missing_extra_is_named(capsys, monkeypatch):
    def predict(*given, **options):
        raise ModuleNotFoundError("No module named 'grain'", name="grain.python")

    monkeypatch.setattr(cli, "app", predict)
    with pytest.raises(SystemExit) as done:
        cli.main(["demo"])
    assert done.value.code == 2
    assert "pip install 'vps-jax[train]'" in capsys.readouterr().err
