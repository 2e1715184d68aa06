"""Batches for training: `config.data` -> an endless stream of `types.TrainBatch`.

Batch k is a pure function of (config, k): of neither workers nor threads nor hosts nor the step the stream started at.
Its source and shape come from the schedule (mixture.py) and the video table, never from pixels.

Keys of `config.data` (any mapping; defaults in brackets):

* `batch_size`: clips per step over all hosts.
* `clip_frames`: frames per clip, T.
* `max_instances` [64]: rows of the instance table, n.
* `pad_multiple` [64]: both sides of every clip are padded to it.
* `chunk_steps` [8]: consecutive steps of one source and shape.
* `seed` [0]: another seed is another stream.
* `num_workers` [0]: processes that make batches; 0 uses threads of this process.
* `num_threads` [2], `prefetch` [4]: threads per process and batches they make ahead.
* `sources`: name -> mapping of
  `path` prepared folder; `split` ['train'];
  `task` ['panoptic'], `group` [source name]: task and semantic query group of the model;
  `weight` [1.0]: share of the chunks; 0 leaves the source out;
  `short_side`: pixels after the resize, or a tuple to choose from; `max_side` [1333]: bound of the long side;
  `crop` [None]: `(height, width)` factors; `crop_rule` ['containing'] or 'preserving';
  `flip` [0.5]: probability of a mirror image;
  `color` [{}]: numbers of `transforms.Color`, or None for no jitter;
  `frame_window` [5.0]: half width, in clip lengths, of the neighbourhood the frames come from;
  `needs_instances` [True for panoptic and instance]: leave out videos without instances;
  `shapes` [None]: padded `(height, width)` pairs to use instead of the nearest multiples; a clip takes the smallest
  that holds it.

A recipe for two cores (frames of 108x192 and 120x160; both aspects crop and resize into one 128x128 program, a third
less pixels than 128x192; predict with a short side of 128, where things have the same size in pixels):

    data = dict(batch_size=8, clip_frames=2, max_instances=8, chunk_steps=1, sources=dict(vipseg=dict(
        path='.../vipseg', short_side=108, max_side=128, crop=(0.75, 0.5), frame_window=2.0)))

Without crop: `short_side=96, max_side=192, crop=None` gives 128x192 and 128x128.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from vps_jax.data import clips, mixture, records, transforms
from vps_jax.types import Clip, TrainBatch, UserError

DEFAULTS = {
    "max_instances": 64,
    "pad_multiple": 64,
    "chunk_steps": 8,
    "seed": 0,
    "num_workers": 0,
    "num_threads": 2,
    "prefetch": 4,
}
SOURCE_DEFAULTS = {
    "split": "train",
    "task": "panoptic",
    "group": None,
    "weight": 1.0,
    "max_side": 1333,
    "crop": None,
    "crop_rule": "containing",
    "flip": 0.5,
    "color": {},
    "frame_window": 5.0,
    "needs_instances": None,
    "shapes": None,
}
REQUIRED = ("batch_size", "clip_frames", "sources")
SOURCE_REQUIRED = ("path", "short_side")
TASKS = ("panoptic", "instance", "semantic", "vos")
CLIP_TRIES = 4  # draws of frames and crop until an instance is seen
ENDLESS = 1 << 48


def train_batches(config: Mapping, *, first_step: int = 0, host: int = 0, num_hosts: int = 1) -> Iterator[TrainBatch]:
    """The batches from `first_step` on, of one host.

    Args:
      config: the whole config; its `data` is read.
      first_step: number of the first batch, the optimiser steps done so far.
      host, num_hosts: which contiguous part of every batch to make.

    Yields:
      Batches of `batch_size / num_hosts` clips: images uint8 `[b, t, h, w, 3]`, ids uint16 `[b, t, h, w]`,
      instance_classes int32 `[b, n]`.

    Raises:
      UserError: something in the config or the prepared folders does not fit.
    """
    import grain

    data = settings(config)
    if data["batch_size"] % num_hosts:
        raise UserError(f"data.batch_size {data['batch_size']} must be a multiple of the {num_hosts} hosts; change it")
    samples = Samples(data, first_step, host, num_hosts)
    batches = grain.MapDataset.source(samples).batch(samples.per_host, batch_fn=collate)
    threads = grain.ReadOptions(num_threads=data["num_threads"], prefetch_buffer_size=data["prefetch"])
    stream = batches.to_iter_dataset(threads)
    if data["num_workers"]:
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=data["num_workers"]))
    return iter(stream)


def describe(config: Mapping) -> list[tuple[str, str, tuple[int, int, int, int]]]:
    """`(task, source, (batch, frames, height, width))` of every program that training will compile."""
    data = settings(config)
    buckets = make_buckets(data, open_sources(data))
    shapes = {(data["sources"][b.source]["task"], b.source, b.shape) for b in buckets}
    return sorted((task, name, (data["batch_size"], data["clip_frames"], *shape)) for task, name, shape in shapes)


def fingerprint(config: Mapping) -> str:
    """Hash of everything that decides the stream: the data settings (not the workers) and the video tables."""
    data = settings(config)
    plain = {k: v for k, v in data.items() if k not in ("num_workers", "num_threads", "prefetch")}
    plain["sources"] = {n: {k: v for k, v in s.items() if k != "path"} for n, s in data["sources"].items()}
    tables = {name: [opened.label_code, opened.videos] for name, opened in open_sources(data).items()}
    return hashlib.sha256(json.dumps([plain, tables], sort_keys=True).encode()).hexdigest()[:16]


def settings(config: Mapping) -> dict[str, Any]:
    """`config.data` as plain dicts with the defaults filled in.

    Raises:
      UserError: a key is missing, unknown or has an impossible value.
    """
    data = filled(config["data"], DEFAULTS, REQUIRED, "data")
    data["sources"] = {
        name: filled(source, SOURCE_DEFAULTS, SOURCE_REQUIRED, f"data.sources.{name}")
        for name, source in data["sources"].items()
    }
    if not any(source["weight"] > 0 for source in data["sources"].values()):
        raise UserError("data.sources has no source with a weight above 0; expected one or more: set a weight")
    for name, source in data["sources"].items():
        if source["task"] not in TASKS:
            raise UserError(f"data.sources.{name}.task is {source['task']!r}; expected one of {', '.join(TASKS)}")
        if isinstance(source["short_side"], int):
            source["short_side"] = (source["short_side"],)
        source["group"] = source["group"] or name
        if source["needs_instances"] is None:
            source["needs_instances"] = source["task"] in ("panoptic", "instance")
    return data


def filled(given: Mapping, defaults: Mapping, required: tuple[str, ...], where: str) -> dict[str, Any]:
    """A plain copy of a mapping with defaults, complaining about missing and unknown keys."""
    given = {key: plain(given[key]) for key in given}
    for key in required:
        if given.get(key) is None:
            raise UserError(f"{where}.{key} is missing; expected a value: set it in the config")
    unknown = sorted(set(given) - set(defaults) - set(required))
    if unknown:
        known = ", ".join(sorted({*defaults, *required}))
        raise UserError(f"{where}.{unknown[0]} is unknown; expected one of {known}")
    return {**defaults, **given}


def plain(value: Any) -> Any:
    """Config containers as dict and tuple, so that they pickle and hash the same whatever library made them."""
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {k: plain(v) for k, v in value.items()}
    return tuple(plain(v) for v in value) if isinstance(value, (list, tuple)) else value


def open_sources(data: Mapping) -> dict[str, records.Records]:
    """The prepared split of every source that has a weight."""
    return {n: records.open_records(s["path"], s["split"]) for n, s in data["sources"].items() if s["weight"] > 0}


def make_buckets(data: Mapping, opened: Mapping[str, records.Records]) -> list[mixture.Bucket]:
    """Sort the videos of all sources into shape buckets.

    Raises:
      UserError: a source has no usable video, or none of its `shapes` holds a video.
    """
    buckets = []
    for name, source_records in opened.items():
        source = data["sources"][name]
        rows: dict[tuple, list[int]] = {}
        for i, video in enumerate(source_records.videos):
            if source["needs_instances"] and not any(video.instances):
                continue
            for short_side in source["short_side"]:
                shape = padded_shape(video.size, source, short_side, data["pad_multiple"])
                rows.setdefault((shape, short_side), []).append(i)
        if not rows:
            raise UserError(f"data.sources.{name}: no usable video in {source_records.folder}; prepare it again")
        buckets += [mixture.Bucket(name, *key, tuple(videos)) for key, videos in sorted(rows.items())]
    return buckets


def padded_shape(size: tuple[int, int], source: Mapping, short_side: int, multiple: int) -> tuple[int, int]:
    """Shape that a clip of frames of `size` is padded to."""
    inner = transforms.output_size(size, source, short_side)
    if source["shapes"] is None:
        return transforms.padded_size(inner, multiple)
    fitting = [tuple(s) for s in source["shapes"] if s[0] >= inner[0] and s[1] >= inner[1]]
    if not fitting:
        raise UserError(f"shapes {source['shapes']} hold no clip of {inner[0]}x{inner[1]}; add one or lower max_side")
    return min(fitting, key=lambda s: s[0] * s[1])


class Samples:
    """Random access to the samples of one host, `per_host` of them for every batch from `first_step` on."""

    def __init__(self, data: dict, first_step: int, host: int, num_hosts: int):
        self.data, self.first_step, self.host = data, first_step, host
        self.per_host = data["batch_size"] // num_hosts
        self.opened = open_sources(data)
        self.buckets = make_buckets(data, self.opened)
        weights = {name: data["sources"][name]["weight"] for name in self.opened}
        self.schedule = mixture.Schedule(self.buckets, weights, chunk_steps=data["chunk_steps"])

    def __len__(self) -> int:
        return ENDLESS

    def __repr__(self) -> str:
        return f"Samples({sorted(self.opened)})"

    def __getitem__(self, index: int) -> TrainBatch:
        """One sample as a `TrainBatch` without batch axis."""
        step, row = divmod(int(index), self.per_host)
        step += self.first_step
        row += self.host * self.per_host
        number, before = self.schedule.batch(step)
        bucket, seed = self.buckets[number], self.data["seed"]
        video = mixture.video_of(bucket, number, before * self.data["batch_size"] + row, seed=seed)
        rng = np.random.default_rng([seed, 0, step, row])
        clip, record = self.clip(bucket, self.opened[bucket.source].videos[video], rng)
        return TrainBatch(self.data["sources"][bucket.source]["task"], bucket.source, clip, (record,))

    def clip(self, bucket: mixture.Bucket, video: records.Video, rng: np.random.Generator) -> tuple[Clip, str]:
        """Read and augment one clip; a draw that shows no instance where one is needed is repeated a few times."""
        cv2.setNumThreads(1)  # the threads are ours; cv2's own only get in the way
        source, opened = self.data["sources"][bucket.source], self.opened[bucket.source]
        is_instance = records.value_table(opened.label_code).is_instance
        anchors = video.instances if source["needs_instances"] else (False,) * len(video.stems)
        for _ in range(CLIP_TRIES):
            frames = clips.choose_frames(anchors, self.data["clip_frames"], window=source["frame_window"], rng=rng)
            read = {f: records.read_frame(opened, video, f) for f in set(frames)}
            images, labels = (np.stack([read[f][i] for f in frames]) for i in range(2))
            images, labels = transforms.augment(images, labels, is_instance, source, bucket.short_side, rng)
            if not source["needs_instances"] or is_instance[labels].any():
                break
        images, labels = transforms.pad(images, labels, bucket.shape)
        ids, instance_classes = records.make_ids(labels, opened.label_code, self.data["max_instances"])
        record = f"{video.name}/{video.stems[frames[0]]}..{video.stems[frames[-1]]}"
        return Clip(images, ids, instance_classes), record


def collate(samples: list[TrainBatch]) -> TrainBatch:
    """Stack the samples of one batch; all have one task, source and shape."""
    first = samples[0]
    clip = Clip(*(np.stack(arrays) for arrays in zip(*(s.clip for s in samples), strict=True)))
    return TrainBatch(first.task, first.dataset, clip, tuple(r for s in samples for r in s.records))
