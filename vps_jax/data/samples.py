"""Sample j of the stream: which video, which frames, read, augmented, padded."""

import collections
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from vps_jax.data import affine, clips, mixture, photometric, records, transforms
from vps_jax.types import Clip, TrainBatch, UserError

CLIP_TRIES = 4  # draws of frames and crop until an instance is seen
ENDLESS = 1 << 48


class Recipe(NamedTuple):
    """An augmentation, the size it foretells and the colour of its padding."""

    augment: Callable
    output_size: Callable
    pad_value: Any


RECIPES = {
    "clip": Recipe(transforms.augment, transforms.output_size, transforms.PAD_VALUE),
    "vos": Recipe(transforms.augment_vos, transforms.output_size_vos, transforms.PAD_VALUE),
    "affine": Recipe(affine.augment, affine.output_size, transforms.PAD_VALUE),
    "photometric": Recipe(photometric.augment, photometric.output_size, photometric.PAD_VALUE),
}


def open_sources(data: Mapping) -> dict[str, records.Records]:
    """The prepared split of every source that has a weight."""
    return {n: records.open_records(s["path"], s["split"]) for n, s in data["sources"].items() if s["weight"] > 0}


def make_buckets(data: Mapping, opened: Mapping[str, records.Records]) -> list[mixture.Bucket]:
    """Sort the videos of all sources into shape buckets, for VOS by number of objects too.

    Raises:
      UserError: a source has no usable video, or none of its `shapes` holds a video.
    """
    buckets = []
    for name, source_records in opened.items():
        source = data["sources"][name]
        rows: dict[tuple, list[int]] = {}
        for i, video in enumerate(source_records.videos):
            for objects in bucket_objects(source, max(video.instances)):
                for short_side in source["short_side"]:
                    shape = padded_shape(video.size, source, short_side, data["pad_multiple"])
                    rows.setdefault((shape, short_side, objects), []).append(i)
        if not rows:
            raise UserError(f"data.sources.{name}: no usable video in {source_records.folder}; prepare it again")
        totals = collections.Counter()
        for (_, _, objects), videos in rows.items():
            totals[objects] += len(videos)
        for key, videos in sorted(rows.items()):
            buckets.append(mixture.Bucket(name, *key, tuple(videos), len(videos) / totals[key[2]]))
    return buckets


def bucket_objects(source: Mapping, most: int) -> tuple[int, ...]:
    """Which object counts a video whose fullest frame shows `most` instances can serve; 0 stands for any."""
    if source["task"] == "vos":
        return tuple(k for k in source["objects"] if k <= most)
    return (0,) if most or not source["needs_instances"] else ()


def padded_shape(size: tuple[int, int], source: Mapping, short_side: int, multiple: int) -> tuple[int, int]:
    """Shape that a clip of frames of `size` is padded to."""
    inner = RECIPES[source["recipe"]].output_size(size, source, short_side)
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
        """Read and augment one clip; one with too few instances is drawn again a few times, then taken as it is."""
        cv2.setNumThreads(1)  # the threads are ours; cv2's own only get in the way
        source, opened = self.data["sources"][bucket.source], self.opened[bucket.source]
        for _ in range(CLIP_TRIES):
            frames = self.frames(bucket, video, rng)
            read = {f: records.read_frame(opened, video, f) for f in set(frames)}
            images, labels = (np.stack([read[f][i] for f in frames]) for i in range(2))
            images, labels, wanted = self.augmented(bucket, images, labels, rng)
            if not source["needs_instances"]:
                break
            shown = np.bincount((labels[:1] if bucket.objects else labels).ravel(), minlength=65536) > 0
            if np.count_nonzero(shown & wanted) >= max(1, bucket.objects):
                break
        images, labels = transforms.pad(images, labels, bucket.shape, value=RECIPES[source["recipe"]].pad_value)
        rows = bucket.objects or self.data["max_instances"]
        ids, instance_classes = records.make_ids(labels, opened.label_code, rows, only=wanted)
        record = f"{video.name}/{video.stems[frames[0]]}..{video.stems[frames[-1]]}"
        return Clip(images, ids, instance_classes), record

    def frames(self, bucket: mixture.Bucket, video: records.Video, rng: np.random.Generator) -> tuple[int, ...]:
        """Frame numbers of one clip."""
        source, length = self.data["sources"][bucket.source], self.data["clip_frames"]
        if bucket.objects:
            can_start = [count >= bucket.objects for count in video.instances]
            return clips.choose_following_frames(can_start, length, window=source["frame_window"], rng=rng)
        anchors = video.instances if source["needs_instances"] else (False,) * len(video.stems)
        return clips.choose_frames(anchors, length, window=source["frame_window"], rng=rng)

    def augmented(self, bucket: mixture.Bucket, images, labels, rng: np.random.Generator):
        """Augmented images and labels, and bool `[65536]`: the label values that are instances of this clip.

        The objects of a VOS clip are chosen in its first frame: before the crop, which looks at them, and after it
        where the crop is blind.
        """
        source = self.data["sources"][bucket.source]
        recipe, label_code = RECIPES[source["recipe"]], self.opened[bucket.source].label_code
        wanted = records.value_table(label_code).is_instance
        if bucket.objects and source["recipe"] != "affine":
            wanted = chosen_objects(labels[0], wanted, bucket.objects, rng)
        images, labels = recipe.augment(images, labels, wanted, source, bucket.short_side, rng)
        if bucket.objects and source["recipe"] == "affine":
            wanted = chosen_objects(labels[0], wanted, bucket.objects, rng)
        return images, labels, wanted


def chosen_objects(label: np.ndarray, is_instance: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """bool `[65536]`: `count` random instances (or all, if they are fewer) of a label map `[h, w]`."""
    shown = np.unique(label)
    shown = rng.permutation(shown[is_instance[shown]])[:count]
    wanted = np.zeros(65536, bool)
    wanted[shown] = True
    return wanted
