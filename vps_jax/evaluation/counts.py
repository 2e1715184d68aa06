"""Shared pixels of truth and predicted segments of one video, counted once per frame.

Label maps are piecewise constant, so a frame is cut into runs (stretches of a row along which neither map changes) and
only runs are looked at: a few thousand instead of a million pixels. VPQ, PQ, STQ and mIoU all follow from these counts.
All counts are int64: a six-frame window of 720p has 5.5 million pixels, a data set 10^10.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.types import PanopticFrame

VOID = 0  # segment id of a pixel without label
NO_CATEGORY = 255


class Segments(NamedTuple):
    """The segment table of one frame, in the order of its json.

    Attributes:
      ids: int64 `[n]`, 1 .. 2^31-1, unique.
      categories: int64 `[n]`, 0-based.
      crowd: bool `[n]`.
      areas: int64 `[n]`, pixels as written in the json, or None to count them.
    """

    ids: np.ndarray
    categories: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray | None


class SegmentFrame(NamedTuple):
    """One frame as the scores see it.

    Attributes:
      pixels: integer ids `[h, w]`, or uint8 `[h, w, 3]` in OpenCV's order B, G, R with id = R + 256 G + 65536 B.
      segments: the table that says which ids are listed.
    """

    pixels: np.ndarray
    segments: Segments


class Tubes(NamedTuple):
    """All ids of one side of one video; index 0 is void. `t` frames, `g` ids.

    Attributes:
      ids: int64 `[g]`, ascending.
      categories: int64 `[t, g]`, -1 in frames that do not list the id.
      crowd: bool `[t, g]`.
      order: int64 `[t, g]`, place in the frame's table.
      areas: int64 `[t, g]`, as the json has them, 0 where not listed.
      pixels: int64 `[t, g]`, as counted in the map.
    """

    ids: np.ndarray
    categories: np.ndarray
    crowd: np.ndarray
    order: np.ndarray
    areas: np.ndarray
    pixels: np.ndarray


class VideoCounts(NamedTuple):
    """Everything the scores need of one video. `k` is the number of pairs of ids that ever share a pixel.

    Attributes:
      truth, prediction: the ids of each side.
      pair_truth, pair_prediction: int64 `[k]`, index into the ids of each side.
      shared: int64 `[t, k]`, pixels that frame `t` has of pair `k`.
    """

    truth: Tubes
    prediction: Tubes
    pair_truth: np.ndarray
    pair_prediction: np.ndarray
    shared: np.ndarray


class FramePairs(NamedTuple):
    """Pairs of ids that share pixels in one frame: `truth`, `prediction` and `pixels` are int64 `[n]`."""

    truth: np.ndarray
    prediction: np.ndarray
    pixels: np.ndarray


def make_segments(rows: Sequence[dict]) -> Segments:
    """Table from `segments_info` rows with `id`, `category_id`, and optionally `iscrowd` and `area`."""
    areas = [row.get("area") for row in rows]
    return Segments(
        ids=np.array([row["id"] for row in rows], np.int64),
        categories=np.array([row["category_id"] for row in rows], np.int64),
        crowd=np.array([row.get("iscrowd", 0) for row in rows], bool),
        areas=None if None in areas else np.array(areas, np.int64),
    )


def _run_starts(images: Sequence[np.ndarray]) -> np.ndarray:
    """Flat indices of the pixels at which one of the maps (all `[h, w]` or all `[h, w, 3]`) changes; 0 is one."""
    step = 3 if images[0].ndim == 3 else 1  # bytes are compared, which is faster than joining them to ids first
    changed = np.zeros(-(-images[0].size // 8) * 8, bool)
    part = changed[step : images[0].size]
    for image in images:
        flat = image.reshape(-1)
        part |= flat[step:] != flat[:-step]
    changed[:1] = True
    # nearly all is False: look at eight at a time, then into those that have a True
    words = np.flatnonzero(changed.view(np.uint64) != 0)
    hits = np.flatnonzero(changed.reshape(-1, 8)[words])
    at = (8 * words[hits >> 3] + (hits & 7)) // step  # ascending; a pixel comes once per channel that changes
    return at[np.append(True, at[1:] != at[:-1])]


def _values(pixels: np.ndarray, at: np.ndarray) -> np.ndarray:
    """int64 ids of the pixels with flat indices `at` `[n]`."""
    flat = pixels.reshape(-1)
    if pixels.ndim == 2:
        return flat[at].astype(np.int64)
    blue, green, red = (flat[3 * at + channel].astype(np.int64) for channel in range(3))
    return red + 256 * green + 65536 * blue


def runs(*images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Cut maps of one size and layout into runs along which none of them changes.

    Returns:
      lengths int64 `[n]` in flat pixel order, and per map its int64 ids `[n]`.
    """
    images = [np.ascontiguousarray(image) for image in images]
    height, width = images[0].shape[:2]
    starts = _run_starts(images)
    return np.diff(starts, append=height * width), [_values(image, starts) for image in images]


