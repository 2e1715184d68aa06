"""A model of 124 classes handed over to five invented ones by name and `like`: where it starts, and where others do.

About five minutes on two cores. There are four videos of the five classes, as users have few, and they are others than
those of the 124. With twelve the run that starts fresh has nearly caught up after 100 steps.
"""

import own_scenes
import pytest

from configs import common, tiny
from vps_jax import config as keys
from vps_jax.config import experiment
from vps_jax.data import own_prepare
from vps_jax.runs import experiment as runs
from vps_jax.runs import own_experiment
from vps_jax.train.checkpoint import restore_for_inference
from vps_jax.train.setup import fresh_state, prepare

pytestmark = pytest.mark.acceptance
SOURCE_STEPS, FRESH_STEPS = 400, 100  # both with the schedule of the longer one


def smaller(steps: int):
    """configs/tiny.py with fewer channels, for classes alone; it is evaluated here."""
    config = tiny.get_config()
    config.model.update({"hidden_dim": 48, "neck_layers": 1, "neck_ffn_dim": 64, "decoder_layers": 3})
    config.model.update({"decoder_ffn_dim": 64, "instance_queries": 8})
    config.tasks = {"semantic": common.section(keys.Semantic(semantic_points=256))}
    config.data.sources.vipseg.task = config.infer.task = "semantic"
    config.evaluate.metrics, config.train.best_metric = ("miou",), "miou"
    config.train.steps = config.train.checkpoint_every = steps
    config.train.evaluate_every = 0
    config.optim.warmup_steps = SOURCE_STEPS // 10
    config.optim.decay_steps = SOURCE_STEPS * 7 // 10, SOURCE_STEPS * 9 // 10
    return config


def published(folder):
    """A run on drawn scenes with VIPSeg's 124 classes; its workdir."""
    config = smaller(SOURCE_STEPS)
    config.synthetic.update({"folder": str(folder / "data"), "train": 48, "val": 2, "test": 0})
    runs.run(experiment(config), folder / "published")
    return folder / "published"


def on_own_data(folder, init_from: dict):
    """The experiment on the five classes."""
    config = smaller(FRESH_STEPS)
    config.synthetic.folder = ""
    config.own.data, config.infer.semantic_group = str(folder / "own"), "OWN"
    config.model.semantic_groups = (("OWN", 1),)
    config.data.sources.vipseg.update({"path": "", "group": "OWN", "draw_by": "frames"})
    config.init_from.update(init_from)
    return own_experiment.filled(experiment(config))


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """mIoU on unseen videos of the five classes, by what a run starts from."""
    folder = tmp_path_factory.mktemp("handover")
    start = str(published(folder))
    drawn = list(own_scenes.drawn({"train": 4, "val": 8}, size=(64, 128), frames=6, seed=77))
    own_scenes.write_frames(folder / "source", drawn)
    form = own_scenes.as_index(folder / "source", drawn)
    own_prepare.prepare(form, folder / "source", folder / "own", progress=False)
    found = {}
    for name, init_from in (("by name", {"path": start, "by_name": True}), ("fresh classes", {"path": start})):
        config = on_own_data(folder, init_from)
        variables = fresh_state(prepare(config, folder / name)).variables
        found[name] = runs.evaluate(config, folder / name, variables, 0, "raw")[0]["miou"]
    config = on_own_data(folder, {})
    runs.run(config, folder / "fresh")
    variables = restore_for_inference(folder / "fresh", "raw")[1]
    found["fresh"] = runs.evaluate(config, folder / "fresh", variables, FRESH_STEPS, "raw")[0]["miou"]
    print(found)
    return found


def test_a_handed_over_model_starts_above_one_that_starts_fresh_after_100_steps(scores):
    assert scores["by name"] > scores["fresh"]
    assert scores["by name"] > scores["fresh classes"]
