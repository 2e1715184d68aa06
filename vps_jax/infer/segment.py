"""One video through one model: frames in, panoptic frames out, nothing written and bounded memory."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.infer.clip_model import ClipModel, geometry, preprocess
from vps_jax.infer.fusion import Fuser, Geometry
from vps_jax.infer.settings import IMAGE_TASK, Settings
from vps_jax.infer.sliding import SlidingModel
from vps_jax.infer.stitching import Stitched, Stitcher, split_clips
from vps_jax.media import video_io
from vps_jax.media.background import ahead
from vps_jax.types import PanopticFrame, UserError

DECODED_AHEAD = 4  # frames


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
    runner.reset()
    return fuse_frames(stitched_clips(video, lambda first, clip: (runner(first, clip),), settings), settings)


def label_frames(video: video_io.Video, model: SlidingModel, settings: Settings) -> Iterator[PanopticFrame]:
    """Frames labelled one by one, each thing class one track."""
    for frame in ahead(video.frames(), DECODED_AHEAD):
        labels = model.labels(frame.image)
        yield PanopticFrame(frame.stem, labels, class_tracks(labels, settings))


def class_tracks(categories: np.ndarray, settings: Settings) -> np.ndarray:
    """Track ids int32 of a semantic map: all pixels of a thing class are one track, numbered by the class."""
    is_thing = np.array(settings.classes().is_thing)
    return np.where(is_thing[categories], categories.astype(np.int32) + 1, 0)


class StitchedClip(NamedTuple):
    """What became final with one clip.

    Attributes:
      sizes: of the video.
      stems: names of the finished frames.
      sets: one `Stitched` per query set, with the same frames.
    """

    sizes: Geometry
    stems: list[str]
    sets: tuple[Stitched, ...]


def stitched_clips(
    video: video_io.Video, predict_sets: Callable, settings: Settings, *, num_sets: int = 1, mirrored: bool = False
) -> Iterator[StitchedClip]:
    """Run a clip model over a video and join its clips.

    Args:
      video: where the frames come from.
      predict_sets: (first index, preprocessed frames) -> one `ClipPrediction` per query set.
      settings: see `Settings`.
      num_sets: number of query sets.
      mirrored: flip every frame horizontally first.
    """
    stitchers = [Stitcher(settings.stitching()) for _ in range(num_sets)]
    sizes, stems, index = None, {}, itertools.count()

    def prepared(frame: video_io.Frame) -> np.ndarray:
        nonlocal sizes
        size = frame.image.shape[:2]
        sizes = sizes or geometry(size, short_side=settings.short_side_px, max_side=settings.max_side_px)
        if size != sizes.original:
            found, expected = ("x".join(map(str, x)) for x in (size, sizes.original))
            raise UserError(f"frame {frame.stem} has {found} pixels; expected {expected} as the ones before, resize it")
        stems[next(index)] = frame.stem
        return preprocess(frame.image[:, ::-1] if mirrored else frame.image, sizes)

    def finished(sets: tuple[Stitched, ...]) -> StitchedClip:
        return StitchedClip(sizes, [stems.pop(frame.index) for frame in sets[0].frames], sets)

    waiting = None  # the clip before: the device works on the next one while the host joins this
    frames = map(prepared, ahead(video.frames(), DECODED_AHEAD))
    for first, clip in split_clips(frames, clip_frames=settings.clip_frames, overlap_frames=settings.overlap_frames):
        predictions = predict_sets(first, clip)
        if waiting is not None:
            yield finished(_add(stitchers, *waiting))
        waiting = first, predictions
    if waiting is not None:
        yield finished(_add(stitchers, *waiting))
        yield finished(tuple(stitcher.finish() for stitcher in stitchers))


def _add(stitchers: Sequence[Stitcher], first: int, predictions) -> tuple[Stitched, ...]:
    return tuple(stitcher.add(first, one) for stitcher, one in zip(stitchers, predictions, strict=True))


def fuse_frames(clips: Iterable[StitchedClip], settings: Settings) -> Iterator[PanopticFrame]:
    """Panoptic frames from the first query set of `stitched_clips`.

    A task without tracks lets every class compete (spec: tarvis 8.9).
    """
    fuser, stems = None, {}
    things = settings.classes().thing_ids if settings.task == "panoptic" else ()
    try:
        for clip in clips:
            if fuser is None:
                fuser = Fuser(clip.sizes, thing_ids=things, min_score=settings.panoptic_score)
            stitched = clip.sets[0]
            stems.update(zip((frame.index for frame in stitched.frames), clip.stems, strict=True))
            for frame in fuser.add(stitched):
                tracks = frame.track_ids if things else class_tracks(frame.categories, settings)
                yield PanopticFrame(stems.pop(frame.index), frame.categories, tracks)
    finally:
        if fuser is not None:
            fuser.close()
