"""Which source, shape and videos batch k takes, as a pure function of (seed, k) (spec: tarvis 7.5).

Batches come in chunks of `chunk_steps` steps of one source and one bucket, as published. The chunks follow the weights
as closely as whole numbers can, and inside a source each bucket follows its weight. Videos of a bucket come in epochs,
each in a new order.
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GROWING = threading.Lock()  # a schedule is asked by many threads; not its attribute, so that it pickles


class Bucket(NamedTuple):
    """Clips that share a program: a source, its padded shape and who is in it.

    Attributes:
      source: name of the source.
      shape: padded `(height, width)`.
      short_side: target of the resize.
      objects: number of objects in every clip of a VOS source, else 0.
      videos: indices into the source's video table; one that comes several times in an epoch stands there as often.
      weight: share within the source.
    """

    source: str
    shape: tuple[int, int]
    short_side: int
    objects: int
    videos: tuple[int, ...]
    weight: float


class Quota:
    """Endless choice among weighted items, each kept within one of its exact share at all times."""

    def __init__(self, weights: Sequence[float]):
        self.weights = np.asarray(weights, np.float64) / np.sum(weights)
        self.counts = np.zeros(len(self.weights), np.int64)

    def next(self) -> tuple[int, int]:
        """The item that is furthest behind, and how often it came before."""
        # rounded so that equal shares tie the same way whatever the order of additions
        behind = np.round(self.weights * (self.counts.sum() + 1) - self.counts, 9)
        item = int(np.argmax(behind))
        self.counts[item] += 1
        return item, int(self.counts[item]) - 1


class Schedule:
    """The bucket of every batch, worked out chunk by chunk as far as it is asked for.

    Args:
      buckets: all buckets.
      weights: weight of each source by name.
      chunk_steps: batches per chunk.
    """

    def __init__(self, buckets: Sequence[Bucket], weights: dict[str, float], *, chunk_steps: int):
        self.buckets, self.chunk_steps = tuple(buckets), chunk_steps
        self.names = [name for name in weights if weights[name] > 0]
        self.sources = Quota([weights[name] for name in self.names])
        self.inside = {name: [i for i, b in enumerate(buckets) if b.source == name] for name in self.names}
        self.by_videos = {name: Quota([buckets[i].weight for i in rows]) for name, rows in self.inside.items()}
        self.chunks: list[tuple[int, int]] = []

    def batch(self, step: int) -> tuple[int, int]:
        """Bucket number of batch `step`, and how many batches that bucket gave before."""
        chunk, within = divmod(step, self.chunk_steps)
        with GROWING:
            while len(self.chunks) <= chunk:
                name = self.names[self.sources.next()[0]]
                row, before = self.by_videos[name].next()
                self.chunks.append((self.inside[name][row], before))
        bucket, before = self.chunks[chunk]
        return bucket, before * self.chunk_steps + within


def video_of(bucket: Bucket, bucket_number: int, position: int, *, seed: int) -> int:
    """Video at a position of the bucket's endless stream of shuffled epochs."""
    epoch, place = divmod(position, len(bucket.videos))
    order = np.random.default_rng([seed, 1, bucket_number, epoch]).permutation(len(bucket.videos))
    return bucket.videos[order[place]]
