"""Sample j of the stream: which video, which frames, read, augmented, padded."""

import collections
from collections.abc import Mapping

import cv2
import numpy as np

from vps_jax.config import Data, Source
from vps_jax.data import augment, clips, mixture, records, transforms
from vps_jax.data.sample import Sample, Size, instances_shown, with_combinations
from vps_jax.types import Clip, TrainBatch, UserError

CLIP_TRIES = 4  # draws of frames and crop until an instance is seen
ENDLESS = 1 << 48


def open_sources(data: Data) -> dict[str, records.Records]:
    """The prepared split of every source that has a weight."""
    return {n: records.open_records(s.path, s.split) for n, s in data.sources.items() if s.weight > 0}


def make_buckets(data: Data, opened: Mapping[str, records.Records]) -> list[mixture.Bucket]:
    """Sort the videos of all sources into shape buckets, for VOS by number of objects too.

    Raises:
      UserError: a source has no usable video, or none of its `shapes` holds a video.
    """
    buckets = []
    for name, source_records in opened.items():
        source = data.sources[name]
        rows: dict[tuple, list[int]] = {}
        steps = {short: augment.operations(source, short, 0, f"data.sources.{name}") for short in source.short_side}
        for i, video in enumerate(source_records.videos):
            for objects in bucket_objects(source, max(video.instances)):
                for short_side in source.short_side:
                    inner = augment.output_size(steps[short_side], video.size)
                    shape = padded_shape(inner, source, data.pad_multiple)
                    rows.setdefault((shape, short_side, objects), []).append(i)
        if not rows:
            raise UserError(f"data.sources.{name}: no usable video in {source_records.folder}; prepare it again")
        totals = collections.Counter()
        for (_, _, objects), videos in rows.items():
            totals[objects] += len(videos)
        for key, videos in sorted(rows.items()):
            buckets.append(mixture.Bucket(name, *key, tuple(videos), len(videos) / totals[key[2]]))
    return buckets


def bucket_objects(source: Source, most: int) -> tuple[int, ...]:
    """Which object counts a video whose fullest frame shows `most` instances can serve; 0 stands for any."""
    if source.task == "vos":
        return tuple(k for k in source.objects if k <= most)
    return (0,) if most or not source.needs_instances else ()


def padded_shape(inner: Size, source: Source, multiple: int) -> Size:
    """Shape that a clip of frames of size `inner` is padded to."""
    if source.shapes is None:
        return transforms.padded_size(inner, multiple)
    fitting = [shape for shape in source.shapes if shape[0] >= inner[0] and shape[1] >= inner[1]]
    if not fitting:
        raise UserError(f"shapes {source.shapes} hold no clip of {inner[0]}x{inner[1]}; add one or lower max_side")
    return min(fitting, key=lambda shape: shape[0] * shape[1])


class Samples:
    """Random access to the samples of one host, `per_host` of them for every batch from `first_step` on."""

    def __init__(self, data: Data, first_step: int, host: int, num_hosts: int):
        self.data, self.first_step, self.host = data, first_step, host
        self.per_host = data.batch_size // num_hosts
        self.opened = open_sources(data)
        self.buckets = make_buckets(data, self.opened)
        weights = {name: data.sources[name].weight for name in self.opened}
        self.schedule = mixture.Schedule(self.buckets, weights, chunk_steps=data.chunk_steps)
        self.augmentations = [
            augment.operations(data.sources[b.source], b.short_side, b.objects, f"data.sources.{b.source}")
            for b in self.buckets
        ]

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
        bucket, seed = self.buckets[number], self.data.seed
        video = mixture.video_of(bucket, number, before * self.data.batch_size + row, seed=seed)
        rng = np.random.default_rng([seed, 0, step, row])
        clip, record = self.clip(number, self.opened[bucket.source].videos[video], rng)
        return TrainBatch(self.data.sources[bucket.source].task, bucket.source, clip, (record,))

    def clip(self, number: int, video: records.Video, rng: np.random.Generator) -> tuple[Clip, str]:
        """Read and augment one clip; one with too few instances is drawn again a few times, then taken as it is."""
        cv2.setNumThreads(1)  # the threads are ours; cv2's own only get in the way
        bucket = self.buckets[number]
        source, opened = self.data.sources[bucket.source], self.opened[bucket.source]
        for _ in range(CLIP_TRIES):
            frames = self.frames(bucket, video, rng)
            sample = augment.apply(self.augmentations[number], read_sample(opened, video, frames), rng)
            if not source.needs_instances:
                break
            if len(instances_shown(sample.labels[: 1 if bucket.objects else None], sample)) >= max(1, bucket.objects):
                break
        images, labels = transforms.pad(sample.images, sample.labels, bucket.shape, value=sample.pad)
        rows = bucket.objects or self.data.max_instances
        ids, classes, overlaps = records.make_ids(
            labels, opened.labels, rows, only=sample.wanted, combinations=sample.combinations
        )
        record = f"{video.name}/{video.stems[frames[0]]}..{video.stems[frames[-1]]}"
        return Clip(images, ids, classes, overlaps if opened.overlapping else None), record

    def frames(self, bucket: mixture.Bucket, video: records.Video, rng: np.random.Generator) -> tuple[int, ...]:
        """Frame numbers of one clip."""
        source, length = self.data.sources[bucket.source], self.data.clip_frames
        if bucket.objects:
            can_start = [count >= bucket.objects for count in video.instances]
            return clips.choose_following_frames(can_start, length, window=source.frame_window, rng=rng)
        anchors = video.instances if source.needs_instances else (False,) * len(video.stems)
        return clips.choose_frames(anchors, length, window=source.frame_window, rng=rng)


def read_sample(opened: records.Records, video: records.Video, frames: tuple[int, ...]) -> Sample:
    """The frames of a clip as they are stored."""
    read = {f: records.read_frame(opened, video, f) for f in set(frames)}
    if len(read) == 1:  # an image made into a clip: one array seen several times
        images, labels = (np.broadcast_to(array, (len(frames), *array.shape)) for array in read[frames[0]])
    else:
        images, labels = (np.stack([read[f][i] for f in frames]) for i in range(2))
    combinations = records.combinations_of(opened, video)
    wanted = with_combinations(opened.labels.is_instance, combinations)
    return Sample(images, labels, wanted, opened.labels.classes, combinations=combinations)
