"""Training step by step against the published system's: loss, gradients, assignments, masks, parameters, average.

A free run in float32 leaves the float64 one within a few steps, since masks are cut at 0.5 and points are the largest
of many. Hence two kinds: in float64 nothing is given but the numbers that points are drawn from; in float32 the stored
masks, assignments and points are followed.
"""

import os
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

import golden_files
import numpy as np
import pytest
import quick_compile
import tarvis_training

pytestmark = pytest.mark.parity
TESTS = pathlib.Path(__file__).resolve().parents[1]
SHORT = 3  # steps of every run that `make test` walks
LENGTHS = [SHORT, pytest.param(None, marks=pytest.mark.acceptance, id="whole")]
# golden/README: the published float32 run differs from its own float64 run in 5 of the 1,000 assigned rows
MOST_OTHER_ROWS, STEPS_WITHOUT = 12, 6
# the step whose numbers are the first that a mistake can change: the rate of step 0 is zero, so an update is first seen
# in the parameters after step 1 and in the loss of step 2
FIRST_SEEN = {
    "normalized_over_2": 0,
    "warm_up_one_step_early": 1,
    "ramp_one_step_early": 1,
    "decay_on_norms": 2,
    "clip_after_adamw": 2,
    "beta2_0.99": 2,
}


class Miss(NamedTuple):
    """A number that is not within its tolerance, first seen at a step."""

    step: int
    name: str
    found: float
    allowed: float


@pytest.fixture
def golden(golden_dir, golden_is_whole):
    return golden_files.load(golden_dir, tarvis_training.CASE, whole=golden_is_whole)


