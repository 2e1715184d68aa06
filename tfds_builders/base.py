"""What all builders share: a `DatasetSpec` becomes records of single frames, shard by shard, in many processes.

A record of a frame is read at random without decoding any other. The metadata hold the class list, the label code, the
fingerprint of the source, and for each split the video table and the report that `vps-jax data prepare` prints.
`videos_<split>` is a list of `{id, stems, height, width, first, instances}` where `first` is the record number of the
first frame and `instances` has a digit per frame, the number of instances it shows (9: nine or more); it has
`combinations` too where masks overlap, see `datasets.spec.LabelMap`.
"""

import concurrent.futures
import functools
import hashlib
import multiprocessing
import os
import pathlib
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import shards
from tfds_builders.frames import usable
from vps_jax.datasets import DatasetSpec, VideoFiles
from vps_jax.types import UserError


class FrameBuilder(tfds.core.dataset_builder.FileReaderBuilder, skip_registration=True):
    """Base of the builders.

    Attributes:
      SPEC: the data set.
      skip_bad: leave unreadable frames out and report them, instead of stopping at the first.
      short_side: pixels to which larger frames are shrunk; None for the data set's own rule.
      workers: processes; 1 works in this one, with threads.
      track: wraps the iteration over the frames done, for a progress bar; called with (iterable, total).
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The manual folder is the root of the data set in one of its official layouts."
    SPEC: DatasetSpec
    skip_bad: bool = False
    short_side: int | None = None
    workers: int = 1
    track: Callable[[Iterable, int], Iterable] = staticmethod(lambda items, total: items)

    def find_videos(self, root: pathlib.Path) -> dict[str, list[VideoFiles]]:
        """Videos of every split that the folder has.

        Raises:
          UserError: the layout is not recognised, or no listed video has frames.
        """
        splits = {split: self.SPEC.videos(root, split) for split in self.SPEC.splits(root)}
        if not any(usable(video) for videos in splits.values() for video in videos):
            raise UserError(f"{root}: no listed video has frames; expected the images and masks of {self.SPEC.title}")
        return splits

    def cut(self, root: pathlib.Path) -> list[shards.Shard]:
        """The shards of all splits of a root that have frames."""
        parts = pathlib.Path(self._data_dir_root) / self.name / f".{self.VERSION}.parts"
        found = self.find_videos(root)
        cuts = [shards.cut(split, videos, parts, self.options()) for split, videos in found.items()]
        return [shard for rows in cuts if any(usable(v) for s in rows for v in s.videos) for shard in rows]

    def options(self) -> shards.Options:
        """What the shards are written with."""
        shrink = (self.short_side, 1 << 16) if self.short_side else None
        return shards.Options(self.skip_bad, shrink, shards.default_threads() if self.workers == 1 else 1)

    def source_fingerprint(self, root: pathlib.Path) -> str:
        """Hash of the source files of all splits and of the options."""
        return fingerprint(self.cut(root))

    def _info(self) -> tfds.core.DatasetInfo:
        spec = self.SPEC
        metadata = tfds.core.MetadataDict(dataset=spec.name, label_code=spec.labels.name, classes=spec.classes.rows())
        return tfds.core.DatasetInfo(builder=self, disable_shuffling=True, features=features(), metadata=metadata)

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        cut = self.cut(pathlib.Path(dl_manager.manual_dir))
        cut[0].stem.parent.mkdir(parents=True, exist_ok=True)
        rows = self.write(cut)
        infos = []
        for split in dict.fromkeys(shard.split for shard in cut):
            own = [shard for shard in cut if shard.split == split]
            template = self._get_filename_template(split_name=split)
            for i, shard in enumerate(own):
                place(shard.records, template.sharded_filepath(shard_index=i, num_shards=len(own)))
            table, report = shards.merged([rows[shard.stem.name] for shard in own], self.SPEC)
            self.info.metadata[f"videos_{split}"], self.info.metadata[f"report_{split}"] = table, report
            lengths = [sum(len(v["stems"]) for v in rows[shard.stem.name]["videos"]) for shard in own]
            size = sum(rows[shard.stem.name]["bytes"] for shard in own)
            infos.append(
                tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
            )
        self.info.metadata["source"] = fingerprint(cut)
        self.info.metadata["short_side"] = self.short_side
        self.info.set_splits(tfds.core.splits.SplitDict(infos))

    def write(self, cut: list[shards.Shard]) -> dict[str, dict]:
        """Rows of every shard by its name; those that are not there yet are written."""
        rows: dict[str, dict] = {}

        def advance() -> Iterator[None]:
            for shard, found in self.written(cut):
                rows[shard.stem.name] = found
                for video in shard.videos:
                    yield from (None for _ in usable(video))

        for _ in self.track(advance(), sum(len(usable(v)) for shard in cut for v in shard.videos)):
            pass
        return rows

    def written(self, cut: list[shards.Shard]) -> Iterator[tuple[shards.Shard, dict]]:
        """Shards and their rows, as they are done."""
        if self.workers == 1 or len(cut) == 1 or not travels(self.SPEC):
            for shard in cut:
                yield shard, shards.write_shard(shard, self.SPEC, serialize, self.options())
            return
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(
            min(self.workers, len(cut)), mp_context=context, initializer=follow, initargs=(os.getpid(),)
        ) as pool:
            jobs = {
                pool.submit(shards.write_shard, shard, self.SPEC, serialize, self.options()): shard for shard in cut
            }
            try:
                for job in concurrent.futures.as_completed(jobs):
                    yield jobs[job], job.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _post_download_and_prepare_hook(self) -> None:
        shutil.rmtree(pathlib.Path(self._data_dir_root) / self.name / f".{self.VERSION}.parts", ignore_errors=True)


@functools.cache
def features() -> tfds.features.FeaturesDict:
    """What a record holds."""
    return tfds.features.FeaturesDict(
        {
            "video_id": tfds.features.Text(),
            "stem": tfds.features.Text(),
            "height": np.int32,
            "width": np.int32,
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format=None),
            "label": tfds.features.Text(),  # zlib of uint16 [height, width], empty without a label
        }
    )


def serialize(record: dict) -> bytes:
    """A record as it is stored, the same bytes in every process."""
    serializer = tfds.core.example_serializer.ExampleSerializer(features().get_serialized_info())
    example = serializer.get_tf_example(features().encode_example(record))
    return example.SerializeToString(deterministic=True)  # a map of protobuf has no order of its own


def builder_of(spec: DatasetSpec, folder: str = "") -> type[FrameBuilder]:
    """The builder of a data set, whether or not it has a folder here; it writes to a folder of the set's name."""
    name = folder or spec.name
    return type(name, (FrameBuilder,), {"SPEC": spec, "name": name}, skip_registration=True)


def travels(spec: DatasetSpec) -> bool:
    """Whether a specification can be sent to another process; one with lambdas cannot."""
    try:
        pickle.dumps(spec)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def fingerprint(cut: list[shards.Shard]) -> str:
    """Hash of the fingerprints of all shards."""
    return hashlib.sha256(repr([(s.stem.name, s.fingerprint) for s in cut]).encode()).hexdigest()[:16]


def place(source: pathlib.Path, target: os.PathLike) -> None:
    """Give a file a second name, or copy it where the disk knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def follow(parent: int) -> None:
    """End this process when its parent is gone: a killed run leaves nobody behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
