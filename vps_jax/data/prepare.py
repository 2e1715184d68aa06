"""Turn an official data-set folder into records that the training pipeline reads at random."""

import contextlib
import functools
import io
import logging
import pathlib
import shutil
import tempfile
from typing import Any

from vps_jax import datasets, files
from vps_jax.data.check import ALL_VOID
from vps_jax.datasets.spec import FRAME_SUFFIXES as IMAGES
from vps_jax.datasets.spec import DatasetSpec
from vps_jax.types import UserError


def prepare(
    name: str | DatasetSpec,
    source: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    skip_bad: bool = False,
    short_side: int | None = None,
    workers: int = 1,
    progress: bool = True,
    folder: str = "",
    replace: bool = False,
    remedy: str = "remove it or name another",
) -> dict[str, dict]:
    """Write the records of a data set below `out/<name>/<version>`.

    A finished set is recognised and only reported. An interrupted run leaves nothing that a reader could take for a
    finished set; started again it goes on with the shards that are missing, and ends in the same files.

    Args:
      name: one of `datasets.DATASETS`, or a specification.
      source: folder in the official layout.
      out: folder for all prepared sets.
      skip_bad: leave unreadable frames out and report them, instead of stopping at the first.
      short_side: pixels to which larger frames are shrunk; None keeps them (but Mapillary's, see its page).
      workers: processes; 1 works in this one, with threads.
      progress: show progress bars.
      folder: name of the folder below `out`; empty for the data set's name.
      replace: write a finished set of other files anew, instead of refusing.
      remedy: what the line of a refused set says to do.

    Returns:
      The report of each split, see `describe_report`.

    Raises:
      UserError: unknown name, missing or foreign folder, broken frame, no space, or a finished set of other files.
    """
    spec = name if isinstance(name, DatasetSpec) else datasets.dataset(name)
    folder, source, out = folder or spec.name, pathlib.Path(source), pathlib.Path(out)
    make = functools.partial(make_builder, spec, out, folder, skip_bad, short_side, workers)
    builder = make()
    remove_leftovers(builder, out / folder)
    if replace and is_prepared(builder) and is_of_others(builder, source):
        shutil.rmtree(builder.data_dir)
        builder = make()
    if not is_prepared(builder):
        check_folders(source, out)
        builder.track = functools.partial(_track, show=progress)
        run(builder, source, out / folder)
    elif is_of_others(builder, source):
        raise UserError(f"{out / folder} was prepared from other files or options than {source}; {remedy}")
    return {split: builder.info.metadata[f"report_{split}"] for split in builder.info.splits}


def make_builder(
    spec: DatasetSpec, out: pathlib.Path, folder: str, skip_bad: bool, short_side: int | None, workers: int
) -> Any:
    """The builder, writing array_record below `out/<folder>`."""
    from tfds_builders import base

    builder = base.builder_of(spec, folder)(data_dir=str(out), file_format="array_record")
    builder.skip_bad, builder.short_side, builder.workers = skip_bad, short_side, workers
    return builder


def is_prepared(builder: Any) -> bool:
    """Whether the builder's folder holds a finished set."""
    return (pathlib.Path(builder.data_dir) / "dataset_info.json").exists()


def remove_leftovers(builder: Any, folder: pathlib.Path) -> None:
    """Remove what killed runs left in the set's folder, but for the shards that an unfinished set goes on with."""
    leftovers = [*folder.glob("incomplete.*"), *folder.glob("*.incomplete*")]  # names of TFDS, now and earlier
    for leftover in [*leftovers, *(folder.glob(".*.parts") if is_prepared(builder) else ())]:
        shutil.rmtree(leftover, ignore_errors=True)


def is_of_others(builder: Any, source: pathlib.Path) -> bool:
    """Whether a source is there and is not the one that the finished set was made from.

    Sets of earlier versions say nothing of their source, and a source that was moved away cannot be asked.
    """
    before = builder.info.metadata.get("source")
    return before is not None and source.is_dir() and builder.source_fingerprint(source) != before


def check_folders(source: pathlib.Path, out: pathlib.Path) -> None:
    """Both folders can be used and the records will fit on the disk."""
    if not source.is_dir():
        raise UserError(f"{source} is no folder; expected a data set in its official layout: give its root as --source")
    if not any(source.iterdir()):
        raise UserError(f"{source} is empty; expected a data set in its official layout: give its root as --source")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); choose another output folder") from error
    # images are kept as they are and labels shrink, so the source is an upper bound
    images = sum(f.stat().st_size for f in source.rglob("*") if f.suffix.lower() in IMAGES)
    files.require_space(out, int(images * 1.15))


def run(builder: Any, source: pathlib.Path, folder: pathlib.Path) -> None:
    """Prepare, turning what is wrong with the source or the disk into a `UserError`."""
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=str(source))
    try:
        # TFDS announces a download that never happens, and makes a folder for it
        with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as downloads:
            builder.download_and_prepare(download_config=config, download_dir=downloads)
    except UserError:
        shutil.rmtree(builder.data_dir, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(builder.data_dir, ignore_errors=True)
        reason = error.strerror or str(error)
        raise UserError(f"{folder} cannot be written ({reason}); make room and start again: it goes on") from error


def _track(items, total: int, *, show: bool):
    return files.track(items, "prepare", total=total, show=show)


def describe_report(report: dict[str, dict]) -> list[str]:
    """Lines for the terminal that say what `prepare` found, one block per split."""
    lines = []
    for split, counts in report.items():
        sizes = ", ".join(f"{size} ({count} videos)" for size, count in list(counts["sizes"].items())[:4])
        lines.append(f"{split}: {counts['videos']} videos, {counts['frames']} frames, sizes {sizes or 'none'}")
        if counts["unlabelled_share"] is not None:
            lines.append(
                f"  {counts['videos_with_instances']} videos show instances, "
                f"{100 * counts['unlabelled_share']:.2f} % of the pixels are unlabelled"
            )
        if counts["unlabelled_share"] == 1:
            lines.append(f"  {ALL_VOID}")
        if counts["images_without_mask"]:
            lines.append(f"  {counts['images_without_mask']} images have no mask and were left out")
        if counts.get("short_videos"):
            lines.append(f"  {counts['short_videos']} videos are shorter than 4 frames")
        lines += [f"  {words}: {count}" for words, count in counts.get("findings", {}).items()]
        if counts["videos_without_frames"]:
            names = counts["videos_without_frames"]
            lines.append(f"  {len(names)} listed videos have no usable frame: {', '.join(names[:5])}")
        for value, place in counts["unknown_values"].items():
            lines.append(
                f"  unknown label value {value} on {place['pixels']} pixels (first in {place['first_seen']}): "
                + ("trained as pixels of its class" if place.get("class_only") else "ignored in training")
            )
        for bad in counts["bad_frames"][:20]:
            lines.append(f"  left out: {bad}")
    return lines
