"""One video through one model: frames in, panoptic frames out, nothing written and bounded memory."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from vps_jax.infer import video_io
from vps_jax.infer.clip_model import ClipModel, geometry, preprocess
from vps_jax.infer.fusion import Fuser, Geometry
from vps_jax.infer.settings import IMAGE_TASK, Settings
from vps_jax.infer.sliding import SlidingModel
from vps_jax.infer.stitching import Stitched, Stitcher, split_clips
from vps_jax.types import PanopticFrame, UserError


def make_runner(model, variables: Mapping, settings: Settings) -> ClipModel | SlidingModel:
    """The jitted model; keep it for all videos.

    Raises:
      UserError: the model has no such semantic group, or not the classes of `settings.taxonomy`.
    """
    check_classes(model, settings)
    if settings.task == IMAGE_TASK:
        return SlidingModel(model, variables, settings.sliding())
    chunk = max(1, settings.clip_frames - settings.overlap_frames)
    return ClipModel(model, variables, task=settings.task, group=settings.semantic_group, chunk=chunk)


def check_classes(model, settings: Settings) -> None:
    """Raises UserError unless the model's semantic group is there and has as many classes as the class table."""
    groups = dict(getattr(model, "semantic_groups", ()))
    if not groups:
        return
    name = settings.semantic_group or next(iter(groups))
    if name not in groups:
        raise UserError(f"semantic_group={name!r}: the model has {', '.join(groups)}; choose one of them")
    expected = len(settings.classes().names)
    if groups[name] != expected:
        raise UserError(
            f"semantic group {name!r} has {groups[name]} classes; expected the {expected} of taxonomy "
            f"{settings.taxonomy!r}, choose another group or checkpoint"
        )


def predict_video(
    video: video_io.Video, runner: ClipModel | SlidingModel | Callable, settings: Settings
) -> Iterator[PanopticFrame]:
    """Panoptic frames of one video, in order, each as soon as it is final.

    Args:
      video: where the frames come from.
      runner: from `make_runner`, or any function (first index, preprocessed frames) -> `ClipPrediction` with `reset`.
      settings: see `Settings`.

    Raises:
      UserError: a damaged frame, or one of another size.
    """
    if settings.task == IMAGE_TASK:
        return label_frames(video, runner, settings)
    return fuse_frames(video, stitched_clips(video, runner, settings), settings)


def label_frames(video: video_io.Video, model: SlidingModel, settings: Settings) -> Iterator[PanopticFrame]:
    """Frames labelled one by one, each thing class one track."""
    for frame in video.frames():
        labels = model.labels(frame.image)
        yield PanopticFrame(frame.stem, labels, class_tracks(labels, settings))


def class_tracks(categories: np.ndarray, settings: Settings) -> np.ndarray:
    """Track ids int32 of a semantic map: all pixels of a thing class are one track, numbered by the class."""
    is_thing = np.array(settings.classes().is_thing)
    return np.where(is_thing[categories], categories.astype(np.int32) + 1, 0)


def stitched_clips(
    video: video_io.Video, clip_model: Callable, settings: Settings, *, mirrored: bool = False
) -> Iterator[tuple[Geometry, list[str], Stitched]]:
    """Run a clip model over a video.

    Args:
      video, clip_model, settings: as in `predict_video`.
      mirrored: flip every frame horizontally first.

    Yields:
      sizes, names of the frames, and what became final with each clip.
    """
    stitcher, sizes = Stitcher(settings.stitching()), None
    stems: dict[int, str] = {}
    clip_model.reset()

    def prepared(frame: video_io.Frame) -> np.ndarray:
        nonlocal sizes
        size = frame.image.shape[:2]
        sizes = sizes or geometry(size, short_side=settings.short_side_px, max_side=settings.max_side_px)
        if size != sizes.original:
            found, expected = ("x".join(map(str, x)) for x in (size, sizes.original))
            raise UserError(f"frame {frame.stem} has {found} pixels; expected {expected} as the ones before, resize it")
        stems[len(stems)] = frame.stem
        return preprocess(frame.image[:, ::-1] if mirrored else frame.image, sizes)

    frames = map(prepared, video.frames())
    for first, clip in split_clips(frames, clip_frames=settings.clip_frames, overlap_frames=settings.overlap_frames):
        stitched = stitcher.add(first, clip_model(first, clip))
        yield sizes, [stems[frame.index] for frame in stitched.frames], stitched
    if sizes is not None:
        stitched = stitcher.finish()
        yield sizes, [stems[frame.index] for frame in stitched.frames], stitched


def fuse_frames(video: video_io.Video, clips, settings: Settings) -> Iterator[PanopticFrame]:
    """Panoptic frames from what `stitched_clips` yields; without tracks, every class competes (spec: tarvis 8.9)."""
    fuser, stems = None, {}
    things = settings.classes().thing_ids if settings.task == "panoptic" else ()
    try:
        for sizes, names, stitched in clips:
            if fuser is None:
                fuser = Fuser(sizes, thing_ids=things, min_score=settings.panoptic_score)
            stems.update(zip((frame.index for frame in stitched.frames), names, strict=True))
            for frame in fuser.add(stitched):
                tracks = frame.track_ids if things else class_tracks(frame.categories, settings)
                yield PanopticFrame(stems.pop(frame.index), frame.categories, tracks)
    finally:
        if fuser is not None:
            fuser.close()
