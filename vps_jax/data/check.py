"""Look through an official data-set folder and name everything that is wrong with it."""

import concurrent.futures
import io
import os
import pathlib
from typing import NamedTuple

import numpy as np

from vps_jax import datasets, files
from vps_jax.datasets import label_files
from vps_jax.types import UserError

LAYOUTS = ("vipseg", "vspw")
SPLITS = ("train", "val", "test")


class Report(NamedTuple):
    """What `check` found: counts, and one line per problem."""

    videos: int
    frames: int
    problems: tuple[str, ...]


def check(name: str, source: str | pathlib.Path, *, progress: bool = True) -> Report:
    """Decode every image and mask of a raw or converted folder.

    Args:
      name: `vipseg` or `vspw`.
      source: folder in the official layout.
      progress: show a progress bar.

    Returns:
      Counts and problems: unreadable images, masks of another size or kind or with values of no class, masks without
      image, videos in no list, in two, or listed and missing.

    Raises:
      UserError: the folder has not the layout at all.
    """
    source = pathlib.Path(source)
    if name not in LAYOUTS:
        raise UserError(f"data set {name!r} cannot be checked; expected one of {', '.join(LAYOUTS)}")
    root = image_root(name, source)
    lists = {s: files.read_lines(source / f"{s}.txt") for s in SPLITS if (source / f"{s}.txt").exists()}
    videos = [p.name for p in files.visible(root) if p.is_dir()]
    problems = list_problems(lists, videos, source)
    jobs = [job for video in videos for job in frame_jobs(name, source, root, video, video in lists.get("test", ()))]
    legal = datasets.dataset(name).labels.known
    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda job: frame_problems(*job, legal=legal), jobs)
        for lines in files.track(found, "check", total=len(jobs), show=progress):
            problems += lines
    return Report(len(videos), len(jobs), tuple(problems))


def image_root(name: str, source: pathlib.Path) -> pathlib.Path:
    """The folder with one folder per video."""
    candidates = {"vipseg": ("imgs", "images"), "vspw": ("data",)}[name]
    for folder in candidates:
        if (source / folder).is_dir():
            return source / folder
    raise UserError(f"{source} has no folder {' or '.join(candidates)}; expected {name}'s layout: give its root")


def list_problems(lists: dict[str, list[str]], videos: list[str], source: pathlib.Path) -> list[str]:
    """Disagreements between split lists and folders."""
    problems = [f"{source / (s + '.txt')}: the split list is missing" for s in SPLITS if s not in lists]
    home: dict[str, str] = {}
    there = set(videos)
    for split, names in lists.items():
        for video in names:
            if video in home:
                problems.append(f"{video}: listed in {home[video]}.txt and in {split}.txt")
            home[video] = split
            if video not in there:
                problems.append(f"{video}: listed in {split}.txt, but there is no such folder")
    return problems + [f"{video}: in no split list" for video in videos if lists and video not in home]


def frame_jobs(name: str, source: pathlib.Path, root: pathlib.Path, video: str, is_test: bool) -> list[tuple]:
    """`(image or None, mask or None, whether a mask must be there)` of every frame of a video."""
    images, masks = root / video, source / "panomasks" / video
    if name == "vspw":
        images, masks = root / video / "origin", root / video / "mask"
    with_image = {p.stem: p for p in files.visible(images, ".jpg")}
    with_mask = {p.stem: p for p in files.visible(masks, ".png")}
    stems = sorted({*with_image, *with_mask})
    return [(with_image.get(s), with_mask.get(s), not is_test) for s in stems]


def frame_problems(
    image: pathlib.Path | None, mask: pathlib.Path | None, needs_mask: bool, *, legal: np.ndarray
) -> list[str]:
    """Problems of one frame; `legal` is bool `[65536]` per label value."""
    if image is None:
        return [f"{mask}: mask without an image"]
    size, problems = image_size(image)
    if mask is None:
        return problems + ([f"{image}: image without a mask"] if needs_mask else [])
    values, mask_problems = mask_values(mask)
    if values is None:
        return problems + mask_problems
    if size is not None and values.shape != size:
        shape = f"{values.shape[1]}x{values.shape[0]}"
        problems.append(f"{mask}: mask is {shape}, its image {size[1]}x{size[0]}")
    counts = np.bincount(values.ravel(), minlength=65536)
    strays = np.flatnonzero((counts > 0) & ~legal)
    return problems + [f"{mask}: value {v} on {counts[v]} pixels is no class" for v in strays]


def image_size(image: pathlib.Path) -> tuple[tuple[int, int] | None, list[str]]:
    """`(height, width)` of an image that decodes to its end, or the problem."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(image.read_bytes()))
        picture.load()
    except OSError as error:
        return None, [f"{image}: unreadable image ({error or 'no image data'})"]
    return (picture.height, picture.width), []


def mask_values(mask: pathlib.Path) -> tuple[np.ndarray | None, list[str]]:
    """Label values `[h, w]` of a mask, or the problem."""
    try:
        return label_files.read_mask(mask), []
    except label_files.BadFrame as error:
        return None, [str(error)]
