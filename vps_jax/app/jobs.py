"""What visitors of the page ask for: videos through one checkpoint, one run after the other.

Each visit has a folder of its own, which goes when the visit ends. Nothing here knows of gradio.
"""

import concurrent.futures
import pathlib
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from vps_jax.app.frame_archives import unpack
from vps_jax.infer import predict as inference
from vps_jax.media.result_folders import read_records
from vps_jax.media.submission_archive import write_archive
from vps_jax.media.track_tables import read_tracks
from vps_jax.runs.report_files import report
from vps_jax.runs.segmenter import Segmenter
from vps_jax.types import UserError
from vps_jax.viz.overlay import Style

REPORT, ARCHIVE = "report.html", "results.zip"


class Stopped(Exception):
    """Somebody does not want the results any more."""


class Wanted(NamedTuple):
    """What a visitor has chosen.

    Attributes:
      task: one of `inference_request.tasks_of`.
      style: of the overlay.
    """

    task: str
    style: Style = Style()


class Shown(NamedTuple):
    """A video of the results: its name, the name of the file with its overlay, and the rows of its tracks."""

    name: str
    overlay: str
    tracks: list[dict[str, Any]]


class Done(NamedTuple):
    """What a run has made: `run` and the names of files together are what `Jobs.file` takes."""

    run: str
    videos: list[Shown]
    frames: int
    seconds: float
    failed: tuple[str, ...]


class Job:
    """One run: how far it is, a way to stop it, and in the end what it has made."""

    def __init__(self) -> None:
        self.frames, self.total, self.video = 0, None, ""
        self.first: float | None = None  # when its first frame was ready: compilation is over
        self.stop = threading.Event()
        self.future: concurrent.futures.Future[Done]

    def advance(self, frames: int, total: int | None, video: str) -> None:
        """Take note of a finished frame.

        Raises:
          Stopped: `stop` is set.
        """
        if self.stop.is_set():
            raise Stopped
        self.first = self.first or time.monotonic()
        self.frames, self.total, self.video = frames, total, video

    def seconds_left(self) -> float | None:
        """Until the last frame, at the speed after compilation; None where that is not known."""
        if self.total is None or self.first is None or self.frames < 2:
            return None
        return (time.monotonic() - self.first) / (self.frames - 1) * max(0, self.total - self.frames)


