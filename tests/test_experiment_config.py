"""Configs as experiments: sections agree, impossible values are named by their key, old checkpoints are read."""

import json
import pathlib

import pytest

from configs import common, stage3, tiny, vspw_tiny
from vps_jax import agreement
from vps_jax.config import (
    ClipInference,
    MaskClassification,
    Optim,
    Panoptic,
    Tarvis,
    WindowInference,
    ensemble_experiment,
    experiment,
)
from vps_jax.parsing import plain
from vps_jax.types import UserError
from vps_jax.upgrade import VERSION

STORED = pathlib.Path(__file__).parent / "stored_meta"


def changed(make, changes: dict):
    """An experiment file with some keys set, as on the command line."""
    config = make()
    config.update_from_flattened_dict(changes)
    return config


def test_an_empty_config_is_the_published_one():
    config = experiment({})
    assert config.model == Tarvis() and config.infer == ClipInference() and config.version == VERSION
    assert (config.data.batch_size, config.data.seed) == (config.train.batch_size, config.train.seed) == (32, 42)
    assert experiment(config) is config


def test_the_models_row_decides_the_class_of_infer():
    config = experiment(vspw_tiny.get_config())
    assert isinstance(config.infer, WindowInference) and config.infer.window_px == 96
    assert config.tasks == {"mask_classification": MaskClassification(match_points=256, mask_points=256)}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"train.batch_size": 0}, "train.batch_size=0: expected a number of at least 1"),
        ({"train.batch_size": -8}, "train.batch_size=-8: expected a number of at least 1"),
        ({"train.steps": -1}, "train.steps=-1: expected a number of at least 0"),
        ({"train.seed": -1}, "train.seed=-1: expected"),
        ({"train.ema_decay": -0.5}, "train.ema_decay=-0.5: expected a number from 0 to 1"),
        ({"train.ema_decay": 2.0}, "train.ema_decay=2.0: expected a number from 0 to 1"),
        ({"train.log_every": -1}, "train.log_every=-1: expected"),
        ({"train.keep_checkpoints": 0}, "train.keep_checkpoints=0: expected a number of at least 1"),
        ({"train.on_nonfinite": "go"}, "train.on_nonfinite='go': expected one of stop, skip"),
        ({"optim.name": "adam"}, "optim.name='adam': expected one of adamw, sgd"),
        ({"optim.lr": -1e-4}, "optim.lr=-0.0001: expected a number of at least 0"),
        ({"optim.lr": float("nan")}, "optim.lr=nan: expected a number of at least 0"),
        ({"optim.clip_norm": -1.0}, "optim.clip_norm=-1.0: expected"),
        ({"optim.b2": 1.0}, "optim.b2=1.0: expected a number from 0 to below 1"),
        ({"data.num_workers": -1}, "data.num_workers=-1: expected"),
        ({"data.clip_frames": 0}, "data.clip_frames=0: expected"),
        ({"data.chunk_steps": 0}, "data.chunk_steps=0: expected"),
        ({"data.batch_size": 8}, "data.batch_size=8: expected train.batch_size=4; set train.batch_size alone"),
        ({"data.sources.vipseg.short_side": 0}, "data.sources.vipseg.short_side=0: expected a number of at least 1"),
        ({"data.sources.vipseg.frame_window": -1.0}, "data.sources.vipseg.frame_window=-1.0: expected"),
        ({"infer.overlap_frames": 4}, "infer.overlap_frames=4: expected at most half of clip_frames=4"),
        ({"infer.task": "vps"}, "infer.task='vps': expected one of panoptic, semantic, instance"),
        ({"infer.window_px": 64}, "infer.window_px: no such key; expected one of task"),
        ({"model.name": "tarvi"}, "model.name='tarvi': expected one of tarvis, mask2former"),
        ({"tasks.panoptic.ignore_null_classes": True}, "tasks.panoptic.regularization and ignore_null_classes are"),
        ({"evaluate.windows": (1, 0)}, r"evaluate.windows=\(1, 0\): expected a number of at least 1"),
        ({"evaluate.samples": -1}, "evaluate.samples=-1: expected"),
    ],
)
def test_impossible_values_are_named_by_their_key_alone(changes, line):
    config = tiny.get_config().unlock().to_dict()
    for path, value in changes.items():
        place = config
        *parents, key = path.split(".")
        for parent in parents:
            place = place[parent]
        place[key] = value
    with pytest.raises(UserError, match=f"^{line}") as error:
        experiment(config)
    assert "\n" not in str(error.value) and "--config" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"data.sources.vps.task": "vos"}, "data.sources.vps.task='vos': config.tasks has instance, panoptic, sem"),
        ({"data.sources.vss.group": "VSS"}, "data.sources.vss.group='VSS' is no group of the model; choose one of "),
        ({"class_maps.vps": (0, 124)}, "class_maps.vps names class 124; the group VIPSEG has 124"),
        ({"class_maps.other": (0,)}, "class_maps.other: no such source; expected some of vis, vps, vss"),
        ({"infer.semantic_group": "VSS"}, "infer.semantic_group='VSS' is no group of the model; choose one of VIPSEG"),
        ({"tasks.instance.normalize_clips": 3}, "tasks.instance.normalize_clips=3 does not divide the 32 clips of"),
        ({"train.accumulate": 5}, "train.batch_size=32 cannot be split over train.accumulate=5 micro-batches"),
        ({f"data.sources.{name}.weight": 0.0 for name in ("vps", "vss", "vis")}, "data.sources has no source with a"),
    ],
)
def test_sections_that_do_not_agree_are_named(changes, line):
    config = stage3.get_config()
    agreement.check(experiment(config))
    with config.unlocked():
        for name, value in changes.items():
            parent, _, key = name.rpartition(".")
            config[parent][key] = value
    with pytest.raises(UserError, match=f"^{line}") as error:
        agreement.check(experiment(config))
    assert "\n" not in str(error.value)


