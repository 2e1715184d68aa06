"""`--mode plan` of every shipped experiment on eight GPUs: how long it takes, and that what is shipped fits.

python -m pytest -m acceptance -s tests/acceptance/test_plan_of_shipped_configs.py
"""

import os
import pathlib
import resource
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENTS = [
    "stage1", "stage2", "stage3", "stage4", "vspw_vit_adapter", "eomt", "videomt", "tiny", "tiny_stages", "vspw_tiny",
    "videomt_tiny",
]  # fmt: skip
SECONDS = 60  # of processor time, so that a busy machine does not matter


def processor_time() -> float:
    """Seconds of processor time of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.acceptance
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_plan_takes_less_than_a_minute_and_the_experiment_fits(tmp_path, name):
    begin = processor_time()
    command = [sys.executable, "main.py", "--mode", "plan", "--config", f"configs/{name}.py", "--devices", "8"]
    run = subprocess.run(
        [*command, "--workdir", str(tmp_path / "run")], cwd=ROOT, env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True, text=True,
    )  # fmt: skip
    seconds = processor_time() - begin
    assert run.returncode == 0, run.stderr
    fits = next(line for line in run.stdout.splitlines() if "of the memory of a100" in line)
    print(f"{name}: {seconds:.1f} s of processor time; {fits}")
    assert seconds < SECONDS
    assert fits.startswith("fits: ")
    assert not (tmp_path / "run").exists()
