"""The command `report`: a result folder, its sources and its scores as one HTML file."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import checked, outputs
from vps_jax.evaluation.plan import keep_videos
from vps_jax.evaluation.vipseg_folders import stem_of
from vps_jax.files import atomic_path, progress_bar
from vps_jax.media.result_folders import CLASS_FILE, read_classes, read_frames, read_records
from vps_jax.media.track_tables import read_tracks
from vps_jax.media.video import Video
from vps_jax.runs.report_scores import Scoring, score
from vps_jax.runs.report_sources import Looker, Pictures, find_sources
from vps_jax.types import UserError
from vps_jax.viz import run_page

PAGES = (".html", ".htm")  # what a report may take the place of


class Summary(NamedTuple):
    """What was written: counts, the size of the file in bytes, and lines about what it lacks."""

    videos: int
    frames: int
    size: int
    notes: tuple[str, ...]


class Result(NamedTuple):
    """A result folder: the records of its videos in order, and its classes."""

    folder: pathlib.Path
    records: dict[str, dict]
    classes: ClassTable


def report(
    folder: pathlib.Path,
    output: pathlib.Path | None = None,
    *,
    videos: Sequence[str] | None = None,
    pictures: Pictures = Pictures(),  # noqa: B008  (immutable)
    scoring: Scoring = Scoring(),  # noqa: B008  (immutable)
    progress: bool = True,
) -> Summary:
    """Write the page of a run.

    Args:
      folder: result folder of `vps-jax predict` in the format `vipseg`.
      output: the file; None: `report.html` in the folder.
      videos: names of those to show; None: all.
      pictures: what is shown of the frames.
      scoring: what is scored.
      progress: show progress bars.

    Raises:
      UserError: no such results, a source or a truth that does not fit, or a file that cannot be written.
    """
    pictures.check()
    scoring.check()
    result = open_result(folder, videos, functools.partial(scoring.classes, folder))
    output = folder / "report.html" if output is None else output
    sources, notes = find_sources(folder, list(result.records), pictures)
    read = [folder / "pred.json", folder / CLASS_FILE, *scoring.inputs, *(video.source for video in sources.values())]
    check_output(output, [path for path in read if path is not None and path.is_file()])
    scored = score(folder, scoring, videos=videos, on_page=list(result.records), progress=progress)
    head = run_page.Head(
        title=folder.resolve().name,
        classes=run_page.class_rows(result.classes),
        videos=[{"name": name, "frames": len(record["annotations"])} for name, record in result.records.items()],
        notes=[*notes, *scored.notes],
        tables=scored.tables,
        plots=scored.plots,
    )
    frames = sum(row["frames"] for row in head.videos)
    with progress_bar("report", total=frames, show=progress) as advance:
        size = write(output, head, video_pages(result, sources, scored.videos, pictures, advance))
    return Summary(len(head.videos), frames, size, tuple(notes))


def check_output(output: pathlib.Path, read: Sequence[pathlib.Path]) -> None:
    """Raises UserError for a file that cannot be written, or is one of those that are read."""
    outputs.check((output,), read)
    if output.exists() and not output.is_file():
        raise UserError(f"{output} is no regular file; choose another with --output")
    if output.exists() and output.suffix.lower() not in PAGES:
        raise UserError(f"{output} is there and is no page; choose another with --output")


def write(output: pathlib.Path, head: run_page.Head, videos: Iterator[dict]) -> int:
    """Write the page at once; returns its size in bytes.

    Raises:
      UserError: the disk is full, or the folder gone.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(output.resolve()) as partial:
            with partial.open("w", encoding="utf-8") as file:
                run_page.write_page(file, head, videos)
            return partial.stat().st_size
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}); choose another file with --output") from error


def open_result(
    folder: pathlib.Path, videos: Sequence[str] | None, listed: Callable[[], ClassTable | None] = lambda: None
) -> Result:
    """The wanted videos of a result folder.

    Args:
      folder: of the results.
      videos: names of the wanted ones; None: all.
      listed: gives the classes of results that have no list of their own, as those of other programs, or None.

    Raises:
      UserError: it is none, it is empty, or it was written with other classes.
    """
    if not (folder / "pred.json").is_file():
        reason = "has no pred.json" if folder.is_dir() else "is no folder"
        raise UserError(f"{folder}: {reason}; expected the --output of `vps-jax predict`, in its format vipseg")
    records = read_records(folder)
    if not records:
        raise UserError(f"{folder}: its pred.json lists no video; predict some first")
    names = keep_videos(list(records), videos, folder)
    classes = (None if (folder / CLASS_FILE).exists() else listed()) or read_classes(folder)
    for name in names:
        check_rows(records[name]["annotations"], name, folder / "pred.json", frozenset(classes.official_ids))
    return Result(folder, {name: records[name] for name in names}, classes)


def check_rows(rows: object, name: str, file: pathlib.Path, categories: frozenset[int]) -> None:
    """Raises UserError unless the rows of a video are frames of a result with these categories."""
    with checked.place(file, f"video {name}"):
        if not checked.sequence(rows, "annotations"):
            raise checked.Wrong("has no frames; predict it again")
    for t, row in enumerate(rows):
        with checked.place(file, f"video {name}, frame number {t}"):
            stem_of(checked.field(checked.mapping(row, "the frame"), "file_name"), "file_name")
            checked.segments(checked.field(row, "segments_info"), categories, truth=False)


def video_pages(
    result: Result, sources: Mapping[str, Video], scores: Mapping[str, list], pictures: Pictures, advance
) -> Iterator[dict[str, Any]]:
    """What the page shows of each video, one after the other."""
    most = pictures.each(len(result.records))
    for name, record in result.records.items():
        source, rows = sources.get(name), read_tracks(result.folder / "tracks", name)
        numbers = {row["segment_id"]: row["track"] for row in rows}
        count = len(record["annotations"])
        chosen = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
        aspect = {} if source is None else {"pixel_aspect": source.pixel_aspect}
        page = run_page.VideoPage(count, chosen, side=pictures.side, **aspect)
        look = Looker(source) if source else None
        for position, frame in enumerate(read_frames(result.folder, record, result.classes, numbers)):
            image = look.at(frame) if look and page.wants(position) else None
            page.add(frame, *(() if image is None else (image.image, image.time)))
            advance(name)
        yield page.content(
            name, result.classes, scores={row["track"]: row["mean_score"] for row in rows}, rows=scores.get(name, ())
        )