def count_frame(truth: np.ndarray, prediction: np.ndarray) -> FramePairs:
    """Pairs of ids of two maps of one size (`[h, w]` ids or `[h, w, 3]` B, G, R) and the pixels they share."""
    lengths, (truth_ids, prediction_ids) = runs(truth, prediction)
    return count_runs(lengths, truth_ids, prediction_ids)


def count_runs(lengths: np.ndarray, truth_ids: np.ndarray, prediction_ids: np.ndarray) -> FramePairs:
    """`count_frame` on what `runs` gives."""
    pairs = truth_ids << 32 | prediction_ids
    keys = np.unique(pairs)
    pixels = np.bincount(np.searchsorted(keys, pairs), weights=lengths, minlength=len(keys))  # float64: exact to 2^53
    return FramePairs(keys >> 32, keys & 0xFFFFFFFF, pixels.astype(np.int64))


def _tubes(tables: list[Segments], seen: list[np.ndarray], pixels: list[np.ndarray]) -> Tubes:
    """Join one side's tables and the ids `seen` in its maps, with their `pixels`, frame by frame."""
    ids = np.unique(np.concatenate([[VOID], *(table.ids for table in tables), *seen])).astype(np.int64)
    shape = (len(tables), len(ids))
    categories, order, areas, counted = (np.full(shape, fill, np.int64) for fill in (-1, 0, 0, 0))
    crowd = np.zeros(shape, bool)
    for t, table in enumerate(tables):
        np.add.at(counted[t], np.searchsorted(ids, seen[t]), pixels[t])
        at = np.searchsorted(ids, table.ids)
        categories[t, at], crowd[t, at], order[t, at] = table.categories, table.crowd, np.arange(len(at))
        areas[t, at] = counted[t, at] if table.areas is None else table.areas
    return Tubes(ids, categories, crowd, order, areas, counted)


def tables(tubes: Tubes) -> list[Segments]:
    """The segment tables that a video's tubes were made of, frame by frame."""
    result = []
    for t, categories in enumerate(tubes.categories):
        listed = np.flatnonzero(categories >= 0)
        listed = listed[np.argsort(tubes.order[t, listed])]
        columns = (values[t, listed] for values in (tubes.categories, tubes.crowd, tubes.areas))
        result.append(Segments(tubes.ids[listed], *columns))
    return result


def join_frames(
    pairs: list[FramePairs], truth_tables: list[Segments], prediction_tables: list[Segments]
) -> VideoCounts:
    """Counts of a video from those of its frames, in order."""
    pixels = [pair.pixels for pair in pairs]
    truth = _tubes(truth_tables, [pair.truth for pair in pairs], pixels)
    prediction = _tubes(prediction_tables, [pair.prediction for pair in pairs], pixels)
    keys = [pair.truth << 32 | pair.prediction for pair in pairs]
    all_keys = np.unique(np.concatenate([np.zeros(0, np.int64), *keys]))
    shared = np.zeros((len(pairs), len(all_keys)), np.int64)
    for t, (key, count) in enumerate(zip(keys, pixels, strict=True)):
        shared[t, np.searchsorted(all_keys, key)] = count
    return VideoCounts(
        truth,
        prediction,
        pair_truth=np.searchsorted(truth.ids, all_keys >> 32),
        pair_prediction=np.searchsorted(prediction.ids, all_keys & 0xFFFFFFFF),
        shared=shared,
    )


def count_video(truth: Iterable[SegmentFrame], prediction: Iterable[SegmentFrame]) -> VideoCounts:
    """Count one video; one frame of each side is held at a time.

    Raises:
      ValueError: the numbers of frames or the sizes of two frames differ.
    """
    pairs, truth_tables, prediction_tables = [], [], []
    for t, (one, other) in enumerate(zip(truth, prediction, strict=True)):
        if one.pixels.shape[:2] != other.pixels.shape[:2]:
            raise ValueError(f"frame {t}: truth is {one.pixels.shape[:2]}, prediction {other.pixels.shape[:2]}")
        pairs.append(count_frame(one.pixels, other.pixels))
        truth_tables.append(one.segments)
        prediction_tables.append(other.segments)
    return join_frames(pairs, truth_tables, prediction_tables)


def from_panoptic(frame: PanopticFrame) -> SegmentFrame:
    """A finished frame of the inference side as ids and table, as a result folder would hold it.

    A track is one segment, and so is every class among pixels without track; 255 is void. A track that shows two
    classes in one frame has the one with more pixels.
    """
    tracks = frame.track_ids.astype(np.int64)
    ids = np.where(tracks > 0, tracks + NO_CATEGORY, frame.categories.astype(np.int64) + 1)
    ids[frame.categories == NO_CATEGORY] = VOID
    found = count_frame(ids, frame.categories)
    by_size = np.argsort(found.pixels, kind="stable")
    categories = dict(zip(found.truth[by_size].tolist(), found.prediction[by_size].tolist(), strict=True))
    categories.pop(VOID, None)
    return SegmentFrame(ids, make_segments([{"id": i, "category_id": c} for i, c in sorted(categories.items())]))
