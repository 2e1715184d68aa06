"""Ensembles from checkpoints on the disk: every way of running one gives one result folder, tuning runs no model."""

import dataclasses
import filecmp
import json
import os
import pathlib
import runpy

import jax
import numpy as np
import pytest

from configs import common, tiny_ensemble, videomt_tiny, vspw_tiny
from vps_jax import cli, convert
from vps_jax.config import Synthetic
from vps_jax.data import synthetic
from vps_jax.datasets.classes import class_table
from vps_jax.ensemble import members as describing
from vps_jax.evaluation.runner import evaluate_folders
from vps_jax.media.result_folders import read_video
from vps_jax.runs import demo, ensemble_experiment, experiment
from vps_jax.train import checkpoint as storing
from vps_jax.types import UserError

MICRO = {
    "backbone": "swin_micro", "instance_queries": 4, "hidden_dim": 32, "num_heads": 4, "neck_layers": 1,
    "neck_ffn_dim": 32, "decoder_layers": 3, "decoder_ffn_dim": 32, "drop_path_rate": 0.0, "remat": False,
    "dtype": "float32",
}  # fmt: skip
INFER = {"clip_frames": 4, "overlap_frames": 2, "short_side_px": 64, "max_side_px": 128}
CROP = 64
QUERIES = {"size": "tiny", "width": 24, "trunk_blocks": 1, "query_blocks": 1, "queries": 8, "patch": 8, "upscales": 1}


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> pathlib.Path:
    """A converted VIPSeg root with two validation videos of four and six frames."""
    folder = tmp_path_factory.mktemp("data")
    experiment.make_synthetic(Synthetic(folder=str(folder), seed=0, train=1, val=2, test=1))
    return folder / "converted"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    """Random weights: a TarViS for things, one with a query group of its own for all classes, a ViT-Adapter."""
    folder, config = tmp_path_factory.mktemp("checkpoints"), common.base().to_dict()
    config["model"] |= MICRO
    config["infer"] |= INFER
    image = vspw_tiny.get_config().to_dict()
    image["model"] |= {"image_size": (CROP, CROP), "encoder_layers": 1, "width": 48, "hidden_dim": 32, "queries": 4}
    image["infer"] |= {"short_side_px": CROP, "max_side_px": 2 * CROP, "window_px": CROP}
    queries = videomt_tiny.get_config().to_dict()
    queries["model"] |= QUERIES
    queries["infer"] |= {"score_threshold": 0.0}
    both = {**config, "model": {**config["model"], "semantic_groups": (("VIPSEG", 124), ("VIPSEG_VSS", 124))}}
    for seed, (name, one) in enumerate({"vps": config, "vss": both, "image": image, "queries": queries}.items()):
        storing.save_converted(folder / name, one, random_variables(one["model"], seed))
    return {name: str(folder / name) for name in ("vps", "vss", "image", "queries")}


