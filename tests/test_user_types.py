"""A user's script is checked against the annotations of the package: pyright, basic, as an editor would."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = """
import jax
import numpy as np

from vps_jax import convert, models
from vps_jax.config import Tarvis
from vps_jax.ops.masks import mask_logits

config = Tarvis(backbone="swin_micro", semantic_groups=(("VIPSEG", 124),))
model = models.build(config)
variables = models.init(model, jax.random.key(0), (64, 64))
outputs = model.apply(variables, np.zeros((1, 2, 64, 64, 3), np.uint8), task="panoptic")
arrays: dict[str, np.ndarray] = convert.to_arrays(variables, config)
"""
MISTAKES = """
models.init(model, 7, 64)
Tarvis(backbone=3)
convert.read_checkpoint(None)
"""


def complaints(folder: pathlib.Path, script: str) -> list[tuple[int, str]]:
    """Line and rule of every error that pyright finds in a script."""
    (folder / "user.py").write_text(script)
    settings = {"typeCheckingMode": "basic", "include": ["user.py"], "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "-p", str(folder), "--pythonpath", sys.executable, "--outputjson"]
    quiet = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # no look for a newer version
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [(one["range"]["start"]["line"], one["rule"]) for one in found if one["severity"] == "error"]


def test_a_users_script_is_clean_and_its_mistakes_are_seen(tmp_path):
    end = SCRIPT.count("\n")
    wrong = complaints(tmp_path, SCRIPT + MISTAKES)
    assert {line for line, _ in wrong} == {end + 1, end + 2, end + 3}
    assert {rule for _, rule in wrong} == {"reportArgumentType"}
