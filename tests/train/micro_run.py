"""A process that trains the micro model and says what it does: `python micro_run.py WORKDIR [PHASE]`.

Lines on stdout: `batch` before every step, `compilation` and `evaluation` where these begin. PHASE, one of the two,
lasts so long that a signal meets it; `full` lets the disk take no more after five steps.
"""

import os
import pathlib
import resource
import subprocess
import sys
import time

LAST = 100
SETTINGS = {"steps": LAST, "checkpoint_every": 3, "evaluate_every": 50, "log_every": 10}
LONG = {"compilation": 3.0, "evaluation": 60.0}  # seconds


def start(workdir, phase: str = "") -> subprocess.Popen:
    """Start it on one device."""
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, __file__, str(workdir), phase], env=os.environ | {"PYTHONPATH": path, "XLA_FLAGS": ""},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def main(workdir: str, phase: str) -> None:
    import numpy as np
    import pytest
    from micro_experiment import micro_config, use_micro_rooms

    from vps_jax.data import pipeline
    from vps_jax.train import loop
    from vps_jax.train.programs import StepPrograms
    from vps_jax.types import UserError

    def enter(name: str) -> None:
        print(name, flush=True)
        time.sleep(LONG[name] if name == phase else 0)

    def evaluate(variables, step, label):
        enter("evaluation")
        return {"vpq": float(np.sum(variables["params"]["head"]["bias"]))}, {}

    def train_batches(data, **where):
        for number, batch in enumerate(batches(data, **where)):
            print("batch", flush=True)
            if phase == "full" and number == 5:
                resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
            yield batch

    class Programs(StepPrograms):
        def _make(self, *key):
            enter("compilation")
            return super()._make(*key)

    patch = pytest.MonkeyPatch()
    use_micro_rooms(patch)
    batches = pipeline.train_batches
    patch.setattr(pipeline, "train_batches", train_batches)
    patch.setattr(loop, "StepPrograms", Programs)
    try:
        loop.train(micro_config(**SETTINGS), workdir, evaluate=evaluate)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
