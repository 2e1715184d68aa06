"""What a run of main.py asks for before it starts."""

import pytest

from configs import stage1, stage2, videomt_tiny
from vps_jax.config import experiment as read_config
from vps_jax.runs import experiment
from vps_jax.train import loop
from vps_jax.types import UserError


def test_a_run_that_never_evaluates_needs_no_truth(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    started = []
    monkeypatch.setattr(loop, "train", lambda config, *_, **__: started.append(config.name) or [])
    for stage in (stage1, stage2):
        config = read_config(stage.get_config())
        for mode in ("train", "evaluate"):
            if (stage, mode) == (stage1, "train"):
                experiment.run_mode(config, tmp_path, mode)
                continue
            with pytest.raises(UserError, match="evaluate.truth: .* is not there; expected VIPSeg with the truth"):
                experiment.run_mode(config, tmp_path, mode)
    assert started == ["stage1_swin_large"]


def test_a_run_without_its_first_stage_ends_before_data_are_made(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = read_config(videomt_tiny.get_config())
    with pytest.raises(UserError, match="runs/videomt_tiny_segmenter holds no checkpoint"):
        experiment.run_mode(config, tmp_path / "run", "train")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(experiment, "make_synthetic", lambda settings: None)
    monkeypatch.setattr(experiment, "check_truth", lambda settings: None)
    monkeypatch.setattr(loop, "train", lambda config, *_, **__: ["resumed"])
    (tmp_path / "run" / "checkpoints" / "7").mkdir(parents=True)  # a run that has begun needs its start no more
    assert experiment.run_mode(config, tmp_path / "run", "train") == ["resumed"]