def run_in_float64(folder, output, *runs: str) -> list[dict[str, np.ndarray]]:
    """The runs `PREFIX:STEPS[:MISTAKE]` by a process of its own."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    if all(int(run.split(":")[1]) <= SHORT for run in runs):
        # so few steps cost less than what it would cost to optimise their programs
        environment["XLA_FLAGS"] = quick_compile.xla_flags(devices=1)
    command = [sys.executable, TESTS / "float64_training.py", folder, output, *runs]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return [dict(np.load(output / f"{run}.npz")) for run in runs]


def after(name: str) -> int | None:
    """The number of steps after which an array was taken, None for one with a row per step."""
    match = re.search(r"_after(\d+)", name)
    return int(match[1]) if match else None


def stored_of(manifest: dict, prefix: str, found: dict, key: str) -> dict[str, dict]:
    """Manifest entries of a run that have `key` and that its steps have reached, by the name without the prefix."""
    steps = len(found["loss"])
    others = tuple(p for p in ("free_", "joint_", "accumulate_", "together_") if p != prefix)
    entries = {
        name.removeprefix(prefix): entry
        for name, entry in manifest["arrays"].items()
        if name.startswith(prefix) and not name.startswith(others) and key in entry
    }
    reached = {name: entry for name, entry in entries.items() if (after(name) or 0) <= steps}
    assert reached and set(reached) <= set(found), sorted(set(reached) - set(found))
    return reached


def misses_in_float64(found: dict, manifest: dict, arrays: dict, prefix: str) -> list[Miss]:
    """Everything of a free run that is not as stored."""
    misses = []
    for name, entry in stored_of(manifest, prefix, found, "tolerance_x64").items():
        ((kind, allowed),) = entry["tolerance_x64"].items()
        misses += rows_beyond(name, found[name], arrays[prefix + name], kind, allowed)
    for name in stored_of(manifest, prefix, found, "equal"):
        misses += rows_beyond(name, found[name], arrays[prefix + name], "equal", 0.0)
    return sorted(misses + average_misses(found, manifest))


def rows_beyond(name: str, found, expected, kind: str, allowed: float) -> list[Miss]:
    """Rows of an array, steps or parameters, that miss by more than `allowed`."""
    scale = {
        "relative": np.abs(expected),
        "relative_to_largest": np.abs(expected).max(),
        "relative_to_largest_of_the_row": np.abs(expected).max(axis=-1, keepdims=True),
        "equal": np.ones(()),
    }[kind]
    steps = len(found)
    gap = np.abs(found - expected[:steps].astype(np.float64))
    scale = np.broadcast_to(scale, expected.shape)[:steps]
    gap = np.where(gap == 0, 0, gap / np.maximum(scale, 1e-300)).reshape(steps, -1).max(axis=1)
    taken = after(name)
    return [Miss(k if taken is None else taken - 1, name, float(g), allowed) for k, g in enumerate(gap) if g > allowed]


def average_misses(found: dict, manifest: dict) -> list[Miss]:
    """The average of the first steps by the manifest's rule, from the parameters of the same run."""
    final = float(re.search(r"min\(([\d.]+)", manifest["settings"]["ema"])[1])
    entries = (entry for name, entry in manifest["arrays"].items() if "ema_change_after" in name)
    ((kind, allowed),) = next(e["tolerance_x64"] for e in entries if "tolerance_x64" in e).items()
    average, misses = 0.0, []
    for n in range(min(len(found["loss"]), SHORT)):
        decay = min(final, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * found[f"change_after{n + 1}"]
        name = f"ema_change_after{n + 1}"
        misses += rows_beyond(name, found[name], average, kind, allowed)
    return misses


@pytest.mark.early
@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("prefix", ["free_", "joint_"])
def test_free_in_float64(prefix, steps, golden, golden_dir, tmp_path):
    """Own masks, assignments and uncertain points; `joint_` takes panoptic, semantic and instance steps in turn."""
    manifest, arrays = golden
    steps = steps or len(arrays[f"{prefix}loss"])
    (found,) = run_in_float64(golden_dir, tmp_path, f"{prefix}:{steps}")
    assert len(found["loss"]) == steps
    assert misses_in_float64(found, manifest, arrays, prefix) == []


@pytest.mark.acceptance
def test_every_mistake_is_seen(golden, golden_dir, tmp_path):
    """All numbers before the first step that a mistake can change are as stored, and that step's are not."""
    names = list(tarvis_training.MISTAKES)
    found = run_in_float64(golden_dir, tmp_path, *(f"free_:{FIRST_SEEN[name] + 1}:{name}" for name in names))
    firsts = {name: misses_in_float64(one, *golden, "free_")[0] for name, one in zip(names, found, strict=True)}
    for name, miss in firsts.items():
        print(f"{name}: step {miss.step}, {miss.name} off by {miss.found:.1e}, allowed {miss.allowed:.0e}")
    assert {name: miss.step for name, miss in firsts.items()} == FIRST_SEEN


def check_in_float32(found: dict, manifest: dict, arrays: dict) -> None:
    """Every array of a run within the manifest's tolerances, per step and, where all its steps are done, whole."""
    steps = len(found["loss"])
    for name, entry in stored_of(manifest, "", found, "tolerance").items():
        ours, theirs = found[name], arrays[name]
        if after(name) is not None or steps == len(theirs):
            golden_files.assert_within(ours, theirs, entry["tolerance"], name)
        for k, allowed in enumerate(entry.get("tolerance_relative_per_step", ())[:steps]):
            off = np.abs(ours[k] - theirs[k]).max() / np.abs(theirs[k]).max()
            assert off <= allowed, f"{name} of step {k}: off by {off:.1e}, allowed {allowed:.1e}"


@pytest.mark.early
@pytest.mark.parametrize("steps", LENGTHS)
def test_followed_in_float32(steps, golden, golden_dir, golden_is_whole):
    """The stored masks, assignments and points; one's own, before they are replaced, are nearly the same."""
    manifest, arrays = golden
    made = tarvis_training.recipe(manifest, arrays, "")
    steps = steps or made.steps
    if steps > len(arrays["attend_level0_packed"]) and not golden_is_whole:
        pytest.skip("the masks of later steps are not in the shipped subset")
    found = tarvis_training.run(golden_dir, made, steps, whole=True)
    check_in_float32(found, manifest, arrays)
    other_rows = (found["match_columns"] != arrays["match_columns"][: len(found["loss"])]).sum(axis=(1, 2, 3))
    assert not other_rows[:STEPS_WITHOUT].any() and other_rows.sum() <= MOST_OTHER_ROWS, other_rows
    most_bits = 20 + 10 * np.array(manifest["own_bits_that_differ_fp32_per_step"])
    assert (found["other_bits"] <= most_bits[: len(found["loss"])]).all(), found["other_bits"]


@pytest.mark.early
@pytest.mark.parametrize("prefix", ["accumulate_", "together_"])
def test_other_batches_in_float64(prefix, golden, golden_dir, tmp_path):
    """Two micro-batches whose gradients are averaged; and both clips in one normalisation.

    Masks and assignments are one's own here. In float32 some processors decide a near tie otherwise, which moves the
    third loss by 7e-4; what is stored differs from the float64 run by its casts to float32 alone.
    """
    manifest, arrays = golden
    (found,) = run_in_float64(golden_dir, tmp_path, f"{prefix}:{len(arrays[f'{prefix}loss'])}")
    names = set(stored_of(manifest, prefix, found, "tolerance"))
    assert {"loss", "grad_norm", "loss_instance_mask_ce", "loss_semantic_reg"} <= names
    for name in names:
        theirs = arrays[prefix + name]
        spacing = np.finfo(np.float32).eps * np.abs(theirs).max()
        np.testing.assert_allclose(found[name], theirs, rtol=0, atol=spacing, err_msg=name)


def test_points_are_those_of_the_stored_run(golden):
    """Sums over the places of the final points of some steps, which the manifest has as a check."""
    manifest, arrays = golden
    made = tarvis_training.recipe(manifest, arrays, "together_")
    ((task, _),) = made.tasks
    for k, sums in manifest["points_check"].items():
        points = tarvis_training.final_points(tarvis_training.batch_of(manifest, arrays, made, int(k)), task.numbers)
        for name, expected in sums.items():
            shape = (arrays["match_columns"].shape[1], *points[name].shape[1:])  # the matcher's are shared by all sets
            found = np.broadcast_to(points[name], shape).reshape(-1, 2).sum(axis=0, dtype=np.float64)
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
