"""A model of 124 classes handed over to five invented ones by name and `like`: where it starts, and where others do.

About four minutes on two cores. The videos of the five classes are others than those of the 124.
"""

import own_scenes
import pytest

from configs import common, own, tiny
from vps_jax import config as keys
from vps_jax.config import experiment
from vps_jax.data import own_prepare
from vps_jax.runs import experiment as runs

pytestmark = pytest.mark.acceptance
SOURCE_STEPS, FRESH_STEPS = 300, 100


def smaller(config):
    """TarViS of a few channels, evaluated after its last step."""
    config.model.update({"hidden_dim": 48, "num_heads": 4, "neck_layers": 1, "neck_ffn_dim": 64, "decoder_layers": 3})
    config.model.update({"decoder_ffn_dim": 64, "instance_queries": 8})
    config.train.log_every = 20
    return config


def published(folder):
    """A run on drawn scenes with VIPSeg's 124 classes; its workdir."""
    config = smaller(tiny.get_config())
    config.tasks = {"semantic": common.section(keys.Semantic(semantic_points=256))}
    config.data.sources.vipseg.task = config.infer.task = "semantic"
    config.evaluate.metrics, config.train.best_metric = ("miou",), "miou"
    config.synthetic.update({"folder": str(folder / "data"), "train": 48, "val": 2, "test": 0})
    steps(config, SOURCE_STEPS)
    runs.run(experiment(config), folder / "published")
    return folder / "published"


def steps(config, count: int) -> None:
    config.train.steps = config.train.evaluate_every = config.train.checkpoint_every = count
    config.optim.warmup_steps = count // 10
    config.optim.decay_steps = (count * 7 // 10, count * 9 // 10)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """mIoU on unseen videos of the five classes, by what a run starts from and how many steps it makes."""
    folder = tmp_path_factory.mktemp("handover")
    start = published(folder)
    drawn = list(own_scenes.drawn({"train": 12, "val": 8}, size=(64, 128), frames=6, seed=77))
    own_scenes.write_frames(folder / "source", drawn)
    form = own_scenes.as_index(folder / "source", drawn)
    own_prepare.prepare(form, folder / "source", folder / "own", progress=False)
    found = {}
    for name, init_from, count in (
        ("by name", {"path": str(start), "by_name": True}, 0),
        ("fresh classes", {"path": str(start)}, 0),
        ("by name, trained", {"path": str(start), "by_name": True}, FRESH_STEPS),
        ("fresh", {}, FRESH_STEPS),
    ):
        config = smaller(own.get_config("semantic,tiny"))
        config.own.data = str(folder / "own")
        config.init_from.update(init_from)
        steps(config, max(count, 1))
        if not count:
            config.optim.lr = 0.0  # one step that changes nothing
        rows = runs.run(experiment(config), folder / name)
        found[name] = next(row["miou"] for row in rows if row["weights"] == "raw")
    print(found)
    return found


def test_a_handed_over_model_starts_above_one_that_starts_fresh_after_100_steps(scores):
    assert scores["by name"] > scores["fresh"] + 5
    assert scores["by name"] > scores["fresh classes"] + 5
    assert scores["by name, trained"] > scores["by name"]
