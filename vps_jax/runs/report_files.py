"""The command `report`: a result folder, its sources and its scores as one HTML file."""

import functools
import importlib.util
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation import layouts, outputs, plots, runner, tables
from vps_jax.evaluation import metrics as metric_table
from vps_jax.evaluation.compare import as_tables, compare
from vps_jax.evaluation.plan import keep_videos
from vps_jax.evaluation.protocol import CLASSES, OTHER_SCORES, SCORES, VIDEOS, other_scores
from vps_jax.files import atomic_path, progress_bar
from vps_jax.media import run_state
from vps_jax.media.result_folders import CLASS_FILE, read_classes, read_frames, read_records
from vps_jax.media.sources import open_sources, open_videos
from vps_jax.media.track_tables import read_tracks
from vps_jax.media.video import Frame, Video
from vps_jax.types import PanopticFrame, UserError
from vps_jax.viz import report as pages

MOST_PICTURES = 120  # of a video
MOST_PICTURES_IN_ALL = 3000  # of a page, when nobody asks for more: some 100 MB
WHERE = "name its place with --source, or leave the images out with --no-images"


class Pictures(NamedTuple):
    """What is shown of the frames.

    Attributes:
      sources: where the videos are now, see `media.sources.open_videos`; empty: where predict has read them.
      split: of a data-set root among them.
      images: show them; otherwise colours alone.
      most: pictures per video; None: 120, and fewer where there are many videos.
      side: longest side of a picture in pixels.
    """

    sources: Sequence[str] = ()
    split: str | None = None
    images: bool = True
    most: int | None = None
    side: int = 640

    def check(self) -> None:
        """Raises UserError for numbers that make no picture."""
        if (self.most is not None and self.most < 1) or not 16 <= self.side <= 8192:
            raise UserError(
                f"--max-frames {self.most} --side {self.side}: expected 1 or more pictures of 16 to 8192 pixels"
            )
        if self.sources and not self.images:
            raise UserError(f"--source {self.sources[0]} means nothing with --no-images; leave one of them out")


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
    truth: pathlib.Path | None = None,
    scores: pathlib.Path | None = None,
    before: pathlib.Path | None = None,
    progress: bool = True,
    **scoring,
) -> Summary:
    """Write the page of a run.

    Args:
      folder: result folder of `vps-jax predict` in the format `vipseg`.
      output: the file; None: `report.html` in the folder.
      videos: names of those to show; None: all.
      pictures: what is shown of the frames.
      truth: truth to score the results with.
      scores: json of `vps-jax evaluate` instead of a truth.
      before: results or json to compare the scores with.
      progress: show progress bars.
      scoring: `split`, `metrics`, `windows` and `processes` of `runner.evaluate_folders`.

    Raises:
      UserError: no such results, a source or a truth that does not fit, or a file that cannot be written.
    """
    pictures.check()
    if truth is not None and scores is not None:
        raise UserError(f"both --truth {truth} and --scores {scores}; give one of them")
    if before is not None and truth is None and scores is None:
        raise UserError(f"--compare {before} needs scores; add --truth, or the json of evaluate with --scores")
    listed = None if truth is None else functools.partial(_classes_of_truth, folder, truth, scoring.get("split", "val"))
    result = open_result(folder, videos, listed)
    output = folder / "report.html" if output is None else output
    outputs.check(
        (output,), [*(folder / name for name in ("pred.json", "classes.json")), *map(pathlib.Path, _files(pictures))]
    )
    sources, notes = find_sources(result, pictures)
    scored = score(folder, truth, scores, before, videos=videos, progress=progress, **scoring)
    head = pages.Head(
        title=folder.resolve().name,
        classes=pages.class_rows(result.classes),
        videos=[{"name": name, "frames": len(record["annotations"])} for name, record in result.records.items()],
        notes=[*notes, *scored.notes],
        tables=scored.tables,
        plots=scored.plots,
    )
    frames = sum(row["frames"] for row in head.videos)
    with progress_bar("report", total=frames, show=progress) as advance:
        size = write(output, head, video_pages(result, sources, scored.videos, pictures, advance))
    return Summary(len(head.videos), frames, size, tuple(notes))


