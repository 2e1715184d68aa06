"""Videos in, result folder and overlay videos out."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from vps_jax.datasets.classes import ClassTable
from vps_jax.files import progress_bar
from vps_jax.infer.predictor import Predictor
from vps_jax.media import result_folders
from vps_jax.media.background import ahead
from vps_jax.media.movie_writer import MovieWriter
from vps_jax.media.sources import open_sources
from vps_jax.media.video import Video
from vps_jax.types import PanopticFrame
from vps_jax.viz import overlay as drawing

FINISHED_AHEAD = 4  # frames


class Report(NamedTuple):
    """What a run did: videos, frames, and how often each program was compiled, by its shape."""

    videos: int
    frames: int
    programs: dict[str, int]

    def summary(self, out) -> str:
        """One line to print."""
        return f"{self.videos} videos, {self.frames} frames, {len(self.programs)} compiled programs -> {out}"


def predict(
    sources: Sequence[str | pathlib.Path],
    predictor: Predictor,
    classes: ClassTable,
    out: str | pathlib.Path,
    *,
    split: str | None = None,
    overlay: bool = True,
    progress: bool = True,
    layout: str = "vipseg",
) -> Report:
    """Segment videos and write a result folder, and overlay videos beside it.

    Example:
      predictor = make_predictor(config.model, {"params": ema}, config.infer)
      predict(["clip.mp4"], predictor, classes, "results")

    Args:
      sources: video files, folders of frames, VIPSeg or VSPW roots.
      predictor: from `predictor.make_predictor`.
      classes: of the predictor's scores.
      out: folder; gets `pan_pred/<video>/<stem>.png` and `pred.json`, and `overlay/<video>.mp4`.
      split: split of a root.
      overlay: write the overlay videos.
      progress: show a progress bar on stderr.
      layout: `vipseg`, or `vspw` for class maps `<video>/<stem>.png`.

    Raises:
      UserError: nothing to read, a damaged frame, `out` cannot be written; nothing half-written is left.
    """
    videos = open_sources(sources, split=split)
    writer = result_folders.make_writer(out, layout, classes)
    frames = write_videos(
        videos,
        lambda video: predict_video(video, predictor, classes),
        writer,
        classes,
        overlay=overlay,
        progress=progress,
    )
    return Report(len(videos), frames, dict(predictor.programs))


def predict_video(video: Video, predictor: Predictor, classes: ClassTable) -> Iterator[PanopticFrame]:
    """Panoptic frames of one video, in order, each as soon as it is final; nothing is written, memory is bounded.

    Raises:
      UserError: a damaged frame, or one of another size.
    """
    return predictor.fuse(predictor.stream(video), classes)


def write_videos(
    videos: Sequence[Video],
    panoptic_frames: Callable[[Video], Iterator[PanopticFrame]],
    writer,
    classes: ClassTable,
    *,
    overlay: bool,
    progress: bool,
) -> int:
    """Write the frames that `panoptic_frames` gives for each video, as they come; returns their number."""
    count = 0
    with progress_bar("predict", total=sum(video.num_frames for video in videos), show=progress) as advance:
        for video in videos:
            with (
                writer.video(video.video_id) as result,
                overlay_video(video, classes, writer.folder, wanted=overlay) as draw,
            ):
                for frame in ahead(panoptic_frames(video), FINISHED_AHEAD):
                    result.write(frame)
                    draw(frame)
                    advance(video.video_id)
                    count += 1
    return count


@contextlib.contextmanager
def overlay_video(video: Video, classes: ClassTable, out: pathlib.Path, *, wanted: bool):
    """A function that appends a panoptic frame, drawn over its image, to the overlay video.

    The images are decoded a second time, in step with the finished frames: a frame may be final long after it was
    read, and keeping images would need memory that grows with the video.
    """
    if not wanted:
        yield lambda frame: None
        return
    folder = out / "overlay"
    folder.mkdir(exist_ok=True)
    images = video.frames()

    def draw(frame: PanopticFrame) -> None:
        source = next(images)
        movie.write(drawing.overlay(source.image, frame, classes), source.time)

    path = folder / f"{video.video_id}.mp4"
    sound = video.source if video.source is not None and video.source.is_file() else None
    with MovieWriter(path, fps=video.fps, pixel_aspect=video.pixel_aspect, sound=sound) as movie:
        yield draw
