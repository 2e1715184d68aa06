"""The table of a plan, and what it advises where a card is too small."""

import dataclasses

import pytest

from configs import stage3
from vps_jax.config import experiment
from vps_jax.runs import plan_table
from vps_jax.train.plan import Memory, Plan, Shape, TaskPlan
from vps_jax.types import UserError

GIB = 2**30
STAGE3 = experiment(stage3.get_config())
MEMORY = Memory(parameters=1 * GIB, optimizer=2 * GIB, average=1 * GIB, batch=GIB // 64, gathered=0, accumulated=0,
                kept=30 * GIB, temporary=10 * GIB)  # fmt: skip


def plan_of(memory=MEMORY, config=STAGE3, devices=8) -> Plan:
    task = TaskPlan("panoptic", Shape("vps", (512, 640), 64, 1.0), memory, {"bfloat16": 312e12}, 1.0, 0.7)
    return Plan(config, devices, (task,), ("vps",), int(4 * GIB))


def text_of(plan, monkeypatch, workdir, gpu=None) -> str:
    monkeypatch.setattr(plan_table, "make_plan", lambda config, devices: plan)
    return plan_table.plan_text(plan.experiment, workdir, gpu=gpu, devices=plan.devices)


def test_the_table_says_what_one_device_needs(monkeypatch, tmp_path):
    text = text_of(plan_of(), monkeypatch, tmp_path / "run")
    assert "stage3_swin_large: 90,000 steps of 32 clips of 3 frames on 8 x a100 (80 GB), 4 clip(s) per device" in text
    assert "frames of 720x1280 assumed: vps" in text
    rows = {line[2:24].strip(): line[24:].split() for line in text.splitlines() if line.startswith("  ")}
    assert rows == {
        "parameters": ["1.00"], "optimizer state": ["2.00"], "EMA weights": ["1.00"], "batch": ["0.02"],
        "kept activations": ["30.00"], "largest temporary": ["10.00"], "total": ["44.02"],
    }  # fmt: skip
    assert "fits: 59% of the memory of a100" in text
    assert "arithmetic: 218.4 TFLOP per step and device (218.4 bfloat16)" in text
    assert "1000 ms a step, 25.0 hours for 90,000 steps" in text
    assert "disk: 4 checkpoints of 4.29 GB are 17.2 GB" in text and f"are free at {tmp_path}" in text
    assert not (tmp_path / "run").exists()


def test_a_card_that_needs_more_than_jax_takes_by_default(monkeypatch, tmp_path):
    text = text_of(plan_of(MEMORY._replace(temporary=25 * GIB)), monkeypatch, tmp_path)
    assert "fits: 79% of the memory of a100; set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95" in text


def test_what_does_not_fit_gets_advice(monkeypatch, tmp_path):
    model = dataclasses.replace(STAGE3.model, remat=False, dtype="float32")
    text = text_of(plan_of(config=dataclasses.replace(STAGE3, model=model)), monkeypatch, tmp_path, "a10")
    told = text.partition("does not fit: 197% of the memory of a10; what helps:\n")[2].splitlines()
    assert [line.split(":")[0].strip() for line in told[:6]] == [
        "model.remat=True", "model.dtype=bfloat16", "train.fsdp=8", "train.accumulate=2", "train.accumulate=4",
        "smaller clips",
    ]  # fmt: skip
    # seven eighths of the state go, one copy of the parameters stays for the step; 40 GiB go in half, gradients come
    assert "about 41.5 GiB" in told[2] and "about 25.0 GiB" in told[3] and "about 15.0 GiB" in told[4]


def test_what_cannot_be_planned_is_one_line(tmp_path):
    with pytest.raises(UserError, match="gpu 'tpu': expected one of"):
        plan_table.plan_text(STAGE3, tmp_path, gpu="tpu")
