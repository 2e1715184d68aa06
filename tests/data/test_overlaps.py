"""Masks that overlap, from the files to a training batch."""

import itertools

import numpy as np
import pytest

from vps_jax.data import pipeline, prepare, records, synthetic
from vps_jax.types import LAST_ID


@pytest.fixture(scope="module")
def ovis(tmp_path_factory):
    root = tmp_path_factory.mktemp("ovis")
    sizes = {"sizes": ((64, 64),), "lengths": (4,)}
    synthetic.synthesize(root / "raw", layout="ovis", train=6, val=1, test=0, progress=False, **sizes)
    prepare.prepare("ovis", root / "raw", root / "out", progress=False)
    return root / "out" / "ovis"


def batches(path, count, **source):
    source = {"path": str(path), "short_side": 64, "flip": 0.0, "color": None, "frame_window": 1.0, **source}
    data = {"batch_size": 2, "clip_frames": 2, "max_instances": 8, "chunk_steps": 1, "num_workers": 0}
    return list(itertools.islice(pipeline.train_batches({**data, "sources": {"ovis": source}}), count))


def stored_masks(opened, record):
    """Masks `[t, h, w]` of every instance value of the clip that a record names, from the stored labels."""
    name, stems = record.split("/")
    video = next(v for v in opened.videos if v.name == name)
    labels = np.stack([records.read_frame(opened, video, video.stems.index(stem))[1] for stem in stems.split("..")])
    combinations = records.combinations_of(opened, video)
    values = {v for v in np.unique(labels).tolist() if opened.labels.is_instance[v]}
    values |= {v for value in np.unique(labels).tolist() for v in combinations.get(value, ())}
    return {
        v: (labels == v) | np.isin(labels, [value for value, members in combinations.items() if v in members])
        for v in values
    }


def test_every_instance_keeps_its_whole_mask(ovis):
    opened = records.open_records(ovis, "train")
    shared = 0
    for batch in batches(ovis, 6, task="instance"):
        for ids, classes, overlaps, record in zip(*batch.clip[1:4], batch.records, strict=True):
            expected = stored_masks(opened, record)
            found = []
            for row in np.flatnonzero(classes >= 0):
                combined = np.isin(ids, LAST_ID - np.flatnonzero(overlaps[:, row]))
                shared += combined.sum()
                found.append((int(classes[row]), ((ids == 1 + row) | combined).tobytes()))
            assert sorted(found) == sorted((int(opened.labels.classes[v]), m.tobytes()) for v, m in expected.items())
    assert shared > 1000


def test_objects_of_vos_clips_may_overlap(ovis):
    shared = 0
    for batch in batches(ovis, 8, task="vos", objects=(2,)):
        assert batch.clip.overlaps.shape == (2, records.MOST_COMBINATIONS, 2)
        for ids, classes, overlaps in zip(*batch.clip[1:4], strict=True):
            assert (classes >= 0).all()
            for row in range(2):  # both are seen in the first frame
                assert ((ids[0] == 1 + row) | np.isin(ids[0], LAST_ID - np.flatnonzero(overlaps[:, row]))).any()
            shared += np.isin(ids, LAST_ID - np.flatnonzero(overlaps.all(axis=1))).sum()
    assert shared > 0


def test_the_fingerprint_sees_combinations(ovis):
    opened = records.open_records(ovis, "train")
    assert opened.overlapping and any(len(pipeline.row_of(video)) == 6 for video in opened.videos)
    assert len(pipeline.row_of(opened.videos[0]._replace(combinations=()))) == 5