def _files(pictures: Pictures) -> list[str]:
    return [source for source in pictures.sources if pathlib.Path(source).is_file()]


def write(output: pathlib.Path, head: pages.Head, videos: Iterator[dict]) -> int:
    """Write the page at once; returns its size in bytes.

    Raises:
      UserError: the disk is full, or the folder gone.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(output.resolve()) as partial:
            with partial.open("w", encoding="utf-8") as file:
                pages.write_page(file, head, videos)
            return partial.stat().st_size
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}); choose another file with --output") from error


def open_result(
    folder: pathlib.Path, videos: Sequence[str] | None, listed: Callable[[], ClassTable] | None = None
) -> Result:
    """The wanted videos of a result folder.

    Args:
      folder: of the results.
      videos: names of the wanted ones; None: all.
      listed: gives the classes of results that have no list of their own, as those of other programs.

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
    classes = listed() if listed and not (folder / CLASS_FILE).exists() else read_classes(folder)
    known = set(classes.official_ids)
    for name in names:
        rows = records[name]["annotations"]
        if not rows:
            raise UserError(f"{folder}: video {name} has no frames; predict it again")
        unknown = {segment["category_id"] for row in rows for segment in row["segments_info"]} - known
        if unknown:
            raise UserError(
                f"{folder}: video {name} has category {min(unknown)}, which its classes do not have; predict it again"
            )
    return Result(folder, {name: records[name] for name in names}, classes)


def _classes_of_truth(folder: pathlib.Path, truth: pathlib.Path, split: str) -> ClassTable:
    return layouts.read(truth, folder, split).classes


def find_sources(result: Result, pictures: Pictures) -> tuple[dict[str, Video], list[str]]:
    """Where the images of the videos are, by name, and a line for those that have none.

    Raises:
      UserError: a source is not there any more, or not among those that were named.
    """
    if not pictures.images:
        return {}, []
    if pictures.sources:
        found = {video.video_id: video for video in open_sources(pictures.sources, split=pictures.split)}
        missing = [name for name in result.records if name not in found]
        if missing:
            raise UserError(
                f"--source has no video named {missing[0]}, but {', '.join(list(found)[:3])}; name it too, or choose "
                "others with --videos"
            )
        return found, []
    origins, opened = _origins(result.folder), functools.lru_cache(maxsize=4)(_opened)
    found = {name: _reopen(name, *origins[name], opened) for name in result.records if name in origins}
    missing = [name for name in result.records if name not in found]
    if not missing:
        return found, []
    some = f"{missing[0]} and {len(missing) - 1} more" if len(missing) > 1 else missing[0]
    return found, [f"no images of {some}: predict did not record where they came from; name it with --source"]


def _origins(folder: pathlib.Path) -> dict[str, list]:
    """What opens the source of each video again, as predict has recorded it."""
    if not (folder / run_state.FOLDER).is_dir():
        return {}
    finished = run_state.RunState(folder).finished()
    return {name: content["origin"] for name, content in finished.items() if content.get("origin")}


def _reopen(name: str, path: str, split: str | None, opened: Callable[[str, str | None], dict]) -> Video:
    if not pathlib.Path(path).exists():
        raise UserError(f"video {name}: its source {path} is not there any more; {WHERE}")
    try:
        return opened(path, split)[name]
    except KeyError:
        raise UserError(f"video {name}: {path} does not have it any more; {WHERE}") from None
    except UserError as error:
        raise UserError(f"video {name}: {error}; or {WHERE}") from None


def _opened(path: str, split: str | None) -> dict[str, Video]:
    """The videos of a source by name; those of a root are opened at once."""
    return {video.video_id: video for video in open_videos(path, split=split)}


