"""`vps-jax export`: a folder that runs without this package and gives the bits of the predictor."""

import ast
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import micro_checkpoint
import numpy as np
import pytest

from vps_jax import cli
from vps_jax.datasets.classes import class_table
from vps_jax.runs import run_exported
from vps_jax.types import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE, FRAMES = (40, 56), 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A VidEoMT of two blocks, whose queries go from chunk to chunk."""
    infer = {"short_side_px": SIZE[0], "online": True}
    return micro_checkpoint.videomt(tmp_path_factory.mktemp("export") / "run", query_blocks=2, **infer)


@pytest.fixture(scope="module")
def exported(checkpoint):
    output = checkpoint.parent / "exported"
    assert main("export", checkpoint, "--output", output, "--size", "56x40") == 0
    return output


def main(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return end.value.code


def frames():
    return np.random.default_rng(0).integers(0, 256, (FRAMES, *SIZE, 3), dtype=np.uint8)


BOTH = """
import pathlib
import sys
import numpy as np
from vps_jax.runs import run_exported, segmenter

frames, exported, checkpoint, output = np.load(sys.argv[1]), *sys.argv[2:]
call, queries, parts = run_exported.load(pathlib.Path(exported)), {}, []
for start in range(0, len(frames), 2):
    parts.append(call(frames[start : start + 2], **queries))
    queries = {"queries": parts[-1]["queries"]}
scores = [frame.scores for frame in segmenter.load(checkpoint).scores(frames)]
np.savez(
    output,
    masks=np.concatenate([part["masks"] for part in parts]),
    logits=np.concatenate([part["class_logits"] for part in parts]),
    predicted_masks=np.stack([one.logits for one in scores]),
    predicted_logits=np.stack([one.class_logits for one in scores]),
)
"""


def test_the_runner_has_the_bits_of_the_predictor(checkpoint, exported, tmp_path):
    """In a process of its own: the suite's quick compilation lets sums of equal programs be fused in other places."""
    np.save(tmp_path / "frames.npy", frames())
    files = [str(path) for path in (tmp_path / "frames.npy", exported, checkpoint, tmp_path / "both.npz")]
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", BOTH, *files], check=True, env=environment)
    both = np.load(tmp_path / "both.npz")
    assert len(both["predicted_masks"]) == FRAMES
    assert np.array_equal(both["masks"], both["predicted_masks"])
    # decided by what has been seen until now
    mean = np.cumsum(both["logits"], axis=0, dtype=np.float64) / np.arange(1, FRAMES + 1)[:, None, None]
    np.testing.assert_allclose(mean, both["predicted_logits"], rtol=1e-6)


def test_the_folder_says_what_it_takes_and_gives(exported):
    about = json.loads((exported / "export.json").read_text())
    assert about["inputs"]["frames"] == {"shape": [2, *SIZE, 3], "dtype": "uint8"}
    assert about["outputs"]["queries"]["shape"] == about["inputs"]["queries"]["shape"]
    assert about["outputs"]["class_logits"]["meaning"] == "[frame, query, class]: logits, no object last"
    assert (about["platforms"], about["video"], about["task"]) == (["cpu", "cuda"], list(SIZE), "panoptic")
    assert about["classes"] == class_table("vipseg").rows()
    assert sorted(path.name for path in exported.iterdir()) == [
        "export.json", "program.bin", "queries.npy", "run.py", "weights.npz",
    ]  # fmt: skip
    assert not [path.name for path in exported.parent.iterdir() if path.name.startswith(".")]


def test_the_runner_runs_by_itself_without_the_package(exported, tmp_path):
    source = (exported / "run.py").read_text()
    names = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names == {"json", "pathlib", "sys", "jax", "numpy"}
    np.save(tmp_path / "frames.npy", frames()[:2])
    command = [sys.executable, str(exported / "run.py"), "frames.npy", "scores.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    expected = run_exported.load(exported)(frames()[:2])
    with np.load(tmp_path / "scores.npz") as scores:
        assert set(scores.files) == {"masks", "class_logits", "queries"}
        assert all(np.array_equal(scores[name], expected[name]) for name in scores.files)


def test_the_page_shows_the_runner():
    shown = re.search(r"^```python\n(import json\n.*?)^```", (ROOT / "docs" / "inference.md").read_text(), re.M | re.S)
    source = pathlib.Path(run_exported.__file__).read_text()
    code = source.partition('"""\n\n')[2].partition("\n\nif __name__")[0]
    assert [line for line in shown[1].splitlines() if line.strip()] == [
        line for line in code.splitlines() if line.strip()
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--size", "720p"], "--size '720p': expected width and height of the videos in pixels, such as 1280x720"),
        (["--size", "0x9"], "--size '0x9': expected"),
        (["--platforms", "gpu"], "--platforms gpu: expected some of cpu, cuda, rocm, tpu"),
        (["--platforms", ""], "expected some of cpu"),
        (["--task", "vos"], "task"),
        (["--short-side", "0"], "short_side=0"),
    ],
)
def test_what_cannot_work_is_one_line(checkpoint, tmp_path, capsys, options, line):
    assert main("export", checkpoint, "--output", tmp_path / "out", "--size", "56x40", *options) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_an_output_that_is_there_is_kept(checkpoint, exported, tmp_path, capsys):
    before = (exported / "export.json").read_bytes()
    assert main("export", checkpoint, "--output", exported, "--size", "56x40") == 2
    assert "is there already" in capsys.readouterr().err and (exported / "export.json").read_bytes() == before
    assert main("export", tmp_path, "--output", tmp_path / "out", "--size", "56x40") == 2
    assert "holds no checkpoint" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_missing_package_is_named(checkpoint, tmp_path, monkeypatch):
    from vps_jax.runs import export

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vps-jax\[export\]'"):
        export.export(checkpoint, tmp_path / "out", size="56x40")
