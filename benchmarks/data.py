"""Clips per second and core: prepared records against the raw 720p files, in one process and one thread.

Run: python benchmarks/data.py [--clips N]

The baseline does what a loader of the raw layout does: JPEG and 16-bit PNG of every frame, np.unique for ids, colour
on whole frames, one boolean mask per instance, each resized on its own. Goals: at least 40 clips of 3 frames per second
and core, 3 times the baseline, labels at most a tenth of the time.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import cv2
import numpy as np

from vps_jax.config import Color
from vps_jax.data import clips, prepare, records, samples, synthetic, transforms, validation

LENGTH = 3
SOURCE = {"short_side": 512, "max_side": 1333, "crop": (0.75, 0.5)}


def make_data(root: pathlib.Path) -> None:
    """A few 1280x720 videos, raw and prepared."""
    sizes = ((720, 1280),)
    synthetic.synthesize(root / "raw", train=4, val=0, test=0, sizes=sizes, lengths=(6,), progress=False)
    prepare.prepare("vipseg", root / "raw", root / "prepared", progress=False)
    prepare.prepare("vipseg", root / "raw", root / "small", short_side=512, progress=False)


def from_records(root: pathlib.Path, name: str = "prepared"):
    """A function that makes clip i from the prepared records."""
    source = {"path": str(root / name / "vipseg"), **SOURCE}
    data = {"batch_size": 1, "clip_frames": LENGTH, "sources": {"vipseg": source}}
    return samples.Samples(validation.validated(data), 0, 0, 1).__getitem__


def from_raw(root: pathlib.Path):
    """A function that makes clip i from the raw files, the plain way."""
    videos = sorted((root / "raw" / "imgs").iterdir())

    def make(i: int):
        rng = np.random.default_rng(i)
        stems = sorted(p.stem for p in videos[i % len(videos)].iterdir())
        frames = clips.choose_frames([True] * len(stems), LENGTH, window=5.0, rng=rng)
        images, masks = [], []
        for f in frames:
            images.append(cv2.imread(str(videos[i % len(videos)] / f"{stems[f]}.jpg"))[..., ::-1])
            mask = root / "raw" / "panomasks" / videos[i % len(videos)].name / f"{stems[f]}.png"
            masks.append(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED))
        images, labels = transforms.jitter_color(np.stack(images), Color(), rng), np.stack(masks)
        values = [v for v in np.unique(labels) if v >= 300]
        top, left = transforms.crop_corner(labels >= 300, (540, 640), rng)
        window = np.s_[:, top : top + 540, left : left + 640]
        size = (607, 512)
        images = [cv2.resize(f, size) for f in np.ascontiguousarray(images[window])]
        instances = [[cv2.resize((f == v).astype(np.float32), size) > 0.5 for f in labels[window]] for v in values]
        return np.stack(images), instances

    return make


def milliseconds(make, count: int) -> float:
    """Median processor time of a clip after one that warms up; wall time says little on a shared machine."""
    make(0)
    times = []
    for i in range(1, count + 1):
        start = time.thread_time()
        make(i)
        times.append(time.thread_time() - start)
    return 1e3 * statistics.median(times)


def label_milliseconds(root: pathlib.Path) -> float:
    """Time to decompress the labels of one clip."""
    opened = records.open_records(root / "prepared" / "vipseg", "train")
    stored = [opened.source[i]["label"] for i in range(LENGTH)]
    size = opened.videos[0].size
    return milliseconds(lambda i: [records.decode_label(label, size) for label in stored], 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=20, help="clips per formulation (default 20)")
    count = parser.parse_args().clips
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        make_data(root)
        ours, raw, labels = (
            milliseconds(from_records(root), count), milliseconds(from_raw(root), count), label_milliseconds(root),
        )  # fmt: skip
        small = milliseconds(from_records(root, "small"), count)
    print(f"raw 720p files    {raw:7.1f} ms a clip  {1e3 / raw:6.1f} clips/s")
    print(f"prepared records  {ours:7.1f} ms a clip  {1e3 / ours:6.1f} clips/s  {raw / ours:.1f} x the raw files")
    print(f"records at 512    {small:7.1f} ms a clip  {1e3 / small:6.1f} clips/s  {raw / small:.1f} x the raw files")
    print(f"labels            {labels:7.1f} ms a clip  {100 * labels / ours:.1f} % of the clip")


if __name__ == "__main__":
    main()
