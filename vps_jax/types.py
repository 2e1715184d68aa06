"""Containers that pass between the packages, and the axis letters used everywhere.

Axis letters: `b` batch, `t` frames, `h w` pixels (`h4 w4` at stride 4), `c` channels, `q` queries, `k` classes,
`n` padded instances, `p` sampled points, `l` feature levels, `d` prediction sets (initial queries and one per
decoder layer), `m` heads, `s` flattened tokens. Layout is `[b, t, h, w, c]`.

All containers are NamedTuples: pytrees for jax without importing it. Class ids are 0-based and in the official order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

Array = Any  # numpy or jax array: this file imports neither

IGNORE = -1  # semantic label of a pixel that takes no part in losses
LAST_ID = 65535  # of the id map of a clip; combinations of overlapping instances count down from here


class Clip(NamedTuple):
    """One training clip, or a batch of them with a leading `b`.

    The id map is the only per-pixel label. Its values, for `n` = `len(instance_classes)` and `k` classes:
    0 is void (unlabelled pixels and padding), `1 + i` with `i < n` is instance `i`, and `1 + n + c` is a pixel of class
    `c` that belongs to no instance (stuff, or a thing beyond the padded table). Where masks may overlap, `LAST_ID - j`
    is a pixel of all instances with `overlaps[j]`.

    Attributes:
      images: uint8 `[t, h, w, 3]`, RGB 0..255, padded right and bottom with 128.
      ids: uint16 `[t, h, w]`.
      instance_classes: int32 `[n]`, class of each instance, -1 for an empty row.
      overlaps: bool `[m, n]`, combinations of instances; None for a data set whose masks do not overlap.
      reference: int32 scalar, the frame in which the objects of a VOS clip are given; None: the first.
    """

    images: Array
    ids: Array
    instance_classes: Array
    overlaps: Array | None = None
    reference: Array | None = None


class Targets(NamedTuple):
    """What the losses of a task compare with, made on the device from the id map of a `Clip`.

    Attributes:
      instance_ids: int32 `[b, t, h, w]`; 0 no instance, `1 + i` instance `i` of the table.
      instance_classes: int32 `[b, n]`; class in the task's own class list, -1 for an empty row.
      semantic: int32 `[b, t, h, w]`; class in the task's own class list, `IGNORE` where it takes no part.
      overlaps: bool `[b, 1 + n + m, n + 1]` or None; pixels of instance id `j` belong to all rows with
        `overlaps[:, j]`, the last of which is the background, see `losses.mask_losses.Objects`. None: id `1 + i` is row
        `i` alone.
    """

    instance_ids: Array
    instance_classes: Array
    semantic: Array
    overlaps: Array | None = None


class QueryOutputs(NamedTuple):
    """What a query decoder predicts, with masks left factored: logits are `<mask_features, mask_embeds>`.

    Nothing of the size sets x queries x frames x h4 x w4 is ever held; losses and inference multiply what they need.

    Attributes:
      mask_features: `[b, t, h4, w4, c]`.
      mask_embeds: group name -> `[d, b, q_group, c]`, last set is the final prediction. Groups: `instance`,
        `background`, `semantic` (TarViS), `background_vos`, `vos` (TarViS on VOS), `object` (Mask2Former).
      class_logits: `[d, b, q, 1 + k]` with background first (TarViS), `[d, b, q, k + 1]` with no-object last
        (Mask2Former), or None for a task without classes.
      queries: `[d, b, q, c]`, all groups in order along q, before the decoder norm.
    """

    mask_features: Array
    mask_embeds: dict[str, Array]
    class_logits: Array | None
    queries: Array


class FrameQueryOutputs(NamedTuple):
    """What queries that go from frame to frame predict (VidEoMT): every set and frame has features and vectors of its
    own, and mask logits are their dot product.

    Attributes:
      mask_features: `[d, b, t, h4, w4, c]`, of the frame filled up to multiples of 32.
      mask_embeds: `[d, b, t, q, c]`.
      class_logits: `[d, b, t, q, k + 1]` with no-object last.
      queries: `[b, q, c]` for the frame that follows.
    """

    mask_features: Array
    mask_embeds: Array
    class_logits: Array
    queries: Array


class TrainBatch(NamedTuple):
    """One step's clips: one task, one data set, one shape.

    Attributes:
      task: `panoptic`, `semantic`, `instance` or `vos`.
      dataset: name of the data set in the config, which picks class list and query group.
      clip: `Clip` of numpy arrays with leading `b`.
      records: one string per sample, `video/first_stem..last_stem`, named when a loss is not finite.
      broken: a line for each stored frame that could not be read; another clip stands in its place.
    """

    task: str
    dataset: str
    clip: Clip
    records: tuple[str, ...]
    broken: tuple[str, ...] = ()


class ClipPrediction(NamedTuple):
    """Raw scores of one clip at stride 4 of the padded input, numpy float32, from the last prediction set.

    Attributes:
      instance_masks: logits `[q, t, h4, w4]`, or None.
      instance_classes: logits `[q, 1 + k]` with background first, or None. VidEoMT: `[t, q, k + 1]` of every frame with
        no-object last.
      semantic: logits `[k, t, h4, w4]`.
    """

    instance_masks: Array | None
    instance_classes: Array | None
    semantic: Array


class Geometry(NamedTuple):
    """Heights and widths in pixels of one video: `padded` (multiples of 4) and `resized` as the network sees it, with
    and without padding, and `original`, the size of the result. Scores at stride 4 have `padded / 4` cells."""

    padded: tuple[int, int]
    resized: tuple[int, int]
    original: tuple[int, int]


class ClosedTrack(NamedTuple):
    """A track that cannot grow any more, with the plain mean `[1 + k]` of its class logits, background first."""

    track_id: int
    class_logits: Array


class FrameTracks(NamedTuple):
    """The things of one frame.

    Attributes:
      ids: int32 `[n]`, positive, one identity through the video each; in no particular order.
      masks: float32 logits `[n, h4, w4]` at stride 4 of the padded input.
      closed: tracks whose class is final from this frame on. A track is in a frame's `ids` only until the frame after
        which it is closed, or until the next frame that closes any.
    """

    ids: Array
    masks: Array
    closed: Sequence[ClosedTrack] = ()


class ScoreMap(Protocol):
    """Class scores of one frame, `num_classes` classes, on whatever grid they were made."""

    num_classes: int

    def labels(self, classes: Sequence[int] | None = None) -> Array:
        """Best of the ascending `classes` (None: of all) per pixel: uint8 `[h, w]` at the original size."""

    def on_grid(self, sizes: Geometry, classes: Sequence[int]) -> Array:
        """Scores of `classes` on the stride-4 grid of `sizes`: float32 `[len(classes), h4, w4]`."""


class FrameScores(NamedTuple):
    """What a model says of one frame of a video; final, apart from the class of tracks that are not closed.

    Attributes:
      stem: name of the frame without suffix.
      sizes: of the video as the model saw it.
      scores: of all classes.
      tracks: None from a model that knows no identities.
    """

    stem: str
    sizes: Geometry
    scores: ScoreMap
    tracks: FrameTracks | None = None


class GivenObject(NamedTuple):
    """An object that is to be followed, as the user shows it in one frame.

    Attributes:
      object_id: its id in the results, from 1.
      stem: name of the frame.
      mask: bool `[h, w]` of the frame's own size, or None.
      point: float `[2]`, (y, x) in 0..1 of the frame, in place of a mask.
    """

    object_id: int
    stem: str
    mask: Array | None = None
    point: Array | None = None


class InstanceMask(NamedTuple):
    """One class that a track may be of, in one frame: masks bool `[h, w]` of different classes may overlap.

    A track comes once for each of its likely classes; `score`, 0..1, is that of the class over the whole video.
    """

    track_id: int
    category: int
    score: float
    mask: Array


class PanopticFrame(NamedTuple):
    """One finished frame of a panoptic video.

    Attributes:
      stem: file name without suffix.
      categories: uint8 `[h, w]`, 0-based class of every pixel, 255 where unknown.
      track_ids: int32 `[h, w]`, 0 for stuff, otherwise the identity of the thing through the video.
      scores: 0..1 by track, where the model gives one.
      instances: masks of the instance task, which may overlap; the maps above show the likeliest on top. Result formats
        with one mask per object write these.
    """

    stem: str
    categories: Array
    track_ids: Array
    scores: Mapping[int, float] | None = None
    instances: Sequence[InstanceMask] = ()


class UserError(ValueError):
    """A mistake that the user can correct. One line: the value, what was expected, the next step; exit code 2."""
