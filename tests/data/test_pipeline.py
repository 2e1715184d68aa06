import dataclasses
import itertools
import multiprocessing
import time

import numpy as np
import pytest
from absl import flags

from vps_jax.config import Color, Source
from vps_jax.data import augment, pipeline, records, samples
from vps_jax.types import TrainBatch, UserError


@pytest.fixture
def config(prepared_vipseg):
    source = {"path": str(prepared_vipseg), "short_side": 40, "max_side": 64, "crop": (0.75, 0.75), "frame_window": 1.0}
    whole = {**source, "crop": None, "max_side": 1333, "short_side": (40, 64), "task": "semantic", "color": None}
    data = {
        "batch_size": 4, "clip_frames": 2, "max_instances": 4, "chunk_steps": 2, "num_workers": 0,
        "sources": {"vps": source, "vss": {**whole, "weight": 0.5}},
    }  # fmt: skip
    return data


def take(config, count, **position):
    return list(itertools.islice(pipeline.train_batches(config, **position), count))


def assert_same(first: TrainBatch, second: TrainBatch):
    assert first[:2] == second[:2] and first.records == second.records
    assert first.clip.overlaps is second.clip.overlaps is None
    for a, b in zip(first.clip[:3], second.clip[:3], strict=True):
        np.testing.assert_array_equal(a, b)


def with_data(config, **changes):
    return {**config, **changes}


def with_source(config, name="vps", **changes):
    sources = config["sources"]
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
    return type(batch.clip)(*(a[i] for a in batch.clip[:3]))


def test_threads_do_not_change_the_stream(config):
    for first, second in zip(take(config, 4), take(with_data(config, num_threads=1, prefetch=1), 4), strict=True):
        assert_same(first, second)


def test_workers_do_not_change_the_stream(config):
    flags.FLAGS.unparse_flags()  # as in a program without flags of its own
    workers = with_data(config, num_workers=2)
    for first, second in zip(take(config, 4, first_step=2), take(workers, 4, first_step=2), strict=True):
        assert_same(first, second)


def test_another_seed_is_another_stream(config):
    assert take(config, 1)[0].records != take(with_data(config, seed=1), 1)[0].records


def test_a_clip_shows_the_frames_it_names(config, prepared_vipseg):
    config = with_source(config, crop=None, flip=0.0, color=None, short_side=40, max_side=1333)
    config["sources"] = {"vps": config["sources"]["vps"]}
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
        ({"batch_size": None}, "data.batch_size=None: expected a whole number"),
        ({"workers": 3}, "data.workers: no such key; expected one of"),
        ({"sources": {}}, "no source with a weight"),
        ({"sources": {"a": {"path": "x"}}}, "data.sources.a.short_side is missing"),
        ({"sources": {"a": {"path": "x", "short_side": 3, "tusk": 1}}}, "data.sources.a.tusk: no such key"),
        ({"sources": {"a": {"path": "x", "short_side": 3, "task": "vps"}}}, "task is 'vps'; expected one of panoptic"),
        ({"sources": {"a": {"path": "/nowhere", "short_side": 3}}}, "/nowhere holds no prepared data set"),
    ],
)
def test_wrong_settings_are_named(config, changes, message):
    with pytest.raises(UserError, match=message):
        pipeline.train_batches(with_data(config, **changes))


def test_data_sets_are_left_out_by_name(config):
    """By the name of a source or of the prepared folder; the others keep their proportions."""
    only = pipeline.describe(with_data(config, sources={"vss": config["sources"]["vss"]}))
    assert pipeline.describe(with_data(config, without="vps")) == only
    assert {batch.dataset for batch in take(with_data(config, without=" vps,"), 4)} == {"vss"}
    assert pipeline.fingerprint(with_data(config, without="")) == pipeline.fingerprint(config)
    assert pipeline.fingerprint(with_data(config, without="vps")) != pipeline.fingerprint(config)
    with pytest.raises(UserError, match="no source with a weight above 0"):
        pipeline.describe(with_data(config, without="vipseg"))
    with pytest.raises(UserError, match="data.without='vps,vpss': vpss is no data set of these sources; .* vipseg$"):
        pipeline.describe(with_data(config, without="vps,vpss"))


def test_hosts_must_divide_the_batch(config):
    with pytest.raises(UserError, match="batch_size 4 must be a multiple of the 3 hosts"):
        pipeline.train_batches(config, num_hosts=3)


def test_a_clip_without_instances_is_drawn_four_times(config, monkeypatch):
    drawn = []
    apply = augment.apply
    monkeypatch.setattr(samples.augment, "apply", lambda *given: drawn.append(1) or apply(*given))
    monkeypatch.setattr(samples, "instances_shown", lambda labels, sample: np.zeros(0, int))
    config = with_data(config, sources={"vps": config["sources"]["vps"]}, num_threads=1, prefetch=1)
    stream = samples.Samples(pipeline.validated(config), first_step=0, host=0, num_hosts=1)
    record = stream[0].records[0]
    assert len(drawn) == samples.CLIP_TRIES == 4 and "/" in record


