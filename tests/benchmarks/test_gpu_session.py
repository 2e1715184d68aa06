"""The GPU session: every row at toy size on a bare machine, nothing lost by a cut, floors counted by hand."""

import json
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import floors, gpu, gpu_profile
from benchmarks.gpu_sizes import FULL, TOY

ROOT = pathlib.Path(__file__).resolve().parents[2]
LACKING = {"grain", "tensorflow_datasets", "array_record", "clu", "ml_collections", "tensorflow", "cv2", "av", "torch"}
RUN = f"""
import importlib.abc, runpy, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {LACKING!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
sys.argv = ["gpu.py", "--toy", "--output", sys.argv[1]]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


@pytest.mark.acceptance  # two minutes of compilation
def test_every_row_runs_at_toy_size_without_the_packages_of_the_pipeline(tmp_path):
    done = subprocess.run([sys.executable, "-c", RUN, tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert list(rows) == list(gpu.rows_of(TOY))
    assert all(0 <= ratio <= 1 for name, ratio in rows["golden numbers"].items() if "tolerance" in name)
    (step,) = (found for name, found in rows.items() if name.startswith("step"))
    assert step["ms"] > 0 and math.isfinite(step["loss"]) and step["fraction_of_floor"] > 0
    shares = rows["profile"]["share"]
    assert {"backbone", "neck", "decoder", "losses", "optimizer"} <= set(shares)
    assert sum(shares.values()) == pytest.approx(1)
    page = (tmp_path / "gpu.md").read_text()
    assert all(f"## {name}\n" in page for name in rows)


def test_a_cut_loses_nothing_and_a_failure_stops_nothing(tmp_path):
    def cut(_):
        raise KeyboardInterrupt

    def fail(_):
        raise MemoryError("out of memory\nand a long trace")

    rows = {"one": lambda sizes: {"ms": 1.5}, "two": fail, "three": lambda sizes: {"ms": 2.5}, "four": cut}
    with pytest.raises(KeyboardInterrupt):
        gpu.session(rows, TOY, tmp_path, math.inf)
    told = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [told["one"]["ms"], told["two"]["error"], told["three"]["ms"]] == [1.5, "MemoryError: out of memory", 2.5]
    assert "- ms: 2.5" in (tmp_path / "gpu.md").read_text()
    late = gpu.session(rows, TOY, tmp_path, -math.inf)
    assert all("not run" in found for found in late.values())


def test_rows_have_the_published_sizes_and_the_largest_step_comes_first():
    steps = [name for name in gpu.rows_of(FULL) if name.startswith("step")]
    assert steps[0] == "step of swin_large, 4 x 3 x 512 x 960"
    assert len(steps) == 2 * 2 * 3  # backbones, sizes, batches
    assert list(gpu.rows_of(FULL))[:3] == ["card", "scatter-add", "golden numbers"]


def test_products_in_loops_and_branches_are_counted():
    def loop(x, w):
        x, _ = jax.lax.scan(lambda x, _: (jax.checkpoint(jnp.dot)(x, w), None), x, None, length=5)
        return jax.lax.cond(x.sum() > 0, lambda x: x @ w @ w, lambda x: x, x)

    x, w = jnp.ones((3, 4)), jnp.ones((4, 4))
    assert floors.flop(loop, x, w) == (5 + 2) * 2 * 3 * 4 * 4


def test_convolutions_are_counted():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )

    # 4 x 4 outputs of 6 channels, each from 3 x 3 pixels of the 2 channels of its group
    assert floors.flop(convolve, jnp.ones((1, 9, 9, 4)), jnp.ones((3, 3, 2, 6))) == 2 * 4 * 4 * 6 * 9 * 2


def test_the_floor_is_the_slower_of_arithmetic_and_memory():
    assert floors.Floor(10.0, 1.0).seconds(2.0, 1.0) == 5.0
    assert floors.Floor(10.0, 20.0).seconds(2.0, 1.0) == 20.0
    assert floors.size_in_bytes({"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.uint8)}) == 29


def test_operations_are_given_to_the_parts_that_their_names_say():
    def network(x):
        with jax.named_scope("backbone"):
            x, _ = jax.lax.scan(lambda x, _: (jnp.sin(x @ x), None), x, None, length=3)
        with jax.named_scope("losses"):
            return jnp.sum(jnp.cos(x))

    text = jax.jit(jax.grad(network)).lower(jnp.ones((8, 8))).compile().as_text()
    assert {"backbone", "losses", "holder"} <= set(gpu_profile.parts_of(text).values())