class Visit:
    """What belongs to one visitor."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.uploads: set[pathlib.Path] = set()
        self.job: Job | None = None
        self.run = ""  # of the results that are shown


class Jobs:
    """Runs what visitors ask for, in the order in which they ask."""

    def __init__(self, load: Callable[[str], Segmenter], folder: pathlib.Path):
        """Nothing is loaded yet.

        Args:
          load: gives the segmenter of a task.
          folder: for everything that visitors bring and get; uploads are in its folder `uploads`.
        """
        self._load, self._folder = load, folder.resolve()
        self._loaded: tuple[str, Segmenter] | None = None
        self._visits: dict[str | None, Visit] = {}
        self._jobs: list[Job] = []  # in the order in which they run
        self._files: dict[str, dict[str, pathlib.Path]] = {}  # run -> name -> file
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "predict")
        self._lock = threading.Lock()

    def segmenter(self, task: str) -> Segmenter:
        """The segmenter of a task, with its weights; only the last one is held."""
        if self._loaded is None or self._loaded[0] != task:
            self._loaded = None
            self._loaded = task, self._load(task)
        return self._loaded[1]

    def uploaded(self, visitor: str | None, paths: Sequence[str | pathlib.Path]) -> list[pathlib.Path]:
        """Note what a visitor has brought; returns the files.

        Raises:
          UserError: one of them does not lie in the folder of uploads.
        """
        files = [pathlib.Path(path).resolve() for path in paths]
        for file in files:
            if not file.is_relative_to(self._folder / "uploads") or not file.is_file():
                raise UserError(f"{file.name}: was not uploaded here; upload it")
        self._visit(visitor).uploads.update(files)
        return files

    def start(self, visitor: str | None, paths: Sequence[str | pathlib.Path], wanted: Wanted) -> Job:
        """Ask for a run; the visitor's former one is stopped and its results are removed.

        Raises:
          UserError: nothing was uploaded, or see `uploaded`.
        """
        files = self.uploaded(visitor, paths)
        if not files:
            raise UserError("no video was given; upload one")
        visit = self._visit(visitor)
        self.stop(visitor)
        visit.job = job = Job()
        job.future = self._worker.submit(self._run, visit, job, files, wanted)
        with self._lock:
            self._jobs = [*(other for other in self._jobs if not other.future.done()), job]
        return job

    def before(self, job: Job) -> int:
        """How many runs that are not finished come first."""
        jobs = self._jobs
        return sum(not other.future.done() for other in jobs[: jobs.index(job)]) if job in jobs else 0

    def stop(self, visitor: str | None) -> None:
        """Stop a visitor's run, if there is one, at its next frame."""
        visit = self._visits.get(visitor)
        if visit is not None and visit.job is not None:
            visit.job.stop.set()
            visit.job.future.cancel()

    def leave(self, visitor: str | None) -> None:
        """A visit has ended: its run stops and its files are removed."""
        self.stop(visitor)
        visit = self._visits.pop(visitor, None)
        if visit is not None:
            self._worker.submit(self._remove, visit)  # behind its run, which still writes

    def file(self, run: str, name: str) -> pathlib.Path | None:
        """A file of the results, by the names that `Done` has; None for anything else."""
        return self._files.get(run, {}).get(name)

    def close(self) -> None:
        """Stop everything, and wait until the run that goes on has stopped."""
        for visitor in list(self._visits):
            self.stop(visitor)
        self._worker.shutdown()

    def _visit(self, visitor: str | None) -> Visit:
        with self._lock:
            return self._visits.setdefault(visitor, Visit(self._folder / "visits" / secrets.token_hex(8)))

    def _run(self, visit: Visit, job: Job, files: Sequence[pathlib.Path], wanted: Wanted) -> Done:
        self._remove_results(visit)
        visit.run, started = secrets.token_urlsafe(16), time.monotonic()
        try:
            made, videos = self._predict(visit, job, files, wanted)
            if job.stop.is_set():
                raise Stopped
        except BaseException as error:
            self._remove_results(visit)
            if isinstance(error, UserError):
                raise UserError(self._plain(str(error))) from error
            raise
        failed = tuple(self._plain(reason) for _, reason in made.failed)
        return Done(visit.run, videos, made.frames, time.monotonic() - started, failed)

    def _predict(
        self, visit: Visit, job: Job, files: Sequence[pathlib.Path], wanted: Wanted
    ) -> tuple[inference.Report, list[Shown]]:
        folder = visit.folder
        sources = [unpack(file, folder / "frames") if file.suffix.lower() == ".zip" else file for file in files]
        segmenter = self.segmenter(wanted.task)
        out = folder / "results" / (files[0].stem if len(files) == 1 else f"{len(files)} files")
        made = inference.predict(
            sources, segmenter.predictor, segmenter.classes, out, progress=job.advance, keep_going=True, tracks=True,
            style=wanted.style,
        )  # fmt: skip
        if not made.videos:
            raise UserError(made.failed[0][1])
        report(out, progress=False)
        write_archive(out, folder / ARCHIVE, wanted=lambda name: True)
        names = list(read_records(out))
        videos = [Shown(name, f"{i}.mp4", read_tracks(out / "tracks", name)) for i, name in enumerate(names)]
        overlays = {video.overlay: out / "overlay" / f"{video.name}.mp4" for video in videos}
        self._files[visit.run] = {**overlays, REPORT: out / REPORT, ARCHIVE: folder / ARCHIVE}
        return made, videos

    def _plain(self, line: str) -> str:
        """A line without the folders in which files lie here."""
        return re.sub(re.escape(f"{self._folder}/") + r"(?:[^/\s]+/)*", "", line)

    def _remove_results(self, visit: Visit) -> None:
        self._files.pop(visit.run, None)
        shutil.rmtree(visit.folder, ignore_errors=True)

    def _remove(self, visit: Visit) -> None:
        self._remove_results(visit)
        elsewhere = {file for other in list(self._visits.values()) for file in other.uploads}  # same bytes, same file
        for file in visit.uploads - elsewhere:
            file.unlink(missing_ok=True)
