"""The tiny chains, few steps a stage: where each stage begins, what is printed, what is not run twice."""

import sys

import numpy as np
import pytest

from benchmarks import stage_chain
from configs import datasets, tiny, tiny_stages
from vps_jax.runs import experiment
from vps_jax.train.checkpoint import restore_for_inference

pytestmark = pytest.mark.acceptance
STEPS = 14
MOVED = 1e-3  # by two steps of the warm-up; rows that start anew differ by about 1


@pytest.fixture
def smaller(monkeypatch, tmp_path):
    """A tiny config of a few videos and channels."""
    whole = tiny.get_config

    def get_config():
        config = whole()
        config.model.update({"hidden_dim": 32, "neck_layers": 1, "neck_ffn_dim": 32, "decoder_layers": 3})
        config.model.update({"decoder_ffn_dim": 32, "instance_queries": 8})
        config.tasks.panoptic.update({key: 64 for key in config.tasks.panoptic if key.endswith("_points")})
        # the second validation video has six frames, which the longest window needs
        config.synthetic.update({"folder": str(tmp_path / "data"), "train": 6, "val": 2, "test": 1})
        return config

    monkeypatch.setattr(tiny, "get_config", get_config)


def start(monkeypatch, folder, *options, steps: int = 2) -> None:
    given = ["stage_chain", "--seeds", "3", "--folder", str(folder), "--steps", str(steps), *options]
    monkeypatch.setattr(sys, "argv", given)
    assert stage_chain.main() == 0


def refuse(*_):
    pytest.fail("a finished stage was run again")


def params(folder, run: str, weights: str) -> dict:
    return restore_for_inference(stage_chain.workdir(folder, 3, run), weights)[1]["params"]


def test_every_stage_begins_where_the_one_before_ended(smaller, monkeypatch, tmp_path, capsys):
    folder = tmp_path / "chain"
    start(monkeypatch, folder)
    printed = capsys.readouterr()
    for run in stage_chain.RUNS:
        assert run in printed.out
    assert "stage 3, joint - stage 3, VPS alone: VPQ " in printed.out
    assert printed.err.count("parameter arrays taken, 0 fresh") == 4  # all but stage 2
    assert "start anew" not in printed.err  # no semantic row

    two, three = params(folder, "stage 2", "ema"), params(folder, "stage 3, joint", "raw")
    things = len(datasets.VIPSEG_THINGS)
    rows = two["queries"]["semantic"][1 + things :]  # behind those of the instance set
    found = np.split(three["queries"]["semantic"][1:], [124, 124 + things])
    wanted = (rows, rows[np.asarray(datasets.VIPSEG_THINGS)], rows)
    for group, begins in zip(found, wanted, strict=True):
        np.testing.assert_allclose(group, begins, atol=MOVED)
    assert "object_encoder" in two and "object_encoder" not in three

    before = {"stage 3, VPS alone": two, "stage 4 after joint": params(folder, "stage 3, joint", "ema")}
    before["stage 4 after VPS alone"] = params(folder, "stage 3, VPS alone", "ema")
    for run, source in before.items():
        after = params(folder, run, "raw")
        np.testing.assert_allclose(after["level_embed"], source["level_embed"], atol=MOVED)
        first = 1 + things if run == "stage 3, VPS alone" else 1
        vipseg = source["queries"]["semantic"][first : first + 124]
        np.testing.assert_allclose(after["queries"]["semantic"][1:], vipseg, atol=MOVED)

    monkeypatch.setattr(experiment, "run", refuse)
    start(monkeypatch, folder)
    assert "stage 4 after VPS alone" in capsys.readouterr().out


@pytest.fixture
def one_task_each(smaller, monkeypatch):
    """Stage 1 with one task for each data set, and objects by masks alone: each program takes its time to compile."""
    whole = tiny_stages.get_config

    def get_config(name):
        config = whole(name)
        config.train.vos_point_likelihood = 0.0
        if name == "stage1":
            kept = ("COCO_vos", "ADE20K_instance", "CITYSCAPES_panoptic", "MAPILLARY_panoptic")
            config.data.without = ",".join(key for key in config.data.sources if key not in kept)
        return config

    monkeypatch.setattr(tiny_stages, "get_config", get_config)


def test_stages_1_to_4_on_the_twins_of_all_data_sets(one_task_each, monkeypatch, tmp_path, capsys):
    """So many steps that every data set has its turn at its published share."""
    start(monkeypatch, tmp_path, "--all-sets", steps=STEPS)
    printed = capsys.readouterr()
    with capsys.disabled():
        print(f"\n{printed.out}")
    lines = {line.split(",")[1].strip(): line for line in printed.out.splitlines() if "trained on" in line}
    assert list(lines) == ["stage 1", "stage 2", "stage 3", "stage 4"]
    for stage, names in {
        "stage 1": ("COCO_vos", "ADE20K_instance", "CITYSCAPES_panoptic", "MAPILLARY_panoptic"),
        "stage 2": ("youtube_vis", "ovis", "kitti_step", "cityscapes_vps", "vipseg", "burst", "davis"),
        "stage 3": ("vps", "vss", "vis"),
        "stage 4": (f"0-{STEPS - 1} vipseg",),
    }.items():
        assert all(name in lines[stage] for name in names), lines[stage]
    assert printed.err.count("parameter arrays taken, 0 fresh") == 3  # all but stage 1

    folder = tmp_path / "all_sets"
    rows = {run: params(folder, run, "raw")["queries"]["semantic"] for run in ("stage 1", "stage 2", "stage 3")}
    cityscapes = rows["stage 1"][1 + 150 + np.asarray(datasets.CITYSCAPES_19)]
    for first in (1, 20):  # Cityscapes-VPS and KITTI-STEP come first
        np.testing.assert_allclose(rows["stage 2"][first : first + 19], cityscapes, atol=0.1)
    vipseg = params(folder, "stage 2", "ema")["queries"]["semantic"][1 + 19 + 19 + 25 :][:124]
    np.testing.assert_allclose(rows["stage 3"][1:125], vipseg, atol=0.1)

    monkeypatch.setattr(experiment, "run", refuse)
    start(monkeypatch, tmp_path, "--all-sets", steps=STEPS)
    assert "stage 4, trained on" in capsys.readouterr().out
