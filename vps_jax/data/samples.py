"""Sample j of the stream: which video, which frames, read, augmented, padded."""

import collections
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from vps_jax.config import Data, Source
from vps_jax.data import augment, clips, mixture, records, transforms
from vps_jax.data.sample import Sample, Size, instances_shown, with_combinations
from vps_jax.types import Clip, TrainBatch, UserError

CLIP_TRIES = 4  # draws of frames and crop until an instance is seen
BROKEN_TRIES = 16  # clips that are tried for one sample
ENDLESS = 1 << 48


def open_sources(data: Data) -> dict[str, records.Records]:
    """The prepared split of every source that is used."""
    return {name: records.open_records(source.path, source.split) for name, source in data.used.items()}


def make_buckets(data: Data, opened: Mapping[str, records.Records]) -> list[mixture.Bucket]:
    """Sort the videos of all sources into shape buckets, for VOS by number of objects too.

    A source has a bucket for each short side on which its augmentation depends.

    Raises:
      UserError: a source has no usable video, or none of its `shapes` holds a video.
    """
    buckets = []
    for name, source_records in opened.items():
        source = data.sources[name]
        rows: dict[tuple, list[int]] = {}
        steps = augmentations(source, f"data.sources.{name}")
        for i, video in enumerate(source_records.videos):
            for objects, times in bucket_objects(source, video.instances, data.clip_frames).items():
                for short_side, operations in steps.items():
                    inner = augment.output_size(operations, video.size)
                    shape = padded_shape(inner, source, data.pad_multiple)
                    rows.setdefault((shape, short_side, objects), []).extend([i] * times)
        if not rows:
            why = why_unusable(source, [video.instances for video in source_records.videos])
            raise UserError(f"data.sources.{name}: no usable video in {source_records.folder}; {why}")
        totals = collections.Counter()
        for (_, _, objects), videos in rows.items():
            totals[objects if source.object_shares == "equal" else 0] += len(videos)
        for key, videos in sorted(rows.items()):
            total = totals[key[2] if source.object_shares == "equal" else 0]
            buckets.append(mixture.Bucket(name, *key, tuple(videos), len(videos) / total))
    return buckets


def why_unusable(source: Source, instances: Sequence[Sequence[int]]) -> str:
    """Why no video of a source can be drawn, and what to do, from the numbers of objects in the frames of each."""
    if instances and source.needs_instances and not any(map(any, instances)):
        return (
            f"none of its {len(instances)} videos shows an object with a number, which task {source.task!r} needs; "
            "expected object numbers: prepare own data with --instances, or train a task without them, such as semantic"
        )
    return "expected videos with labels: prepare it again"


def augmentations(source: Source, where: str) -> dict[int, tuple[augment.Operation, ...]]:
    """The operations of a source by short side; sides on which they do not depend share the first one's."""
    by_side: dict[int, tuple[augment.Operation, ...]] = {}
    for short_side in source.short_side:
        operations = augment.operations(source, short_side, 0, where)
        if operations not in by_side.values():
            by_side[short_side] = operations
    return by_side


def bucket_objects(source: Source, instances: Sequence[int], length: int) -> dict[int, int]:
    """Numbers of objects that a video serves -> how often it comes in an epoch of their bucket; 0 stands for any.

    Args:
      source: of the video.
      instances: how many its frames show.
      length: frames of a clip. A video comes as often as a VOS clip can start in it (spec: tarvis 7.6); for other tasks
        once, or as often as it has frames where the source is drawn by them.
    """
    most = max(instances)
    if source.task != "vos":
        times = len(instances) if source.draw_by == "frames" else 1
        return {0: times} if most or not source.needs_instances else {}
    fitting = [k for k in source.objects if k <= most]
    if source.object_shares == "shown":
        return {max(fitting): 1} if fitting else {}
    return {k: len(clips.usable_starts([count >= k for count in instances], length)) for k in fitting}


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
        clip, record, broken = self.readable_clip(number, video, rng)
        return TrainBatch(self.data.sources[bucket.source].task, bucket.source, clip, (record,), broken)

    def readable_clip(self, number: int, video: int, rng: np.random.Generator) -> tuple[Clip, str, tuple[str, ...]]:
        """A clip of this video, or of another one of its bucket if a record is broken, and what was broken.

        Raises:
          UserError: many in a row are broken.
        """
        bucket, broken = self.buckets[number], []
        videos = self.opened[bucket.source].videos
        while len(broken) < BROKEN_TRIES:
            try:
                return *self.clip(number, videos[video], rng), tuple(broken)
            except records.BrokenRecord as error:
                broken.append(f"data.sources.{bucket.source}: {error}")
                video = rng.choice(bucket.videos)
        raise UserError(f"{len(broken)} clips in a row are broken, the last: {broken[-1]}; prepare the set again")

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
            looked_at = sample.labels[sample.reference] if bucket.objects else sample.labels
            if len(instances_shown(looked_at, sample)) >= max(1, bucket.objects):
                break
        images, labels = transforms.pad(sample.images, sample.labels, bucket.shape, value=sample.pad)
        rows = bucket.objects or self.data.max_instances
        instances = records.make_ids(labels, opened.labels, rows, only=sample.wanted, combinations=sample.combinations)
        reference = None
        if bucket.objects:
            instances, reference = shuffled(instances, rng), np.int32(sample.reference)
        record = f"{video.name}/{video.stems[frames[0]]}..{video.stems[frames[-1]]}"
        return Clip(
            images, instances.ids, instances.classes, instances.overlaps if opened.overlapping else None, reference
        ), record

    def frames(self, bucket: mixture.Bucket, video: records.Video, rng: np.random.Generator) -> tuple[int, ...]:
        """Frame numbers of one clip."""
        source, length = self.data.sources[bucket.source], self.data.clip_frames
        if bucket.objects:
            can_start = [count >= bucket.objects for count in video.instances]
            return clips.choose_following_frames(can_start, length, window=source.frame_window, rng=rng)
        anchors = video.instances if source.needs_instances else (False,) * len(video.stems)
        return clips.choose_frames(anchors, length, window=source.frame_window, rng=rng)


def shuffled(instances: records.Instances, rng: np.random.Generator) -> records.Instances:
    """Objects in a random order: those given by points are the last of the table (spec: tarvis 4.4)."""
    count = np.count_nonzero(instances.classes >= 0)
    order = np.concatenate([rng.permutation(count), np.arange(count, len(instances.classes))])  # new row -> old row
    new_id = np.arange(65536, dtype=np.uint16)
    new_id[1 + order] = 1 + np.arange(len(order))
    return records.Instances(new_id[instances.ids], instances.classes[order], instances.overlaps[:, order])


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
