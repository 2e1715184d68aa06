"""Videos in, result folder, track tables and overlay videos out."""

import contextlib
import functools
import pathlib
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from vps_jax.datasets.classes import ClassTable
from vps_jax.files import Watcher, progress_bar
from vps_jax.infer.predictor import Predictor
from vps_jax.infer.side_by_side import share
from vps_jax.infer.video_order import VideoOrder
from vps_jax.media import result_folders
from vps_jax.media.background import ahead, until
from vps_jax.media.movie_writer import MovieWriter
from vps_jax.media.run_state import stop_on_sigterm
from vps_jax.media.selection import Selection
from vps_jax.media.sources import open_inputs
from vps_jax.media.track_tables import TrackTables
from vps_jax.media.video import Video
from vps_jax.types import PanopticFrame, UserError
from vps_jax.viz import overlay as drawing

FINISHED_AHEAD = 4  # frames


class Report(NamedTuple):
    """What a run did.

    Attributes:
      videos, frames: written now.
      programs: how often each program was compiled, by its shape.
      skipped: videos that were finished before.
      busy: videos that other processes work on.
      failed: name and reason of videos that could not be read.
    """

    videos: int
    frames: int
    programs: Mapping[str, int] = types.MappingProxyType({})
    skipped: int = 0
    busy: int = 0
    failed: tuple[tuple[str, str], ...] = ()

    def summary(self, out) -> str:
        """What to print: one line; what failed is told apart."""
        rest = [(self.skipped, "were finished before"), (self.busy, "are left to others"), (len(self.failed), "failed")]
        words = "".join(f", {count} {what}" for count, what in rest if count)
        return f"{self.videos} videos, {self.frames} frames, {len(self.programs)} compiled programs{words} -> {out}"


class RunOptions(NamedTuple):
    """What is written, and how a run goes on.

    Attributes:
      overlay: overlay videos.
      style: of the overlay.
      tracks: track tables.
      progress: a progress bar on stderr, or what is told instead: frames done, frames in all or None, and the video.
      made_by: identity of weights and settings; a video that is finished with the same ones is skipped. Empty: none is.
      keep_going: the run has the process to itself: videos that cannot be read are reported at the end, SIGTERM ends
        the run as Ctrl-C does, and programs of a size of frames are forgotten after its last video. Otherwise the first
        video that cannot be read raises its error.
    """

    overlay: bool = True
    tracks: bool = False
    progress: bool | Watcher = True
    made_by: str = ""
    keep_going: bool = False
    style: drawing.Style = drawing.Style()


def predict(
    sources: Sequence[str | pathlib.Path | Video],
    predictor: Predictor | Sequence[Predictor],
    classes: ClassTable,
    out: str | pathlib.Path,
    *,
    split: str | None = None,
    selection: Selection = Selection(),  # noqa: B008  (immutable)
    strict: bool = False,
    overlay: bool = True,
    progress: bool | Watcher = True,
    layout: str = "vipseg",
    made_by: str = "",
    keep_going: bool = False,
    tracks: bool = False,
    style: drawing.Style = drawing.Style(),  # noqa: B008  (immutable)
    show: Callable[[list[Video]], list[Video]] | None = None,
) -> Report:
    """Segment videos and write a result folder, and overlay videos beside it.

    Example:
      predictor = make_predictor(config.model, {"params": ema}, config.infer)
      predict(["clip.mp4"], predictor, classes, "results")

    Args:
      sources: see `media.sources.open_videos`, or videos that are open.
      predictor: from `predictor.make_predictor`; several, such as one per device, work on several videos at a time.
      classes: class list of the predictor's scores.
      out: folder; gets `pan_pred/<video>/<stem>.png` and `pred.json`, and `overlay/<video>.mp4`.
      split: split that is predicted, if a source is the root of a data set.
      selection: which frames of each video.
      strict: refuse videos with damaged frames.
      overlay, progress, made_by, keep_going, tracks, style: see `RunOptions`.
      show: gives the videos the objects that are to be followed in them, see `media.given_objects`.
      layout: form of the results, see `media.result_folders.make_writer`.

    Raises:
      UserError: nothing to read, a damaged frame, `out` cannot be written; nothing half-written is left.
    """
    videos, failed = open_inputs(sources, split=split, selection=selection, strict=strict, keep_going=keep_going)
    videos = videos if show is None else show(videos)
    check_outside(videos, pathlib.Path(out))
    drawing.chosen_ids(style, classes)
    writer = result_folders.make_writer(out, layout, classes)
    run = Run(writer, classes, RunOptions(overlay, tracks, progress, made_by, keep_going, style))
    predictors = predictor if isinstance(predictor, Sequence) else [predictor]
    order = VideoOrder(getattr(predictors[0], "network_size", None))
    frames = [functools.partial(predict_video, predictor=one, classes=classes) for one in predictors]
    if keep_going and len(frames) == 1:  # several work on several sizes at a time
        frames = [order.forgetting(frames[0])]
    report = run.write(videos, frames, taken=order.sorted(videos))
    programs = {name: count for one in predictors for name, count in one.programs.items()}
    return report._replace(programs=programs, failed=(*failed, *report.failed))


