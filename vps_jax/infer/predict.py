"""Videos in, result folder and overlay videos out."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from vps_jax import taxonomy
from vps_jax.infer.segment import make_runner, predict_video
from vps_jax.infer.settings import Settings
from vps_jax.media import video_io, writers
from vps_jax.media.background import ahead
from vps_jax.types import PanopticFrame, UserError
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
    model,
    variables: Mapping,
    settings: Mapping,
    out: str | pathlib.Path,
    *,
    split: str | None = None,
    overlay: bool = True,
    progress: bool = True,
    layout: str = "vipseg",
) -> Report:
    """Segment videos and write a result folder, and overlay videos beside it.

    Example:
      model = vps_jax.models.build(config.model)
      predict(["clip.mp4"], model, {"params": ema}, config.infer, "results")

    Args:
      sources: video files, folders of frames, VIPSeg or VSPW roots.
      model: flax module: TarViS, or Mask2Former when the task is `mask_classification`.
      variables: its parameters.
      settings: mapping of `Settings`.
      out: folder; gets `pan_pred/<video>/<stem>.png` and `pred.json`, and `overlay/<video>.mp4`.
      split: split of a root.
      overlay: write the overlay videos.
      progress: show a progress bar on stderr.
      layout: `vipseg`, or `vspw` for class maps `<video>/<stem>.png`.

    Raises:
      UserError: nothing to read, a damaged frame, `out` cannot be written; nothing half-written is left.
    """
    settings = Settings.from_config(settings)
    videos = open_sources(sources, split=split)
    writer = make_writer(out, layout, settings)
    runner = make_runner(model, variables, settings)
    frames = write_videos(
        videos,
        lambda video: predict_video(video, runner, settings),
        writer,
        settings,
        overlay=overlay,
        progress=progress,
    )
    return Report(len(videos), frames, dict(runner.programs))


def make_writer(out: str | pathlib.Path, layout: str, settings: Settings):
    """The writer of a layout.

    Raises:
      UserError: unknown layout, or `out` cannot be written.
    """
    if layout == "vipseg":
        return writers.VipsegWriter(pathlib.Path(out), categories=taxonomy.categories(settings.taxonomy))
    if layout == "vspw":
        return writers.VspwWriter(pathlib.Path(out))
    raise UserError(f"layout {layout!r}: no such result layout; expected vipseg or vspw")


def write_videos(
    videos: Sequence[video_io.Video],
    segment: Callable[[video_io.Video], Iterator[PanopticFrame]],
    writer,
    settings: Settings,
    *,
    overlay: bool,
    progress: bool,
) -> int:
    """Write the frames that `segment` gives for each video, as they come; returns their number."""
    count = 0
    with progress_bar(sum(video.num_frames for video in videos), show=progress) as advance:
        for video in videos:
            with (
                writer.video(video.video_id) as result,
                overlay_video(video, settings, writer.folder, wanted=overlay) as draw,
            ):
                for frame in ahead(segment(video), FINISHED_AHEAD):
                    result.write(frame)
                    draw(frame)
                    advance(video.video_id)
                    count += 1
    return count


def open_sources(sources: Sequence[str | pathlib.Path], *, split: str | None = None) -> list[video_io.Video]:
    """Videos of all sources.

    Raises:
      UserError: two of them have one name, or as `video_io.open_videos`.
    """
    videos = [video for source in sources for video in video_io.open_videos(source, split=split)]
    names = [video.video_id for video in videos]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two inputs are named {twice[0]!r}; expected one name per result, rename one or run twice")
    return videos


@contextlib.contextmanager
def overlay_video(video: video_io.Video, settings: Settings, out: pathlib.Path, *, wanted: bool):
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
    with video_io.VideoWriter(folder / f"{video.video_id}.mp4", fps=video.fps) as movie:
        yield lambda frame: movie.write(drawing.overlay(next(images).image, frame, settings.classes()))


@contextlib.contextmanager
def progress_bar(total: int, *, show: bool):
    """A function that counts one more frame of a named video."""
    if not show:
        yield lambda name: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        job = bar.add_task("predict", total=total)
        yield lambda name: bar.update(job, advance=1, description=name)
