"""Video object segmentation: given objects followed from clip to clip (spec: tarvis 8.8).

The first clip that sees an object starts from what the user gave; later ones start from the masks that were predicted
on the frames that two clips share. So the clips of a video run one after the other.
"""

import collections
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from vps_jax.config import ClipInference
from vps_jax.infer.clip_model import ClipModel, geometry, preprocess
from vps_jax.infer.predictor import DECODED_AHEAD
from vps_jax.infer.score_maps import GridScores
from vps_jax.infer.stitching import split_clips
from vps_jax.infer.upsampling import EXCLUDED
from vps_jax.media.background import ahead
from vps_jax.media.video import Video, frames_of_one_size
from vps_jax.ops.resize import resize
from vps_jax.shapes import Bool, Float
from vps_jax.types import FrameScores, FrameTracks, Geometry, GivenObject, PanopticFrame, UserError

STRIDE = 4  # of the logits, from the padded frame
UNKNOWN = 255  # category of a pixel that no object has
MOST_OBJECTS = 254


def followed_objects(video: Video, model: ClipModel, infer: ClipInference) -> Iterator[FrameScores]:
    """Scores of the frames of a video, in order, for the objects that it comes with.

    The classes of the scores are the background, which is 0 everywhere, and the objects in the order of their ids. An
    object has `EXCLUDED` before its first frame and after it is lost.

    Raises:
      UserError: no objects are given, or a frame in which one is shown does not come.
    """
    objects = given_objects(video)
    begins, stems, count, follower = {one.stem: None for one in objects}, collections.deque(), itertools.count(), None

    def prepared(frame) -> np.ndarray:
        nonlocal follower
        if follower is None:
            sizes = geometry(frame.image.shape[:2], short_side=infer.short_side_px, max_side=infer.max_side_px)
            follower = Follower(model, objects, sizes)
        stems.append(frame.stem)
        index = next(count)
        if frame.stem in begins:
            begins[frame.stem] = index
        return preprocess(frame.image, follower.sizes)

    frames = map(prepared, ahead(frames_of_one_size(video), DECODED_AHEAD))
    for first, clip in split_clips(frames, clip_frames=infer.clip_frames, overlap_frames=infer.overlap_frames):
        for logits in follower.follow(first, clip, begins):
            yield object_scores(stems.popleft(), logits, objects, follower.sizes)
    late = [one for one in objects if begins[one.stem] is None]
    if late:
        raise UserError(f"video {video.video_id}: no frame {late[0].stem}, where object {late[0].object_id} is shown")


def given_objects(video: Video) -> list[GivenObject]:
    """The objects of a video, by their ids.

    Raises:
      UserError: there are none, or more than a result can tell apart.
    """
    objects = sorted(video.objects() if video.objects else (), key=lambda one: one.object_id)
    if not objects:
        raise UserError(f"video {video.video_id}: no objects to follow; give their first masks or points")
    if len(objects) > MOST_OBJECTS:
        raise UserError(f"video {video.video_id}: {len(objects)} objects; expected at most {MOST_OBJECTS}")
    return objects


