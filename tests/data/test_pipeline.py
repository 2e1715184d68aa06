import itertools

import numpy as np
import pytest
from absl import flags

from vps_jax.data import pipeline, records
from vps_jax.types import TrainBatch, UserError


@pytest.fixture
def config(prepared_vipseg):
    source = {"path": str(prepared_vipseg), "short_side": 40, "max_side": 64, "crop": (0.75, 0.75), "frame_window": 1.0}
    whole = {**source, "crop": None, "max_side": 1333, "short_side": (40, 64), "task": "semantic", "color": None}
    data = {
        "batch_size": 4, "clip_frames": 2, "max_instances": 4, "chunk_steps": 2,
        "sources": {"vps": source, "vss": {**whole, "weight": 0.5}},
    }  # fmt: skip
    return {"data": data}


def take(config, count, **position):
    return list(itertools.islice(pipeline.train_batches(config, **position), count))


def assert_same(first: TrainBatch, second: TrainBatch):
    assert first[:2] == second[:2] and first.records == second.records
    for a, b in zip(first.clip, second.clip, strict=True):
        np.testing.assert_array_equal(a, b)


def with_data(config, **changes):
    return {"data": {**config["data"], **changes}}


def with_source(config, name="vps", **changes):
    sources = config["data"]["sources"]
    return with_data(config, sources={**sources, name: {**sources[name], **changes}})


def test_batches_have_the_contract_s_shapes(config):
    allowed = {entry[:2] + (entry[2],) for entry in pipeline.describe(config)}
    for batch in take(config, 12):
        b, t, h, w, c = batch.clip.images.shape
        assert (batch.task, batch.dataset, (b, t, h, w)) in allowed
        assert (b, t, c) == (4, 2, 3) and h % 64 == w % 64 == 0
        assert batch.clip.images.dtype == np.uint8 and batch.clip.ids.dtype == np.uint16
        assert batch.clip.ids.shape == (b, t, h, w)
        assert batch.clip.instance_classes.shape == (4, 4) and batch.clip.instance_classes.dtype == np.int32
        assert len(batch.records) == 4 and all("/" in r and ".." in r for r in batch.records)


def test_describe_lists_what_comes(config):
    # 40x72 crops to 30x54 -> 36x64 -> 64x64; 48x64 to 36x48 -> 40x53 -> 64x64. Uncropped: 40x72 -> 40x72 and 64x115,
    # 48x64 -> 40x53 and 64x85
    assert pipeline.describe(config) == [
        ("panoptic", "vps", (4, 2, 64, 64)),
        ("semantic", "vss", (4, 2, 64, 64)),
        ("semantic", "vss", (4, 2, 64, 128)),
    ]


def test_ids_agree_with_the_instance_table(config):
    for batch in take(config, 6):
        for ids, classes in zip(batch.clip.ids, batch.clip.instance_classes, strict=True):
            present = set(np.unique(ids[(ids > 0) & (ids <= 4)]) - 1)
            assert present == set(np.flatnonzero(classes >= 0))
            assert (ids <= 4 + 124).all()


def test_panoptic_clips_show_an_instance(config):
    for batch in take(config, 10):
        if batch.task == "panoptic":
            assert (batch.clip.instance_classes >= 0).any(axis=1).all()


def test_resume_is_exact(config):
    whole = take(config, 9)
    for step in (1, 4, 7):
        for first, second in zip(whole[step:], take(config, 9 - step, first_step=step), strict=True):
            assert_same(first, second)


def test_hosts_make_contiguous_parts_of_the_same_batch(config):
    for k, whole in enumerate(take(config, 3)):
        parts = [take(config, 1, first_step=k, host=h, num_hosts=2)[0] for h in range(2)]
        together = pipeline.collate([TrainBatch(*p[:2], _row(p, i), (p.records[i],)) for p in parts for i in range(2)])
        assert_same(whole, together)


def _row(batch, i):
    return type(batch.clip)(*(a[i] for a in batch.clip))


def test_threads_do_not_change_the_stream(config):
    for first, second in zip(take(config, 4), take(with_data(config, num_threads=1, prefetch=1), 4), strict=True):
        assert_same(first, second)


def test_workers_do_not_change_the_stream(config):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    workers = with_data(config, num_workers=2)
    for first, second in zip(take(config, 4, first_step=2), take(workers, 4, first_step=2), strict=True):
        assert_same(first, second)


def test_another_seed_is_another_stream(config):
    assert take(config, 1)[0].records != take(with_data(config, seed=1), 1)[0].records


def test_a_clip_shows_the_frames_it_names(config, prepared_vipseg):
    config = with_source(config, crop=None, flip=0.0, color=None, short_side=40, max_side=1333)
    config["data"]["sources"] = {"vps": config["data"]["sources"]["vps"]}
    opened = records.open_records(prepared_vipseg, "train")
    videos = {v.name: v for v in opened.videos}
    seen = 0
    for batch in take(config, 4):
        for clip, record in zip(batch.clip.images, batch.records, strict=True):
            name, stems = record.split("/")
            video = videos[name]
            if video.size != (40, 72):
                continue  # those are resized
            for frame, stem in zip(clip, stems.split(".."), strict=True):
                image, _ = records.read_frame(opened, video, video.stems.index(stem))
                np.testing.assert_array_equal(frame[:40, :72], image)
                assert (frame[40:] == 128).all() and (frame[:, 72:] == 128).all()
                seen += 1
    assert seen


def test_fingerprint_sees_data_and_settings_but_not_workers(config):
    same = pipeline.fingerprint(config)
    assert pipeline.fingerprint(with_data(config, num_workers=3, prefetch=9)) == same
    assert pipeline.fingerprint(with_data(config, seed=1)) != same
    assert pipeline.fingerprint(with_source(config, split="val")) != same


def test_shapes_can_be_named(config):
    config = with_source(config, shapes=((64, 64), (128, 64)))
    assert pipeline.describe(config)[0] == ("panoptic", "vps", (4, 2, 64, 64))
    with pytest.raises(UserError, match="hold no clip of 36x64"):
        pipeline.describe(with_source(config, shapes=((32, 64),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": None}, "data.batch_size is missing"),
        ({"workers": 3}, "data.workers is unknown; expected one of"),
        ({"sources": {}}, "no source with a weight"),
        ({"sources": {"a": {"path": "x"}}}, "data.sources.a.short_side is missing"),
        ({"sources": {"a": {"path": "x", "short_side": 3, "tusk": 1}}}, "data.sources.a.tusk is unknown"),
        ({"sources": {"a": {"path": "x", "short_side": 3, "task": "vps"}}}, "task is 'vps'; expected one of panoptic"),
        ({"sources": {"a": {"path": "/nowhere", "short_side": 3}}}, "/nowhere holds no prepared data set"),
    ],
)
def test_wrong_settings_are_named(config, changes, message):
    with pytest.raises(UserError, match=message):
        pipeline.train_batches(with_data(config, **changes))


def test_hosts_must_divide_the_batch(config):
    with pytest.raises(UserError, match="batch_size 4 must be a multiple of the 3 hosts"):
        pipeline.train_batches(config, num_hosts=3)


def test_a_source_without_usable_video_is_named(config):
    with pytest.raises(UserError, match="vps: no usable video"):
        pipeline.describe(with_source(config, split="test"))


def test_a_config_library_s_containers_give_the_same_stream(config):
    ml_collections = pytest.importorskip("ml_collections")
    frozen = ml_collections.ConfigDict(config)
    assert pipeline.fingerprint(frozen) == pipeline.fingerprint(config)
