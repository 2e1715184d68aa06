"""A prepared set of own data that is made anew: the old one is whole until the new one is, whenever a run is killed."""

import os
import shutil

import own_scenes
import pytest
from small_disk import small_disk

from vps_jax.data import own_swap, prepare_lock
from vps_jax.datasets import own_folder
from vps_jax.runs import own_set
from vps_jax.types import UserError


class Killed(BaseException):
    """What no code of ours catches."""


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drawn_in(folder, videos):
    drawn = list(own_scenes.drawn({"train": videos, "val": 1}, size=(40, 48), frames=3))
    own_scenes.write_frames(folder, drawn)
    return own_scenes.as_index(folder, drawn)


@pytest.fixture
def sources(tmp_path):
    """Two sources, and what they are."""
    return {name: (drawn_in(tmp_path / name, videos), tmp_path / name) for name, videos in (("old", 1), ("new", 2))}


def prepare(sources, name, out, **options):
    return own_set.prepare(*sources[name], out, progress=False, **options)


@pytest.fixture
def out(sources, tmp_path):
    """The old set, prepared."""
    prepare(sources, "old", tmp_path / "out")
    return tmp_path / "out"


def break_frame(sources):
    """Damage a frame of the new source; gives a function that mends it."""
    path = sorted((sources["new"][1] / "frames" / "val").rglob("*.png"))[-1]
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    return lambda: path.write_bytes(whole)


def test_a_source_that_does_not_work_leaves_the_old_set_whole(sources, out, tmp_path):
    before, mend = contents(out), break_frame(sources)
    for _ in range(2):
        with pytest.raises(UserError, match="truncated PNG"):
            prepare(sources, "new", out, again=True)
        assert {name: data for name, data in contents(out).items() if not name.startswith(".again/")} == before
    done = list((out / ".again").rglob("*.array_record"))
    assert len(done) == 1  # the shard of train
    stamp = done[0].stat().st_mtime_ns
    with pytest.raises(UserError, match="out was prepared from another source; give --again to replace it"):
        prepare(sources, "new", out)
    mend()
    prepare(sources, "new", out, again=True)
    (record,) = (out / "records" / "1.0.0").glob("*train*")
    assert record.stat().st_mtime_ns == stamp  # it was not written twice
    prepare(sources, "new", tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh") and not list(out.glob(".*"))


def test_what_a_run_for_another_set_left_is_not_gone_on_with(sources, out, tmp_path):
    break_frame(sources)
    with pytest.raises(UserError, match="truncated PNG"):
        prepare(sources, "new", out, again=True)
    prepare(sources, "old", out, again=True, short_side=24)
    prepare(sources, "old", tmp_path / "fresh", short_side=24)
    assert contents(out) == contents(tmp_path / "fresh")
    with pytest.raises(UserError, match="truncated PNG"):
        prepare(sources, "new", out, again=True)
    assert (out / ".again").is_dir()
    prepare(sources, "old", out, short_side=24)
    assert contents(out) == contents(tmp_path / "fresh")


def test_another_size_names_the_option_that_replaces(sources, out):
    with pytest.raises(UserError, match="records was prepared from other files or options than .*; give --again to"):
        prepare(sources, "old", out, short_side=24)


def test_a_finished_set_is_reported_where_nothing_can_be_written(sources, tmp_path):
    with small_disk(tmp_path / "disk", "16m") as remount:
        out = tmp_path / "disk" / "out"
        first = prepare(sources, "old", out)
        remount("ro")
        with prepare_lock.held(out, "own"):
            assert prepare(sources, "old", out) == first
        with pytest.raises(UserError, match=r"disk/out cannot be written \(Read-only file system\); choose another"):
            prepare(sources, "new", out, again=True)


@pytest.mark.parametrize("function", ["replace", "rmtree"])
def test_killed_in_the_exchange_the_next_run_ends_it(sources, out, tmp_path, monkeypatch, function):
    """Before every renaming and removal in turn. The old set has a part that the new one lacks."""
    prepare(sources, "new", tmp_path / "fresh")
    (out / "frames").mkdir()
    shutil.copytree(out, tmp_path / "before")
    module = os if function == "replace" else shutil
    call, moments = getattr(module, function), 0
    for moment in range(20):
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "before", out)
        asked = own_folder.described(*sources["new"])
        shutil.copytree(tmp_path / "fresh", own_swap.begin(out, asked), dirs_exist_ok=True)
        count = iter(range(20))

        def killed(*given, moment=moment, count=count, **options):
            if given[0].name.startswith(".all"):  # the list of parts
                return call(*given, **options)
            if next(count) == moment:
                raise Killed
            return call(*given, **options)

        with monkeypatch.context() as patch:
            patch.setattr(module, function, killed)
            try:
                own_swap.take_place(out)
            except Killed:
                moments += 1
            else:
                break
        decided = not (out / ".again").exists()
        assert decided or contents(out).items() >= contents(tmp_path / "before").items()
        if decided:
            with pytest.raises(UserError, match="was prepared from another source; give --again"):
                prepare(sources, "old", out)
            assert contents(out) == contents(tmp_path / "fresh") and not (out / "frames").exists()
        else:
            prepare(sources, "new", out, again=True)
            assert contents(out) == contents(tmp_path / "fresh")
    assert moments == {"replace": 10, "rmtree": 2}[function]