class Follower:
    """Runs the clips of one video and remembers the masks of the frames that the next one shares."""

    def __init__(self, model: ClipModel, objects: Sequence[GivenObject], sizes: Geometry):
        self.sizes = sizes
        self._model = model
        self._objects = objects
        self._before: tuple[int, np.ndarray] = (0, np.zeros((len(objects), 0, 1, 1), np.float32))

    def follow(
        self, first: int, images: Sequence[np.ndarray], begins: Mapping[str, int | None]
    ) -> Iterator[np.ndarray]:
        """Run the next clip.

        Args:
          first: index of its first frame in the video.
          images: its preprocessed frames.
          begins: index of the frames in which objects are shown, by their names; None of those that are to come.

        Yields:
          logits float32 `[n, h4, w4]` of all objects, for each frame that no clip before has given.
        """
        height, width = (side // STRIDE for side in self.sizes.padded)
        logits = np.full((len(self._objects), len(images), height, width), EXCLUDED, np.float32)
        places = [begins[one.stem] for one in self._objects]
        places = [len(images) if place is None else place - first for place in places]
        start, known = self._before
        before, end = known[:, first - start :], start + known.shape[1]
        shown = exemplars(self._objects, places, before, self.sizes, frames=len(images))
        if shown is not None:
            predictions = self._model.predict_objects(first, images, shown.arrays)
            for row, one in zip(shown.rows, predictions, strict=True):
                logits[row, max(0, places[row]) :] = one[max(0, places[row]) :]
        self._before = first, logits
        yield from np.moveaxis(logits[:, max(0, end - first) :], 1, 0)


class Exemplars(NamedTuple):
    """What a clip is shown: rows of the objects, in the order of the model's results, and the model's arrays."""

    rows: tuple[int, ...]
    arrays: Mapping[str, Any]


def exemplars(
    objects: Sequence[GivenObject], begins: Sequence[int], before: np.ndarray, sizes: Geometry, *, frames: int
) -> Exemplars | None:
    """The objects of a clip, as `models.object_encoder.ObjectEncoder` takes them.

    Objects that entered before are seen on all shared frames, by the masks predicted there and by the given mask on
    their own frame; those whose masks are empty are lost. New ones are seen on their own frame.

    Args:
      objects: of the video.
      begins: first frame of each, counted from the first of this clip; negative for those that entered before it.
      before: logits float32 `[n, s, h4, w4]` of the clip before on the `s` frames that both share.
      sizes: of the video.
      frames: length of the clip.

    Returns:
      None if no object is in the clip, or not any more.
    """
    shared, given = before.shape[1], {}
    for row, one in enumerate(objects):
        if begins[row] < frames and one.mask is not None:
            given[row] = {begins[row]: padded_mask(one.mask, sizes)} if begins[row] >= 0 else {}
    known = [row for row in range(len(objects)) if begins[row] < shared]
    predicted = predicted_masks(before[known], sizes.padded) if shared and known else []
    seen = {row: dict(enumerate(masks)) | given.get(row, {}) for row, masks in zip(known, predicted, strict=False)}
    seen = {row: masks for row, masks in seen.items() if any(mask.any() for mask in masks.values())}
    seen |= {row: masks for row, masks in given.items() if begins[row] >= shared}
    by_point = [row for row, one in enumerate(objects) if one.mask is None and shared <= begins[row] < frames]
    if not seen and not by_point:
        return None
    references = sorted({frame for masks in seen.values() for frame in masks} | {begins[row] for row in by_point})
    shown = np.zeros((1, len(seen), len(references), *sizes.padded), bool)
    for i, masks in enumerate(seen.values()):
        for frame, mask in masks.items():
            shown[0, i, references.index(frame)] = mask
    arrays = {"frames": np.array([references], np.int32), "masks": shown}
    if by_point:
        scale = np.array(sizes.resized) / np.array(sizes.padded)
        arrays["points"] = np.array([[objects[row].point * scale for row in by_point]], np.float32)
        arrays["point_frames"] = np.array([[begins[row] for row in by_point]], np.int32)
    return Exemplars((*seen, *by_point), arrays)


def padded_mask(mask: Bool[np.ndarray, "h w"], sizes: Geometry) -> Bool[np.ndarray, "ph pw"]:
    """A mask bool `[h, w]` of the original size on the padded frame; one that would vanish keeps what it touches."""
    (height, width), out = sizes.resized, np.zeros(sizes.padded, bool)
    values = mask.astype(np.float32)
    resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    if not resized.any():
        resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA) > 0
    out[:height, :width] = resized
    return out


def predicted_masks(
    logits: Float[np.ndarray, "n s h4 w4"], size: tuple[int, int]
) -> Bool[np.ndarray, "n s {size[0]} {size[1]}"]:
    """Masks bool `[n, s, h, w]` on the whole padded frame of logits `[n, s, h4, w4]`: above 0 once enlarged."""
    return np.asarray(_enlarged(logits, size))


@functools.partial(jax.jit, static_argnames="size")
def _enlarged(logits, size):
    return resize(logits[..., None], size)[..., 0] > 0


def object_scores(
    stem: str, logits: Float[np.ndarray, "n h4 w4"], objects: Sequence[GivenObject], sizes: Geometry
) -> FrameScores:
    """One frame from the logits `[n, h4, w4]` of all objects, with a background of zeros before them."""
    scores = np.concatenate([np.zeros_like(logits[:1]), logits])
    ids = np.array([one.object_id for one in objects], np.int32)
    return FrameScores(stem, sizes, GridScores(scores, sizes), FrameTracks(ids, scores[1:]))


def fuse_objects(frames: Iterable[FrameScores]) -> Iterator[PanopticFrame]:
    """Frames whose tracks are the given objects: the best one where its score is above 0 (spec: tarvis 8.8)."""
    for frame in frames:
        labels = frame.scores.labels()
        ids = np.concatenate([[0], np.asarray(frame.tracks.ids)]).astype(np.int32)
        yield PanopticFrame(frame.stem, np.where(labels > 0, 0, UNKNOWN).astype(np.uint8), ids[labels])
