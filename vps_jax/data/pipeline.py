"""Batches for training: `config.Data` -> an endless stream of `types.TrainBatch`.

Batch k is a pure function of (config, k): of neither workers nor threads nor hosts nor the step the stream started at.
Its source and shape come from the schedule (mixture.py) and the video table, never from pixels.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator

import numpy as np
from absl import flags

from vps_jax.config import Color, Data, Source
from vps_jax.data.records import Video
from vps_jax.data.samples import Samples, make_buckets, open_sources
from vps_jax.data.validation import validated
from vps_jax.datasets import ClassTable
from vps_jax.parsing import plain
from vps_jax.types import Clip, TrainBatch, UserError

PATIENCE = 5  # seconds that data workers have to end
# keys of a source that version 0.1 lacked, with what it did
ADDED = {"augment": None, "object_shares": "equal", "draw_by": "videos"}


def train_batches(data: Data, *, first_step: int = 0, host: int = 0, num_hosts: int = 1) -> Iterator[TrainBatch]:
    """The batches from `first_step` on, of one host.

    Args:
      data: `config.data`, as the dataclass or as a mapping of its keys.
      first_step: number of the first batch, the optimiser steps done so far.
      host, num_hosts: which contiguous part of every batch to make.

    Yields:
      Batches of `batch_size / num_hosts` clips: images uint8 `[b, t, h, w, 3]`, ids uint16 `[b, t, h, w]`,
      instance_classes int32 `[b, n]`.

    Raises:
      UserError: something in the config or the prepared folders does not fit.
    """
    import grain

    data = validated(data)
    if data.batch_size % num_hosts:
        raise UserError(f"data.batch_size {data.batch_size} must be a multiple of the {num_hosts} hosts; change it")
    samples = Samples(data, first_step, host, num_hosts)
    batches = grain.MapDataset.source(samples).batch(samples.per_host, batch_fn=collate)
    threads = grain.ReadOptions(num_threads=data.num_threads, prefetch_buffer_size=data.prefetch)
    stream = batches.to_iter_dataset(threads)
    if data.num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain reads flags of its own, also in a program that has none
        workers = grain.MultiprocessingOptions(num_workers=data.num_workers)
        stream = stream.mp_prefetch(workers, worker_init_fn=keep_to_parent)
    return iter(stream)


@contextlib.contextmanager
def closing(batches: Iterator[TrainBatch]) -> Iterator[None]:
    """Close a stream of `train_batches` at the end, and kill the workers that have not ended `PATIENCE` seconds later.

    grain would wait 25 seconds for each of them, one after the other, and one that is still starting takes as long.
    """
    try:
        yield
    finally:
        timer = threading.Timer(PATIENCE, kill_workers)
        timer.start()
        try:
            batches.close()
        finally:
            timer.cancel()


def kill_workers() -> None:
    """End all processes that this one has started by `multiprocessing`: while it trains, its data workers."""
    for worker in multiprocessing.active_children():
        worker.kill()


def keep_to_parent(*_) -> None:
    """Let a worker process end with its parent, and with nothing else.

    A signal to the whole group must not take the workers away before the run has saved, and a run that is killed must
    not leave them behind.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def describe(data: Data) -> list[tuple[str, str, tuple[int, ...]]]:
    """`(task, source, (batch, frames, height, width))` of every program that training will compile.

    The number of objects follows the width for task vos.
    """
    data = validated(data)
    programs = set()
    for bucket in make_buckets(data, open_sources(data)):
        shape = (data.batch_size, data.clip_frames, *bucket.shape, *([bucket.objects] if bucket.objects else []))
        programs.add((data.sources[bucket.source].task, bucket.source, shape))
    return sorted(programs)


def sources_of(data: Data, steps: Iterable[int]) -> list[str]:
    """Source of the batch of every step."""
    samples = Samples(validated(data), first_step=0, host=0, num_hosts=1)
    return [samples.buckets[samples.schedule.batch(step)[0]].source for step in steps]


def class_tables(data: Data) -> dict[str, ClassTable | None]:
    """Class list of every source that has a weight, as its prepared folder says; None for one of an early version."""
    return {name: opened.classes for name, opened in open_sources(validated(data)).items()}


def fingerprint(data: Data) -> str:
    """Hash of everything that decides the stream: the data settings (not the workers) and the video tables."""
    return digest(validated(data), default_color={})


def same_stream(before: str, data: Data) -> bool:
    """Whether a checkpoint's fingerprint is that of these data.

    Earlier versions hashed the config as it was written, where the default colours may be spelled out or left out.
    """
    data = validated(data)
    return before in (digest(data, default_color={}), digest(data, default_color=plain(Color())))


def digest(data: Data, *, default_color: dict) -> str:
    """Hash of settings and video tables; the default colours count as `default_color`."""
    hashed = plain(data) | {"sources": {name: hashed_source(row, default_color) for name, row in data.sources.items()}}
    for key in ("num_workers", "num_threads", "prefetch", "broken_records"):
        del hashed[key]
    if not hashed["without"]:
        del hashed["without"]  # version 0.1 lacked it
    tables = {name: [opened.labels.name, [*map(row_of, opened.videos)]] for name, opened in open_sources(data).items()}
    return hashlib.sha256(json.dumps([hashed, tables], sort_keys=True).encode()).hexdigest()[:16]


def hashed_source(source: Source, default_color: dict) -> dict:
    """A source as it is hashed: its folder may move, and earlier versions lacked some keys."""
    rows = plain(source)
    del rows["path"]
    for key, before in ADDED.items():
        if rows[key] == before:
            del rows[key]
    if source.crop is not None or source.recipe == "affine" or source.task == "vos":
        rows["revision"] = 2  # version 0.1 drew other crops, views and objects
    return rows | ({"color": default_color} if source.color == Color() else {})


def row_of(video: Video) -> tuple:
    """A row of the video table as it is hashed; earlier versions had no combinations."""
    return tuple(video) if video.combinations else tuple(video)[:-1]


def collate(samples: list[TrainBatch]) -> TrainBatch:
    """Stack the samples of one batch; all have one task, source and shape."""
    first = samples[0]
    columns = zip(*(sample.clip for sample in samples), strict=True)
    clip = Clip(*(None if arrays[0] is None else np.stack(arrays) for arrays in columns))
    records = tuple(record for sample in samples for record in sample.records)
    broken = tuple(line for sample in samples for line in sample.broken)
    return TrainBatch(first.task, first.dataset, clip, records, broken)