def tiny_with_its_first_schedule():
    config = tiny.get_config()
    tiny.stepwise(config, 1_300)
    config.optim.total_steps = Optim().total_steps
    return config


@pytest.mark.parametrize("name", ["tiny", "vspw_tiny"])
def test_a_stored_meta_of_version_1_is_todays_experiment(name):
    """Written by the program before configs had a version."""
    stored = json.loads((STORED / f"{name}_version1.json").read_text())
    assert "version" not in stored["config"]
    made = {"tiny": tiny_with_its_first_schedule, "vspw_tiny": vspw_tiny.get_config}[name]
    flags = {
        "train.steps": 20,
        "train.evaluate_every": 0,
        "train.first_evaluation": 0,
        "train.checkpoint_every": 20,
        "train.log_every": 10,
    }
    assert experiment(stored["config"]) == experiment(changed(made, flags))


def test_old_words_are_upgraded_and_the_other_models_settings_dropped():
    old = {
        "model": {"name": "mask2former"},
        "tasks": {"mask_classification": {"num_classes": 124, "group": 2}},
        "infer": {"window_px": 640, "clip_frames": 12, "panoptic_score": 0.5},
    }
    config = experiment(old)
    assert config.tasks["mask_classification"].normalize_clips == 2
    assert config.infer == WindowInference(window_px=640)
    assert old["tasks"]["mask_classification"]["group"] == 2  # what was given stays as it is
    with pytest.raises(UserError, match="infer.clip_frames: no such key"):
        experiment({**old, "version": VERSION, "tasks": {}})


def test_a_config_of_a_later_version_is_refused():
    with pytest.raises(UserError, match=f"version={VERSION + 1}: this program reads configs up to version {VERSION}"):
        experiment({"version": VERSION + 1})


def test_a_config_survives_json():
    for make in (tiny.get_config, stage3.get_config, vspw_tiny.get_config):
        config = experiment(make())
        assert experiment(json.loads(json.dumps(plain(config)))) == config


def test_every_key_of_an_experiment_can_be_set():
    """Also those of a source, of a task and of a model, and those that are None."""
    changes = {
        "data.sources.vipseg.crop": (0.75, 0.5), "data.sources.vipseg.color.hue": 3, "data.sources.vipseg.flip": 0.0,
        "data.sources.vipseg.short_side": (64, 72), "data.pad_multiple": 32, "tasks.panoptic.normalize_clips": None,
        "infer.flip": True, "infer.semantic_group": None, "optim.poly_power": 0.9, "synthetic.layout": "vipseg",
        "data.sources.vipseg.augment": (("flip", {"rate": 0.5}),),
    }  # fmt: skip
    config = experiment(changed(tiny.get_config, changes))
    source = config.data.sources["vipseg"]
    assert (source.crop, source.color.hue, source.short_side) == ((0.75, 0.5), 3, (64, 72))
    assert config.tasks["panoptic"].normalize_clips is None and config.infer.semantic_group is None
    assert source.augment == (("flip", {"rate": 0.5}),)


def test_a_section_has_all_keys_of_its_dataclass():
    assert set(common.section(Panoptic())) == set(plain(Panoptic()))
    assert common.source(path="p", short_side=3, color=None).color is None


def test_ensembles_are_parsed_too():
    config = ensemble_experiment({"members": {"a": {"checkpoint": "runs/a", "weight": 2}}})
    assert config.members["a"].weight == 2.0 and config.run == "together"
    with pytest.raises(UserError, match="members.a.weights='best': expected one of ema, raw"):
        ensemble_experiment({"members": {"a": {"weights": "best"}}})
