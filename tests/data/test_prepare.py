import pytest

from vps_jax import files
from vps_jax.data import prepare, records
from vps_jax.types import UserError


def test_report_lines(raw_vipseg, tmp_path, capsys):
    report = prepare.prepare("vipseg", raw_vipseg, tmp_path, progress=True)
    lines = prepare.describe_report(report)
    assert lines[0] == "train: 8 videos, 40 frames, sizes 72x40 (4 videos), 64x48 (4 videos)"
    assert "8 videos show instances" in lines[1] and "% of the pixels are unlabelled" in lines[1]
    out, err = capsys.readouterr()
    assert out == "" and "40/40" in err  # the bar is on stderr, TFDS says nothing


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


def test_a_broken_frame_is_a_user_error_and_nothing_is_left(raw_vipseg, tmp_path):
    import shutil

    source = tmp_path / "source"
    shutil.copytree(raw_vipseg, source)
    image = sorted((source / "imgs").rglob("*.jpg"))[0]
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"{image.name}: truncated JPEG"):
        prepare.prepare("vipseg", source, tmp_path / "out", progress=False)
    assert not list((tmp_path / "out" / "vipseg").iterdir())
    report = prepare.prepare("vipseg", source, tmp_path / "out", skip_bad=True, progress=False)
    assert any("left out" in line for line in prepare.describe_report(report))


def test_space_is_checked(tmp_path):
    files.require_space(tmp_path / "not" / "there", 1)
    with pytest.raises(UserError, match=r"GB free, expected 1000000000.0 GB or more"):
        files.require_space(tmp_path, 10**18)
