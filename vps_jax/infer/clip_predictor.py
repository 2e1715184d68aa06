"""TarViS on a video: overlapping clips through the model, joined by a stitcher (spec: tarvis 8)."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.config import ClipInference
from vps_jax.datasets.classes import ClassTable
from vps_jax.infer.clip_model import ClipModel, geometry, preprocess
from vps_jax.infer.fusion import fuse_frames
from vps_jax.infer.instances import fuse_instances
from vps_jax.infer.object_clips import followed_objects, fuse_objects
from vps_jax.infer.predictor import DECODED_AHEAD, Network
from vps_jax.infer.score_maps import GridScores
from vps_jax.infer.stitching import Stitched, Stitcher, split_clips
from vps_jax.media.background import ahead
from vps_jax.media.video import Video, frames_of_one_size
from vps_jax.types import FrameScores, FrameTracks, Geometry, PanopticFrame, UserError

WITH_TRACKS = ("panoptic", "instance")


class ClipPredictor:
    """See `predictor.SetPredictor`."""

    kind = "logits"
    final_identities = False  # a track's class is the mean over all its clips

    def __init__(self, module, variables: Mapping, infer: ClipInference, *, also: Sequence[ClipInference] = ()):
        self._infer = infer
        self._sets = (infer, *also)
        self._model = ClipModel(
            module,
            variables,
            [(one.task, one.semantic_group) for one in self._sets],
            chunk=max(1, infer.clip_frames - infer.overlap_frames),
        )

    @staticmethod
    def check(module, infer: ClipInference) -> None:
        """Raises UserError for video object segmentation by a model that cannot be shown objects."""
        if infer.task == "vos" and not getattr(module, "vos", False):
            raise UserError(
                "infer.task='vos': the model cannot be shown objects; expected one with config.model.vos=True"
            )

    @staticmethod
    def grid(infer: ClipInference, original: tuple[int, int]) -> Geometry:
        """Sizes of frames of `original` (height, width) pixels as the network sees them."""
        return geometry(original, short_side=infer.short_side_px, max_side=infer.max_side_px)

    @property
    def programs(self) -> dict[str, int]:
        """How often each program was compiled in this process, by its name and shape (frames x height x width)."""
        return self._model.programs

    def network_size(self, original: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the network's frames for frames of `original` (height, width) pixels."""
        return self.grid(self._infer, original).padded

    def network(self, original: tuple[int, int]) -> Network:
        """See `predictor.Network`: the scores of one clip. Raises UserError for a task that needs objects."""
        if self._infer.task == "vos":
            raise UserError("task='vos': its network needs the objects of each video; choose another task to export")
        return self._model.network(self.grid(self._infer, original), self._infer.clip_frames)

    def stream(self, video: Video) -> Iterator[FrameScores]:
        """Scores of the frames, in order, as soon as no clip can change them."""
        for frames in self.stream_sets(video):
            yield frames[0]

    def stream_sets(self, video: Video) -> Iterator[tuple[FrameScores, ...]]:
        """As `stream`, for every query set."""
        if self._infer.task == "vos":
            for frame in followed_objects(video, self._model.fresh(), self._infer):
                yield (frame,)
            return
        for clip in stitched_clips(video, self._model.fresh().predict_sets, self._infer, num_sets=len(self._sets)):
            for t in range(len(clip.stems)):
                yield tuple(frame_scores(clip, i, t, task=one.task) for i, one in enumerate(self._sets))

    def fuse(self, frames: Iterable[FrameScores], classes: ClassTable) -> Iterator[PanopticFrame]:
        """Panoptic frames by the rule of the task; without tracks, every pixel has its best class."""
        if self._infer.task == "vos":
            return fuse_objects(frames)
        if self._infer.task == "instance":
            return fuse_instances(frames, classes, most=self._infer.max_instances)
        return fuse_frames(frames, classes, min_score=self._infer.panoptic_score)


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


def frame_scores(clip: StitchedClip, i: int, t: int, *, task: str) -> FrameScores:
    """Frame `t` of query set `i`; tracks close with the last frame of a clip."""
    stitched = clip.sets[i]
    frame, is_last = stitched.frames[t], t == len(clip.stems) - 1
    semantic = frame.semantic[1:] if task == "instance" else frame.semantic  # without the background
    tracks = FrameTracks(frame.track_ids, frame.instance_masks, stitched.closed if is_last else ())
    scores = GridScores(semantic, clip.sizes)
    return FrameScores(clip.stems[t], clip.sizes, scores, tracks if task in WITH_TRACKS else None)


def stitched_clips(
    video: Video, predict_sets: Callable, infer: ClipInference, *, num_sets: int = 1
) -> Iterator[StitchedClip]:
    """Run a clip model over a video and join its clips.

    Args:
      video: where the frames come from.
      predict_sets: (first index, preprocessed frames) -> one `ClipPrediction` per query set.
      infer: sizes, clips, and how they are joined.
      num_sets: number of query sets.
    """
    stitchers = [Stitcher(infer) for _ in range(num_sets)]
    sizes, stems, index = None, {}, itertools.count()

    def prepared(frame) -> np.ndarray:
        nonlocal sizes
        sizes = sizes or ClipPredictor.grid(infer, frame.image.shape[:2])
        stems[next(index)] = frame.stem
        return preprocess(frame.image, sizes)

    def finished(sets: tuple[Stitched, ...]) -> StitchedClip:
        return StitchedClip(sizes, [stems.pop(frame.index) for frame in sets[0].frames], sets)

    waiting = None  # the clip before: the device works on the next one while the host joins this
    frames = map(prepared, ahead(frames_of_one_size(video), DECODED_AHEAD))
    for first, clip in split_clips(frames, clip_frames=infer.clip_frames, overlap_frames=infer.overlap_frames):
        predictions = predict_sets(first, clip)
        if waiting is not None:
            yield finished(_add(stitchers, *waiting))
        waiting = first, predictions
    if waiting is not None:
        yield finished(_add(stitchers, *waiting))
        yield finished(tuple(stitcher.finish() for stitcher in stitchers))


def _add(stitchers: Sequence[Stitcher], first: int, predictions) -> tuple[Stitched, ...]:
    return tuple(stitcher.add(first, one) for stitcher, one in zip(stitchers, predictions, strict=True))
