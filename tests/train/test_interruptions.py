"""Runs that are killed or asked to stop, in processes of their own: what is left, and where they end."""

import json
import pathlib
import random
import signal
import time

import jax
import micro_run
import numpy as np
import pytest

from vps_jax.train.checkpoint import find_step, read_tree

pytestmark = pytest.mark.acceptance

PATIENCE = 60  # seconds


def newest(workdir) -> int:
    """Step of the newest whole checkpoint, 0 for none."""
    return max((int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdigit()), default=0)


def being_written(workdir) -> list[pathlib.Path]:
    return list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def read_until(run, line: str, times: int = 1) -> None:
    """Read what a run says until it has said a line so often."""
    for said in run.stdout:
        times -= said.strip() == line
        if not times:
            return
    pytest.fail(f"the run ended before it said {line}: {run.stderr.read()}")


def wait_for_a_save(workdir, run) -> None:
    """Return as soon as a checkpoint begins to be written that is not from a kill before."""
    old = set(being_written(workdir))
    while not set(being_written(workdir)) - old:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.0005)


def end_state(workdir):
    folder = find_step(workdir)
    trees = {item: read_tree(folder / item) for item in ("variables", "ema", "optimizer")}
    return folder.name, trees, json.loads((workdir / "metrics.json").read_text())


def test_twenty_kills_lose_nothing_and_change_no_bit(tmp_path):
    """SIGKILL after random numbers of steps, and while a checkpoint is being written."""
    whole, killed, rng = tmp_path / "whole", tmp_path / "killed", random.Random(15)
    run = micro_run.start(whole)
    run.communicate()
    assert run.returncode == 0
    kills, inside, reached = 0, 0, 0
    while kills < 20 or inside < 5:
        assert kills < 40
        run = micro_run.start(killed)
        read_until(run, "batch", times=rng.randint(1, 6))
        if kills % 4 == 3:
            wait_for_a_save(killed, run)
        time.sleep(rng.random() * 0.02)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        kills += 1
        inside += bool(being_written(killed))
        now = newest(killed)
        print(f"kill {kills}: newest checkpoint {now}, being written {[path.name for path in being_written(killed)]}")
        assert now >= reached
        reached = now
    assert 0 < reached < micro_run.LAST
    run = micro_run.start(killed)
    text = run.communicate()[1]
    assert run.returncode == 0 and f"resumed after step {reached}" in text
    assert "damaged" not in text and not being_written(killed)
    (step, trees, scores), (whole_step, whole_trees, whole_scores) = end_state(killed), end_state(whole)
    assert step == whole_step == str(micro_run.LAST) and scores == whole_scores
    assert jax.tree.structure(trees) == jax.tree.structure(whole_trees)
    for x, y in zip(jax.tree.leaves(trees), jax.tree.leaves(whole_trees), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("phase", ["compilation", "step", "save", "evaluation"])
def test_a_signal_in_any_phase_leaves_a_checkpoint_and_a_code(tmp_path, phase, number, code):
    run = micro_run.start(tmp_path, phase if phase in micro_run.LONG else "")
    if phase == "step":
        read_until(run, "batch", times=5)
    elif phase == "save":
        read_until(run, "batch")
        wait_for_a_save(tmp_path, run)
    else:
        read_until(run, phase)
    run.send_signal(number)
    begin = time.monotonic()
    text = run.communicate(timeout=PATIENCE)[1]
    print(f"{phase}: ended after {time.monotonic() - begin:.1f} s with {run.returncode}, checkpoint {newest(tmp_path)}")
    assert run.returncode == code, text
    assert "Traceback" not in text and not being_written(tmp_path)
    expected = {"compilation": {1}, "step": {5, 6, 7}, "save": {3, 4}, "evaluation": {50}}[phase]
    assert newest(tmp_path) in expected
    assert find_step(tmp_path).name == str(newest(tmp_path))  # whole


def test_a_disk_that_takes_no_more_is_one_line(tmp_path):
    run = micro_run.start(tmp_path, "full")
    text = run.communicate(timeout=PATIENCE)[1]
    assert run.returncode == 1 and newest(tmp_path) == 3
    said = [line for line in text.splitlines() if "cpu_aot_loader" not in line]
    assert said[-1].startswith("error: checkpoint 6 cannot be written to") and "the last one is 3" in said[-1], text
    assert all(
        line.startswith(("micro: ", "compiling ", "step ", "warning: TensorBoard events ", "error: ")) for line in said
    ), text
    assert find_step(tmp_path).name == "3"
