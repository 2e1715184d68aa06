"""Videos in, panoptic videos out: clips, forward passes, stitching, fusion and files, in bounded memory."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax import taxonomy
from vps_jax.infer import video_io, writers
from vps_jax.infer.clip_model import ClipModel, geometry, preprocess
from vps_jax.infer.fusion import PANOPTIC_SCORE, Fuser
from vps_jax.infer.stitching import Stitcher, StitchSettings, split_clips
from vps_jax.types import PanopticFrame, UserError
from vps_jax.viz import overlay as drawing


class Settings(NamedTuple):
    """`config.infer`; the defaults are VIPSeg's published values (spec: tarvis 8.1, 8.3).

    Attributes:
      clip_frames, overlap_frames: length of a clip and its frames in common with the next.
      short_side_px, max_side_px: size of the network's input.
      score_threshold, max_tracks_per_clip, association_iou, instance_overlap: see `stitching.StitchSettings`.
      panoptic_score: a track is painted when its mean score exceeds this, 0..1.
      task, semantic_group: query set of the model; None is its first group.
      taxonomy: class table, `vipseg`.
    """

    clip_frames: int = 12
    overlap_frames: int = 6
    short_side_px: int = 576
    max_side_px: int = 1333
    score_threshold: float = 0.5
    max_tracks_per_clip: int = 1000
    association_iou: float = 0.5
    instance_overlap: str = "earlier"
    panoptic_score: float = PANOPTIC_SCORE
    task: str = "panoptic"
    semantic_group: str | None = None
    taxonomy: str = "vipseg"

    @classmethod
    def from_config(cls, infer: Mapping) -> "Settings":
        """Checked settings from a mapping.

        Raises:
          UserError: an unknown key.
        """
        unknown = sorted(set(infer) - set(cls._fields))
        if unknown:
            raise UserError(f"infer.{unknown[0]}: no such setting; expected one of {', '.join(cls._fields)}")
        return cls(**infer)


class Report(NamedTuple):
    """What a run did: videos, frames, and the compiled programs by shape."""

    videos: int
    frames: int
    programs: dict[str, int]


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
) -> Report:
    """Segment videos and write a VIPSeg result folder, and overlay videos beside it.

    Example:
      model = vps_jax.models.build(config.model)
      predict(["clip.mp4"], model, {"params": ema}, config.infer, "results")

    Args:
      sources: video files, folders of frames, VIPSeg roots.
      model: flax module with `backbone_features` and `decode_features`.
      variables: its parameters.
      settings: mapping of `Settings`.
      out: folder; gets `pan_pred/<video>/<stem>.png`, `pred.json` and `overlay/<video>.mp4`.
      split: split of a VIPSeg root.
      overlay: write the overlay videos.
      progress: show a progress bar on stderr.

    Raises:
      UserError: nothing to read, a damaged frame, `out` cannot be written; nothing half-written is left.
    """
    settings = Settings.from_config(settings)
    categories = taxonomy.categories(settings.taxonomy)
    videos = open_sources(sources, split=split)
    writer = writers.VipsegWriter(pathlib.Path(out), categories=categories)
    clip_model = make_clip_model(model, variables, settings)
    frames = 0
    with _progress_bar(sum(video.num_frames for video in videos), show=progress) as advance:
        for video in videos:
            with writer.video(video.video_id) as result, _overlay(video, settings, out, wanted=overlay) as draw:
                for frame in predict_video(video, clip_model, settings):
                    result.write(frame)
                    draw(frame)
                    advance(video.video_id)
                    frames += 1
    return Report(len(videos), frames, dict(clip_model.programs))


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


def make_clip_model(model, variables: Mapping, settings: Settings) -> ClipModel:
    """The jitted model; keep it for all videos, its programs are compiled once per shape."""
    chunk = max(1, settings.clip_frames - settings.overlap_frames)
    return ClipModel(model, variables, task=settings.task, group=settings.semantic_group, chunk=chunk)


def predict_video(video: video_io.Video, clip_model: Callable, settings: Settings) -> Iterator[PanopticFrame]:
    """Panoptic frames of one video, in order, each as soon as it is final; nothing is written.

    Args:
      video: where the frames come from.
      clip_model: `ClipModel`, or any function (first index, preprocessed frames) -> `ClipPrediction` with `reset`.
      settings: see `Settings`.
    """
    stitcher = Stitcher(StitchSettings.from_config(settings._asdict()))
    things = taxonomy.class_table(settings.taxonomy).thing_ids
    stems: dict[int, str] = {}
    fuser, sizes = None, None
    clip_model.reset()
    frames = _remember_stems(video.frames(), stems)
    try:
        for first, clip in split_clips(
            frames, clip_frames=settings.clip_frames, overlap_frames=settings.overlap_frames
        ):
            if fuser is None:
                sizes = _sizes(clip[0], settings)
                fuser = Fuser(sizes, thing_ids=things, min_score=settings.panoptic_score)
            images = [_prepared(frame, sizes) for frame in clip]
            yield from _named(fuser.add(stitcher.add(first, clip_model(first, images))), stems)
        if fuser is not None:
            yield from _named(fuser.add(stitcher.finish()), stems)
    finally:
        if fuser is not None:
            fuser.close()


def _remember_stems(frames: Iterator[video_io.Frame], stems: dict[int, str]) -> Iterator[video_io.Frame]:
    for index, frame in enumerate(frames):
        stems[index] = frame.stem
        yield frame


def _named(fused, stems: dict[int, str]) -> Iterator[PanopticFrame]:
    for frame in fused:
        yield PanopticFrame(stems.pop(frame.index), frame.categories, frame.track_ids)


def _sizes(frame: video_io.Frame, settings: Settings):
    return geometry(frame.image.shape[:2], short_side=settings.short_side_px, max_side=settings.max_side_px)


def _prepared(frame: video_io.Frame, sizes) -> np.ndarray:
    """Raises UserError when the frame's size is not the video's."""
    if frame.image.shape[:2] != sizes.original:
        found, expected = ("x".join(map(str, size)) for size in (frame.image.shape[:2], sizes.original))
        raise UserError(f"frame {frame.stem} has {found} pixels; expected {expected} as the frames before, resize it")
    return preprocess(frame.image, sizes)


@contextlib.contextmanager
def _overlay(video: video_io.Video, settings: Settings, out, *, wanted: bool):
    """A function that appends a panoptic frame, drawn over its image, to the overlay video.

    The images are decoded a second time, in step with the finished frames: a frame may be final long after it was
    read, and keeping images would need memory that grows with the video.
    """
    if not wanted:
        yield lambda frame: None
        return
    folder = pathlib.Path(out) / "overlay"
    folder.mkdir(exist_ok=True)
    table = taxonomy.class_table(settings.taxonomy)
    images = video.frames()
    with video_io.VideoWriter(folder / f"{video.video_id}.mp4", fps=video.fps) as movie:
        yield lambda frame: movie.write(drawing.overlay(next(images).image, frame, table))


@contextlib.contextmanager
def _progress_bar(total: int, *, show: bool):
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