def random_variables(model: dict, seed: int) -> dict:
    """Small parameters; scales and statistics around 1."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        center = float(path[0].key != "params" or path[-1].key == "scale")
        return rng.normal(center, 0.1, leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, convert.expected(model))


def ensemble(truth, checkpoints, *names, **settings) -> dict:
    config = tiny_ensemble.get_config().to_dict()
    config["members"]["vss"] = {"task": "semantic", "group": "VIPSEG_VSS", "weight": 0.5}
    config["members"] = {name: config["members"][name] | {"checkpoint": checkpoints[name]} for name in names}
    config["evaluate"] |= {"truth": str(truth), "windows": "1,2", "samples": 1}
    return config | settings


def assert_same(a: pathlib.Path, b: pathlib.Path) -> None:
    """Ten frames and `pred.json` are equal; the command writes tables of the tracks as well."""
    found, expected = (
        sorted(p.relative_to(x) for p in [x / "pred.json", *x.glob("pan_pred/*/*")] if p.is_file()) for x in (a, b)
    )
    assert found == expected and len(found) == 11
    assert filecmp.cmpfiles(a, b, found, shallow=False)[0] == found


def write_config(path: pathlib.Path, config: dict) -> pathlib.Path:
    path.write_text(f"import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict({config!r})\n")
    return path


def run_cli(*arguments) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in arguments])
    assert stop.value.code == 0


def test_one_member_is_its_checkpoint_whichever_way_it_is_run(tmp_path, truth, checkpoints):
    config, _ = storing.restore_for_inference(checkpoints["vps"])
    config = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, truth=str(truth)))
    os.symlink(pathlib.Path(checkpoints["vps"]) / "checkpoints", tmp_path / "checkpoints")
    assert experiment.run(config, tmp_path, "predict") == []
    single = ensemble(truth, checkpoints, "vps")
    assert ensemble_experiment.run(single, tmp_path / "one", "predict") == {}
    assert_same(tmp_path / "predictions" / "ema", tmp_path / "one" / "predictions")
    run_cli("predict", truth, "--checkpoint", checkpoints["vps"], "--output", tmp_path / "cli", "--no-overlay")
    assert_same(tmp_path / "cli", tmp_path / "one" / "predictions")


def test_the_image_model_alone_gives_panoptic_results_too(tmp_path, truth, checkpoints):
    run_cli("predict", truth, "--checkpoint", checkpoints["image"], "--output", tmp_path, "--no-overlay")
    result = evaluate_folders(truth, tmp_path, metrics="miou")
    assert result["frames"] == 10 and class_table("vspw") == class_table("vipseg")


def test_run_predicts_scores_and_shows(tmp_path, truth, checkpoints, capsys):
    config = ensemble(truth, checkpoints, "vps", "vss", "image")
    numbers = ensemble_experiment.run(config, tmp_path / "run", "evaluate")
    assert "2 videos, 10 frames" in capsys.readouterr().out
    frames = list(read_video(tmp_path / "run" / "predictions", "100000_nfJj4c_4uw0", class_table("vipseg")))
    assert len(np.unique([frame.categories for frame in frames])) > 5  # the weights have something to say
    assert {"vpq", "vpq_things", "vpq_stuff", "vpq1", "vpq2", "stq", "miou"} == set(numbers)
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert stored["vpq"]["vpq"]["all"] == numbers["vpq"]
    assert len(list((tmp_path / "run" / "samples").glob("ensemble_*.jpg"))) == 1
    file = write_config(tmp_path / "three.py", ensemble(truth, checkpoints, "image", "vss", "vps", run="in_turn"))
    run_cli("predict", truth, "--ensemble", file, "--output", tmp_path / "cli", "--no-overlay")
    assert_same(tmp_path / "run" / "predictions", tmp_path / "cli")
    run_cli("predict", truth, "--ensemble", file, "--output", tmp_path / "cli")
    assert len(list((tmp_path / "cli" / "overlay").glob("*.mp4"))) == 2


def test_tuning_reads_kept_scores_and_runs_no_model(tmp_path, truth, checkpoints, monkeypatch, capsys):
    config = ensemble(truth, checkpoints, "vps", "image")
    config["members"]["image"]["weight"] = 0.0  # its scores are kept all the same
    file = write_config(tmp_path / "two.py", config)
    kept = ("--keep-scores", tmp_path / "kept")
    run_cli("predict", truth, "--ensemble", file, "--output", tmp_path / "out", *kept, "--no-overlay")
    with monkeypatch.context() as patch:
        patch.setattr(storing, "read_tree", lambda item: pytest.fail("weights were read"))
        out = tmp_path / "tuned.py"
        command = ("tune-ensemble", "--ensemble", file, "--predictions", tmp_path / "out", "--output", out, *kept)
        run_cli(*command, "--parts", "2")
        trials, _ = ensemble_experiment.tune(
            config, tmp_path / "again.py", predictions=tmp_path / "out", keep_scores=tmp_path / "kept", parts=2
        )
    assert "image alone" in capsys.readouterr().out
    assert out.read_bytes() == (tmp_path / "again.py").read_bytes()
    tuned = runpy.run_path(str(out))["get_config"]().to_dict()
    weights = {name: tuned["members"][name]["weight"] for name in ("image", "vps")}
    assert tuple(weights.values()) == trials[0].candidate.weights
    ensemble_experiment.run(tuned, tmp_path / "best", "predict")
    found = evaluate_folders(truth, tmp_path / "best" / "predictions", metrics="vpq", windows="1,2")
    # the run takes the things member's scores unrounded, tuning as they are kept
    assert found["vpq"]["vpq"]["all"] == pytest.approx(trials[0].numbers["vpq"], abs=0.3)


def test_things_of_two_members_are_matched_and_tuned(tmp_path, truth, checkpoints, capsys):
    """A VidEoMT's things with those of the same network on larger frames, from checkpoint to tuned config."""
    config, row = ensemble(truth, checkpoints), {"checkpoint": checkpoints["queries"], "task": "panoptic"}
    config["members"] = {"queries": {**row, "weight": 0.5}, "larger": {**row, "weight": 0.0, "scales": (1.0, 1.5)}}
    config |= {"things": "queries", "matching": {"member": "larger", "weight": 0.5, "min_iou": 0.3}}
    kept = ("--keep-scores", tmp_path / "kept")
    for run in ("in_turn", "together"):
        file = write_config(tmp_path / f"{run}.py", config | {"run": run})
        more = kept if run == "together" else ()
        run_cli("predict", truth, "--ensemble", file, "--output", tmp_path / run, *more, "--no-overlay")
    assert_same(tmp_path / "in_turn", tmp_path / "together")
    frames = list(read_video(tmp_path / "together", "100000_nfJj4c_4uw0", class_table("vipseg")))
    assert max(frame.track_ids.max() for frame in frames) > 0
    out = tmp_path / "tuned.py"
    run_cli("tune-ensemble", "--ensemble", file, "--predictions", tmp_path / "together", "--output", out, *kept,
            "--parts", "1")  # fmt: skip
    assert "no matching" in capsys.readouterr().out
    text, tuned = out.read_text(), runpy.run_path(str(out))["get_config"]().to_dict()
    assert "best matching" in text and tuned["matching"]["member"] in (None, "larger")
    ensemble_experiment.run(tuned, tmp_path / "best", "predict")
    found = evaluate_folders(truth, tmp_path / "best" / "predictions", metrics="vpq", windows="1,2")
    best = float(text.split("best matching   vpq ")[1].split(",")[0])
    assert found["vpq"]["vpq"]["all"] == pytest.approx(best, abs=0.3)  # scores of the things member are not rounded