def video_pages(
    result: Result, sources: Mapping[str, Video], scores: Mapping[str, list], pictures: Pictures, advance
) -> Iterator[dict[str, Any]]:
    """What the page shows of each video, one after the other."""
    most = most_pictures(pictures.most, len(result.records))
    for name, record in result.records.items():
        source, rows = sources.get(name), read_tracks(result.folder / "tracks", name)
        numbers = {row["segment_id"]: row["track"] for row in rows}
        count = len(record["annotations"])
        chosen = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
        aspect = {} if source is None else {"pixel_aspect": source.pixel_aspect}
        page = pages.VideoPage(count, chosen, side=pictures.side, **aspect)
        look = Looker(source) if source else None
        for position, frame in enumerate(read_frames(result.folder, record, result.classes, numbers)):
            image = look.at(frame) if look and page.wants(position) else None
            page.add(frame, *(() if image is None else (image.image, image.time)))
            advance(name)
        yield page.content(
            name, result.classes, scores={row["track"]: row["mean_score"] for row in rows}, rows=scores.get(name, ())
        )


def most_pictures(wanted: int | None, videos: int) -> int:
    """How many pictures each of so many videos may have."""
    return wanted or min(MOST_PICTURES, max(1, MOST_PICTURES_IN_ALL // videos))


class Looker:
    """Finds the images of a video's frames, which are asked for in order."""

    def __init__(self, video: Video):
        self._video, self._frames = video, video.frames()

    def at(self, frame: PanopticFrame) -> Frame:
        """The image of a frame.

        Raises:
          UserError: the video has no such frame, or one of another size.
        """
        where = f"video {self._video.video_id}: {self._video.source or 'its source'}"
        found = next((one for one in self._frames if one.stem == frame.stem), None)
        if found is None:
            raise UserError(f"{where} has no frame {frame.stem} as the results do; {WHERE}")
        if found.image.shape[:2] != frame.categories.shape:
            sizes = ["x".join(map(str, shape[1::-1])) for shape in (found.image.shape, frame.categories.shape)]
            raise UserError(f"{where} has {sizes[0]} pixels, its results {sizes[1]}; {WHERE}")
        return found


class Scored(NamedTuple):
    """An evaluation as the page shows it: tables, plots, notes, and (name, value) rows by video."""

    tables: list[dict]
    plots: list[dict]
    notes: list[str]
    videos: dict[str, list]


def score(folder: pathlib.Path, truth, scores, before, *, videos, progress: bool, **scoring) -> Scored:
    """The scores of a result folder, and what they are compared with.

    Raises:
      UserError: the truth does not fit, or the two were not scored alike.
    """
    if truth is None and scores is None:
        return Scored([], [], [], {})
    options = {"videos": videos, "progress": progress, **scoring}
    result = runner.result_of(scores or folder, truth, **options)
    found = metric_table.tables(result)
    others = [row for table in found if table.title == OTHER_SCORES for row in table.rows]
    shown = [table for table in found if table.kind == SCORES and table.title != OTHER_SCORES]
    shown += [other_scores(others)] if others else []
    by_kind = {kind: tables.join(found, kind) for kind in (CLASSES, VIDEOS) if any(t.kind == kind for t in found)}
    shown += [table._replace(title=f"Scores of {kind}") for kind, table in by_kind.items()]
    drawn = [pages.table(table, "Scores") for table in shown]
    if before is not None:
        other = runner.result_of(before, truth, **options)
        drawn += [pages.table(table, f"Compared with {before} (A)") for table in as_tables(compare(other, result))]
    names = by_kind[VIDEOS].columns[1:] if VIDEOS in by_kind else ()
    rows = by_kind[VIDEOS].rows if VIDEOS in by_kind else ()
    per_video = {row[0]: list(zip(names, row[1:], strict=True)) for row in rows}
    return Scored(drawn, *_plots(result), per_video)


def _plots(result: Mapping) -> tuple[list[dict], list[str]]:
    """Pictures of a result and the notes that belong to it."""
    notes = list(result["notes"])
    notes += [f"not as the official scripts: {', '.join(result['quirks_off'])}"] if result["quirks_off"] else []
    if (row := tables.leaderboard_row(metric_table.headline(result))) is not None:
        notes.append(f"leaderboard row ({', '.join(tables.LEADERBOARD_COLUMNS)}): {row}")
    if importlib.util.find_spec("matplotlib") is None:
        return [], [*notes, "no plots: they need matplotlib; pip install 'vps-jax[plots]'"]
    return [pages.plot(name.replace("_", " "), png) for name, png in plots.draw(result).items()], notes