def predict_video(video: Video, predictor: Predictor, classes: ClassTable) -> Iterator[PanopticFrame]:
    """Panoptic frames of one video, in order, each as soon as it is final; nothing is written, memory is bounded.

    Raises:
      UserError: a damaged frame, or one of another size.
    """
    return predictor.fuse(ahead(predictor.stream(video), 1), classes)


def check_outside(videos: Sequence[Video], out: pathlib.Path) -> None:
    """Raises UserError for an input that lies in the output folder, where it would be written over."""
    for video in videos:
        if video.source is not None and out.resolve() in video.source.resolve().parents:
            raise UserError(f"{video.source}: lies in the output folder {out}; expected one outside, choose another")


class Outcome(NamedTuple):
    """What became of a video: `frames` were written, or it was finished before, or it failed."""

    video_id: str
    frames: int = 0
    skipped: bool = False
    failure: str = ""


class Course(NamedTuple):
    """What the videos of a run share: their order, the progress bar, and whether they are to end early."""

    order: Sequence[str]
    advance: Callable[..., None]
    stopped: threading.Event


class Run:
    """Writes the results of several videos into one folder, which other processes may share."""

    def __init__(self, writer, classes: ClassTable, options: RunOptions):
        """Checks that the folders can be written.

        Raises:
          UserError: they cannot.
        """
        self._writer, self._classes, self._options = writer, classes, options
        for name, wanted in (("overlay", options.overlay), ("tracks", options.tracks)):
            if wanted:
                result_folders.make_writable(writer.folder / name)

    def write(
        self, videos: Sequence[Video], sources: Sequence[Callable[[Video], Iterator[PanopticFrame]]], *,
        taken: Sequence[Video] | None = None,
    ) -> Report:  # fmt: skip
        """Write the frames of each video, as they come.

        Videos on which another process works are asked for again after the others, and left when all of them are and
        their processes are known to live.

        Args:
          videos: to be written.
          sources: give the frames of a video; each works on one video at a time, side by side with the others.
          taken: the videos in the order in which they are worked on; by default as they are.

        Raises:
          UserError: a video has the name of a folder that is needed for something else; a video cannot be read and
            the run does not keep going, or results cannot be written any more.
          KeyboardInterrupt: with what is finished, and how to go on.
        """
        result_folders.check_places(self._writer, (video.video_id for video in videos))
        waiting, order, tried = list(taken or videos), [video.video_id for video in videos], []
        total = sum(video.num_frames for video in videos)
        try:
            with (
                stop_on_sigterm(self._options.keep_going),
                progress_bar("predict", total=total or None, show=self._options.progress) as advance,
            ):
                course = Course(order, advance, threading.Event())
                workers = [
                    functools.partial(self._try_video, frames=one, course=course, tried=tried) for one in sources
                ]
                while waiting:
                    ours = share(waiting, workers, course.stopped)
                    busy = [video for video, done in zip(waiting, ours, strict=True) if not done]
                    if len(busy) == len(waiting) and not self._writer.state.wait_for_unknown(v.video_id for v in busy):
                        break
                    waiting = busy
                if any(one.skipped for one in tried):  # a process may have died between finishing one and listing it
                    with result_folders.writing(self._writer.folder):
                        self._writer.list_finished(order)
        except KeyboardInterrupt as stop:
            done = sum(not one.failure for one in tried)
            raise KeyboardInterrupt(
                f"{done} of {len(videos)} videos are finished in {self._writer.folder}; run the same again to go on"
            ) from stop
        written = [one for one in tried if not (one.skipped or one.failure)]
        failed = sorted((one for one in tried if one.failure), key=lambda one: order.index(one.video_id))
        return Report(
            len(written), sum(one.frames for one in written), skipped=sum(one.skipped for one in tried),
            busy=len(waiting), failed=tuple((one.video_id, one.failure) for one in failed),
        )  # fmt: skip

    def _try_video(self, video: Video, *, frames, course: "Course", tried: list["Outcome"]) -> bool:
        """Write a video unless it is finished; False if another process works on it."""
        name, folder = video.video_id, self._writer.folder
        with result_folders.writing(folder), self._writer.state.claim(name) as ours:
            if not ours:
                return False
            if self._is_finished(video):
                tried.append(Outcome(name, skipped=True))
                return True
            try:
                tried.append(Outcome(name, self._write_video(video, frames, course)))
            except result_folders.WriteError:
                raise
            except UserError as error:
                if not self._options.keep_going:
                    raise
                tried.append(Outcome(name, failure=str(error)))
        return True

    def _made_by(self, video: Video) -> str:
        source = video.fingerprint() if self._options.made_by else ""
        return f"{self._options.made_by} of {source}" if source else ""

    def _is_finished(self, video: Video) -> bool:
        made_by, name, folder = self._made_by(video), video.video_id, self._writer.folder
        expected = [self._writer.place(name)]
        expected += [folder / "overlay" / f"{name}.mp4"] if self._options.overlay else []
        expected += [folder / "tracks" / f"{name}.json"] if self._options.tracks else []
        record = self._writer.state.content(name) if name in self._writer.state.finished() else {}
        return bool(made_by) and record.get("made_by") == made_by and all(path.exists() for path in expected)

    def _write_video(self, video: Video, frames: Callable, course: "Course") -> int:
        tables, stopped = TrackTables(self._classes), threading.Event()
        seen = video._replace(frames=lambda: until(stopped, video.frames()))  # its frames may wait for its end
        with (
            self._writer.video(
                video.video_id,
                made_by=self._made_by(video),
                origin=video.origin,
                order=course.order,
                number=video.number,
            ) as result,
            overlay_video(video, self._classes, self._writer.folder, self._options) as draw,
        ):

            def written() -> Iterator[tuple[PanopticFrame, bool]]:
                """The frames, and whether they are among the results; those are written."""
                for frame in ahead(frames(seen), FINISHED_AHEAD):
                    asked = video.results is None or frame.stem in video.results
                    if asked:
                        result.write(frame)
                    if asked and self._options.tracks:
                        tables.add(frame)
                    yield frame, asked

            count = 0
            for frame, asked in ahead(written(), FINISHED_AHEAD, stopped):  # files and movie are written side by side
                if course.stopped.is_set():
                    raise KeyboardInterrupt
                draw(frame)
                course.advance(video.video_id)
                count += asked
            if self._options.tracks:
                tables.write(self._writer.folder / "tracks", video.video_id, result.segment_id)
        return count


@contextlib.contextmanager
def overlay_video(video: Video, classes: ClassTable, out: pathlib.Path, options: RunOptions):
    """A function that appends a panoptic frame, drawn over its image, to the overlay video.

    The images are decoded a second time, in step with the finished frames: a frame may be final long after it was
    read, and keeping images would need memory that grows with the video.
    """
    if not options.overlay:
        yield lambda frame: None
        return
    images = video.frames()

    def draw(frame: PanopticFrame) -> None:
        source = next(images)
        movie.write(drawing.overlay(source.image, frame, classes, options.style), source.time)

    path = out / "overlay" / f"{video.video_id}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = video.source if video.source is not None and video.source.is_file() else None
    with MovieWriter(path, fps=video.fps, pixel_aspect=video.pixel_aspect, sound=sound) as movie:
        yield draw