def test_a_member_without_weight_is_not_run(tmp_path, truth, checkpoints, monkeypatch):
    config, loads = ensemble(truth, checkpoints, "vps", "vss"), []
    config["members"]["vss"]["weight"] = 0.0
    monkeypatch.setattr(storing, "read_tree", lambda item, read=storing.read_tree: loads.append(item) or read(item))
    ensemble_experiment.run(config, tmp_path / "run", "predict")
    assert [item.parts[-4] for item in loads] == ["vps"]


def test_the_identity_of_weights_changes_with_them(tmp_path, checkpoints):
    first = ensemble_experiment.open_checkpoint(checkpoints["vps"], "ema")
    assert first.identity == ensemble_experiment.open_checkpoint(checkpoints["vps"], "raw").identity  # the only set
    assert first.identity != ensemble_experiment.open_checkpoint(checkpoints["vss"], "ema").identity
    item = next(pathlib.Path(checkpoints["vps"]).glob("checkpoints/0/variables"))
    os.utime(item, ns=(item.stat().st_atime_ns, item.stat().st_mtime_ns + 1))  # as if trained again
    assert first.identity != ensemble_experiment.open_checkpoint(checkpoints["vps"], "ema").identity
    leaves = [jax.tree.leaves(tree) for tree in (first.load(), storing.restore_for_inference(checkpoints["vps"])[1])]
    assert all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "/nowhere"}, "members.vss: /nowhere holds no checkpoint"),
        ({"weights": "best"}, "members.vss.weights='best': expected one of ema, raw"),
        ({"task": "mask_classification"}, "members.vss: infer.task='mask_classification': expected one of"),
        ({"checkpoint": "{other}"}, "members.vss: checkpoint .* holds another architecture"),
    ],
)
def test_checkpoints_that_do_not_fit_are_named(tmp_path, truth, checkpoints, change, message):
    config, variables = storing.restore_for_inference(checkpoints["vps"])
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, hidden_dim=64))
    storing.save_converted(tmp_path / "other", config, variables)
    config = ensemble(truth, checkpoints, "vps", "vss")
    config["members"]["vss"] |= {k: v.format(other=tmp_path / "other") for k, v in change.items()}
    with pytest.raises(UserError, match=message):
        describing.read_members(config, ensemble_experiment.open_checkpoint)


def test_the_demos_image_model_never_trains_on_its_validation_videos(tmp_path):
    """Scenes are drawn from the seed and the split's numbers, whatever the layout and the counts."""
    settings = tiny_ensemble.image_experiment().to_dict()
    assert settings["data"]["sources"]["vspw"].get("split", "train") == "train"
    seen = {}
    for layout in ("vipseg", "vspw"):
        synthetic.synthesize(tmp_path / layout, layout=layout, train=3, val=3, test=0, lengths=(1,), progress=False)
        seen[layout] = {s: set((tmp_path / layout / f"{s}.txt").read_text().split()) for s in ("train", "val")}
    assert seen["vipseg"] == seen["vspw"]
    assert not seen["vspw"]["train"] & seen["vipseg"]["val"]


def test_the_demo_trains_the_image_model_beside_its_own_and_scores_both(tmp_path, monkeypatch):
    config, calls = demo.tiny_config(tmp_path, seed=5, steps=None), []
    monkeypatch.setattr(experiment, "run", lambda *given: calls.append(given))
    monkeypatch.setattr(ensemble_experiment, "predict", lambda *given, **options: calls.append((given, options)))
    monkeypatch.setattr(demo, "score", lambda config, out: {"vpq": out})
    assert demo.run_ensemble(config, tmp_path, steps=7) == {"vpq": tmp_path / "ensemble"}
    (image, workdir), ((sources, both, out), options) = calls
    assert workdir == tmp_path / "image" and out == tmp_path / "ensemble" and options["split"] == "val"
    assert sources == [str(tmp_path / "data" / "converted")]
    assert image.synthetic.layout == "vspw" and image.synthetic.seed == config.synthetic.seed
    assert image.data.sources["vspw"].path == str(tmp_path / "data_vspw" / "prepared" / "vspw")
    assert (image.train.seed, image.train.steps, image.optim.total_steps) == (5, 7, 7)
    assert {name: row.checkpoint for name, row in both.members.items()} == {
        "vps": str(tmp_path / "train"), "image": str(workdir),
    }  # fmt: skip