def test_a_source_without_usable_video_is_named(config):
    with pytest.raises(UserError, match="vps: no usable video in .*none of its . videos shows an object .*--instances"):
        pipeline.describe(with_source(config, split="test"))


def test_a_config_library_s_containers_give_the_same_stream(config):
    ml_collections = pytest.importorskip("ml_collections")
    frozen = ml_collections.ConfigDict(config)
    assert pipeline.fingerprint(frozen) == pipeline.fingerprint(config)


def test_fingerprint_of_earlier_versions_is_known(config):
    """They hashed the default colours as they were written in the config: spelled out or not at all."""
    spelled = with_source(config, color={"hue": 10, "saturation": 10, "contrast": (0.95, 1.05), "brightness": 20})
    assert pipeline.fingerprint(spelled) == pipeline.fingerprint(config)
    default = {"hue": 10, "saturation": 10, "contrast": (0.95, 1.05), "brightness": 20}
    for written in ({}, default):
        before = pipeline.digest(pipeline.validated(config), default_color=written)
        assert pipeline.same_stream(before, config)
    assert not pipeline.same_stream(pipeline.fingerprint(with_data(config, seed=1)), config)


def test_fingerprints_of_streams_that_version_0_1_drew_otherwise_are_not_its_own():
    whole = Source(path="", short_side=40)
    assert "revision" not in pipeline.hashed_source(whole, {})
    for changes in ({"crop": (0.75, 0.5)}, {"recipe": "affine"}, {"task": "vos"}):
        assert "revision" in pipeline.hashed_source(dataclasses.replace(whole, **changes), {})


@dataclasses.dataclass(frozen=True)
class Invert:
    """An augmentation from outside of the package."""

    above: int = 0

    def apply(self, sample, rng):
        return sample._replace(images=np.where(sample.images >= self.above, 255 - sample.images, sample.images))

    def output_size(self, size):
        return size


def test_an_augmentation_from_outside(config):
    rows = (("resize", {}), (f"{__name__}:Invert", {"above": 3}))
    plain = with_source({**config, "sources": {"vps": config["sources"]["vps"]}}, augment=rows[:1])
    inverted = with_source(plain, augment=rows)
    shape = pipeline.describe(plain)[0][2]
    for first, second in zip(take(plain, 3), take(inverted, 3), strict=True):
        assert first.records == second.records and first.clip.ids.shape == shape
        np.testing.assert_array_equal(first.clip.ids, second.clip.ids)
        images = first.clip.images.astype(int)
        grey = (images == 128).all(-1, keepdims=True) & (second.clip.images == 128).all(-1, keepdims=True)  # padding
        np.testing.assert_array_equal(second.clip.images, np.where(grey | (images < 3), images, 255 - images))
    assert pipeline.fingerprint(plain) != pipeline.fingerprint(inverted)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("blur", {}), "data.sources.vps.augment: 'blur' is no operation; expected one of choose_objects, flip"),
        (("resize", {"short_sides": 3}), "data.sources.vps.augment.resize.short_sides: no such key"),
        (("flip", {"flip": 2}), "data.sources.vps.augment.flip.flip=2.0: expected a number from 0 to 1"),
        (("nowhere:Thing", {}), "'nowhere:Thing' cannot be imported"),
        (("math:sqrt", {}), "math:sqrt is no operation; expected a frozen dataclass with apply and output_size"),
        (("affine_views", {}), "data.sources.vps.crop_px is missing; affine_views needs it"),
    ],
)
def test_wrong_augmentations_are_named(config, row, message):
    with pytest.raises(UserError, match=message):
        pipeline.describe(with_source(config, augment=(row,)))


def test_one_colour_for_one_image(config):
    """An image that is made into a clip is coloured once, and the clip is that of separate frames."""
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 8, 3), dtype=np.uint8)
    operation = augment.operation("jitter_color", {}, {"color": Color()}, "")
    nothing = np.zeros(65536, np.int32)
    sample = augment.Sample(np.broadcast_to(image, (3, 6, 8, 3)), np.zeros((3, 6, 8), np.uint16), nothing > 0, nothing)
    separate = sample._replace(images=np.concatenate([image] * 3))
    for seed in range(6):
        first, second = (operation.apply(s, np.random.default_rng(seed)).images for s in (sample, separate))
        np.testing.assert_array_equal(first, second)


def test_workers_that_do_not_end_are_killed(monkeypatch):
    monkeypatch.setattr(pipeline, "PATIENCE", 0.2)
    workers = [multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,)) for _ in range(2)]

    class Batches:
        def close(self):
            for worker in workers:
                worker.join(timeout=25)

    for worker in workers:
        worker.start()
    start = time.monotonic()
    with pytest.raises(SystemExit), pipeline.closing(Batches()):
        raise SystemExit(143)
    assert time.monotonic() - start < 20 and [worker.exitcode for worker in workers] == [-9, -9]
