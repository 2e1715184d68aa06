"""Every source of stages 1 and 2 gives a batch of its task from the synthetic twin of its data set."""

import collections
import dataclasses
import pathlib

import numpy as np
import pytest

from configs import stage1, stage2
from vps_jax.config import experiment
from vps_jax.data import clips, pipeline, prepare, synthetic

SOURCES = {(s, name) for s in (stage1, stage2) for name in experiment(s.get_config()).data.sources}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A function that draws and prepares a data set once; returns its folder."""
    root, done = tmp_path_factory.mktemp("stages"), set()

    def make(name):
        if name not in done:
            done.add(name)
            sizes = {"sizes": ((40, 72), (48, 64)), "lengths": (6,)}
            synthetic.synthesize(root / name, layout=name, train=4, val=1, test=0, progress=False, **sizes)
            prepare.prepare(name, root / name, root / "prepared", progress=False)
        return root / "prepared" / name

    return make


@pytest.mark.parametrize(("stage", "name"), sorted(SOURCES, key=lambda row: (row[0].__name__, row[1])))
def test_source(stage, name, prepared):
    data = experiment(stage.get_config()).data
    source = data.sources[name]
    path = prepared(pathlib.PurePath(source.path).name)
    small = {"short_side": 40, "max_side": 96} | ({"crop_px": (40, 40)} if source.crop_px else {})
    source = dataclasses.replace(source, path=str(path), weight=1.0, objects=(2,), **small)
    data = dataclasses.replace(data, sources={name: source}, batch_size=2, num_workers=0)
    batch = next(iter(pipeline.train_batches(data)))
    assert batch.task == source.task and batch.clip.images.shape[:2] == (2, 3)
    assert (batch.clip.instance_classes >= 0).any(axis=1).all()
    assert batch.clip.instance_classes.max() < len(pipeline.open_sources(data)[name].classes.names)
    assert len(np.unique(batch.clip.images)) > 50


@pytest.mark.parametrize("stage", [stage1, stage2])
def test_a_whole_stage_takes_its_data_sets_at_their_shares(stage, prepared):
    data = experiment(stage.get_config()).data
    sources = {
        name: dataclasses.replace(source, path=str(prepared(pathlib.PurePath(source.path).name)))
        for name, source in data.sources.items()
    }
    data = dataclasses.replace(data, sources=sources)
    assert {(task, name) for task, name, _ in pipeline.describe(data)} == {(s.task, n) for n, s in sources.items()}
    counts = collections.Counter(pipeline.sources_of(data, range(8 * 400)))
    total = sum(source.weight for source in sources.values())
    for name, source in sources.items():
        assert abs(counts[name] / 8 - 400 * source.weight / total) <= 1, name


def test_clips_of_cityscapes_vps_start_anywhere():
    """Spec: tarvis 7.6: labelled frames that follow each other, no frame twice."""
    window = experiment(stage2.get_config()).data.sources["cityscapes_vps"].frame_window
    drawn = collections.Counter(
        clips.choose_frames([True] * 6, 3, window=window, rng=np.random.default_rng(seed)) for seed in range(2000)
    )
    assert sorted(drawn) == [(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5)]
    np.testing.assert_allclose(list(drawn.values()), 500, atol=80)
