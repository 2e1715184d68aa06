"""Shared pixels of truth and predicted segments of one video, counted once per frame.

Label maps are piecewise constant, so a frame is cut into runs (stretches of a row along which neither map changes) and
only runs are looked at: a few thousand instead of a million pixels. VPQ, PQ, STQ and mIoU all follow from these counts.
All counts are int64: a six-frame window of 720p has 5.5 million pixels, a data set 10^10.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.types import PanopticFrame, UserError

VOID = 0  # segment id of a pixel without label
LAST_ID = (1 << 31) - 1  # two ids share one int64 key
FIRST_TRACK = 1 << 16  # ids of `from_panoptic`: below are classes, above are tracks


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

    Raises:
      UserError: two sizes, or a map whose values are no whole numbers.
    """
    images = [np.ascontiguousarray(image) for image in images]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise UserError(f"maps of shapes {sorted(shapes)}; expected one size")
    kind = next((image.dtype for image in images if image.dtype.kind not in "iub"), None)
    if kind is not None:
        raise UserError(f"a map of {kind}; expected whole numbers")
    height, width = images[0].shape[:2]
    starts = _run_starts(images)
    return np.diff(starts, append=height * width), [_values(image, starts) for image in images]


def count_frame(truth: np.ndarray, prediction: np.ndarray) -> FramePairs:
    """Pairs of ids of two maps of one size (`[h, w]` ids or `[h, w, 3]` B, G, R) and the pixels they share."""
    lengths, (truth_ids, prediction_ids) = runs(truth, prediction)
    return count_runs(lengths, truth_ids, prediction_ids)


def count_runs(lengths: np.ndarray, truth_ids: np.ndarray, prediction_ids: np.ndarray) -> FramePairs:
    """`count_frame` on what `runs` gives; UserError for an id outside of 0 .. LAST_ID."""
    for side, ids in (("truth", truth_ids), ("predicted", prediction_ids)):
        if len(ids) and not 0 <= ids.min() <= ids.max() <= LAST_ID:
            wrong = ids[(ids < 0) | (ids > LAST_ID)][0]
            raise UserError(f"{side} id {wrong}; expected 0..{LAST_ID}")
    pairs = truth_ids << 32 | prediction_ids
    keys = np.unique(pairs)
    pixels = np.bincount(np.searchsorted(keys, pairs), weights=lengths, minlength=len(keys))  # float64: exact to 2^53
    return FramePairs(keys >> 32, keys & 0xFFFFFFFF, pixels.astype(np.int64))


def check_table(table: Segments) -> None:
    """Raises UserError unless ids are of 1 .. LAST_ID and unique, and categories and areas not negative."""
    ids, categories = table.ids, table.categories
    if not len(ids):
        return
    if not 1 <= ids.min() <= ids.max() <= LAST_ID:
        raise UserError(f"segment id {ids[(ids < 1) | (ids > LAST_ID)][0]}; expected 1..{LAST_ID} (0 is void)")
    if len(np.unique(ids)) < len(ids):
        raise UserError(f"segment ids {ids.tolist()[:9]}: one stands in a frame's table twice")
    if categories.min() < 0:
        raise UserError(f"category {categories.min()} of segment {ids[categories.argmin()]}; expected 0 or more")
    if table.areas is not None and table.areas.min() < 0:
        raise UserError(f"area {table.areas.min()} of segment {ids[table.areas.argmin()]}; expected 0 or more")


def check_classes(counts: "VideoCounts", num_classes: int) -> None:
    """Raises UserError when a segment of either side has a category that is none of `num_classes`."""
    for side, tubes in (("truth", counts.truth), ("predicted", counts.prediction)):
        if tubes.categories.size and tubes.categories.max() >= num_classes:
            t, i = np.unravel_index(tubes.categories.argmax(), tubes.categories.shape)
            raise UserError(
                f"frame {t}: {side} segment {tubes.ids[i]} has category {tubes.categories[t, i]}; "
                f"expected 0..{num_classes - 1}"
            )


def wrong_areas(tubes: Tubes) -> np.ndarray:
    """Where a table says another area than the map has pixels: int64 `[n, 2]`, frame and index of the id."""
    return np.argwhere((tubes.categories >= 0) & (tubes.areas != tubes.pixels))


def check_areas(tubes: Tubes) -> None:
    """Raises UserError when a table says another area than the map has pixels."""
    for t, i in wrong_areas(tubes)[:1]:
        raise UserError(
            f"frame {t}: segment {tubes.ids[i]} has area {tubes.areas[t, i]} but {tubes.pixels[t, i]} pixels; "
            "give no areas, or ask for the quirk json_area"
        )


def _tubes(tables: list[Segments], seen: list[np.ndarray], pixels: list[np.ndarray]) -> Tubes:
    """Join one side's tables and the ids `seen` in its maps, with their `pixels`, frame by frame."""
    ids = np.unique(np.concatenate([[VOID], *(table.ids for table in tables), *seen])).astype(np.int64)
    shape = (len(tables), len(ids))
    categories, order, areas, counted = (np.full(shape, fill, np.int64) for fill in (-1, 0, 0, 0))
    crowd = np.zeros(shape, bool)
    for t, table in enumerate(tables):
        check_table(table)
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


def unknown_category(dtype: np.dtype) -> int:
    """The value of a class map's pixels without class: the greatest of an unsigned type (255 of uint8), else -1."""
    return int(np.iinfo(dtype).max) if dtype.kind == "u" else -1


def from_panoptic(frame: PanopticFrame) -> SegmentFrame:
    """A finished frame of the inference side as ids and table, as a result folder would hold it.

    A track is one segment, and so is every class among pixels without track; pixels of `unknown_category` are void. A
    track that shows two classes in one frame has the one with more pixels.

    Raises:
      UserError: a track id or a class outside of the range.
    """
    tracks, classes = frame.track_ids.astype(np.int64), frame.categories.astype(np.int64)
    void = classes == unknown_category(frame.categories.dtype)
    _check_range("track id", tracks, LAST_ID - FIRST_TRACK)
    _check_range("class", np.where(void, 0, classes), FIRST_TRACK - 2)
    ids = np.where(void, VOID, np.where(tracks > 0, tracks + FIRST_TRACK, classes + 1))
    cells = count_frame(ids, np.where(void, FIRST_TRACK, classes))
    by_size = np.argsort(cells.pixels, kind="stable")
    categories = dict(zip(cells.truth[by_size].tolist(), cells.prediction[by_size].tolist(), strict=True))
    categories.pop(VOID, None)
    return SegmentFrame(ids, make_segments([{"id": i, "category_id": c} for i, c in sorted(categories.items())]))


def _check_range(what: str, values: np.ndarray, last: int) -> None:
    if values.size and not 0 <= values.min() <= values.max() <= last:
        wrong = values[(values < 0) | (values > last)].flat[0]
        raise UserError(f"{what} {wrong}; expected 0..{last}")
