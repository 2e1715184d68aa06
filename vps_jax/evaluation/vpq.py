"""Video panoptic quality VPQ_k over windows of k frames, stride 1 (spec: metrics 5.1).

`VideoPQ` is the state: one table per video and window length. States of parts merge to the state of the whole, and
`compute` gives the numbers, in percent. Pairs are counted once per frame; every window comes from differences of sums.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np

from vps_jax.datasets.classes import ClassTable, class_table
from vps_jax.evaluation import counts as counting
from vps_jax.evaluation import pq
from vps_jax.evaluation.protocol import LEADERBOARD, SCORES, Settings, Table, merge_videos, per_class, per_video
from vps_jax.evaluation.quirks import OFFICIAL, Quirks
from vps_jax.types import PanopticFrame, UserError

# VIPSeg's paper, leaderboard and authors take the first, its public script the second; Cityscapes-VPS' script the third
WINDOW_SETS = {"leaderboard": LEADERBOARD, "official-script": (1, 2, 4, 6, 8), "cityscapes-vps": (1, 2, 3, 4)}


def window_lengths(windows: str | Sequence[int]) -> tuple[int, ...]:
    """Window lengths in frames of a named set, of a text `1,2,4`, or of a sequence.

    Raises:
      UserError: neither a known name nor positive numbers.
    """
    if isinstance(windows, str) and windows in WINDOW_SETS:
        return WINDOW_SETS[windows]
    try:
        lengths = tuple(int(k) for k in (windows.split(",") if isinstance(windows, str) else windows))
    except ValueError:
        lengths = ()
    if not lengths or min(lengths) < 1 or len(set(lengths)) < len(lengths):
        names = ", ".join(WINDOW_SETS)
        raise UserError(f"windows {windows!r}: expected {names} or different positive numbers such as 1,2,4,6")
    return lengths


def window_name(lengths: Sequence[int]) -> str:
    """Name of a set of window lengths, `custom` when it has none."""
    return next((name for name, named in WINDOW_SETS.items() if named == tuple(lengths)), "custom")


def _sums(values: np.ndarray, k: int) -> np.ndarray:
    """Sums over k consecutive frames: int64 `[t, n]` -> `[t-k+1, n]`."""
    total = np.cumsum(np.concatenate([np.zeros_like(values[:1]), values]), axis=0)
    return total[k:] - total[:-k]


def _first_listed(categories: np.ndarray) -> np.ndarray:
    """For each frame and id the next frame that lists it, this one included, or `t` when none does: `[t, n]`."""
    t = len(categories)
    frames = np.where(categories >= 0, np.arange(t)[:, None], t)
    return np.minimum.accumulate(frames[::-1], axis=0)[::-1]


def make_windows(counts: counting.VideoCounts, k: int, quirks: Quirks = OFFICIAL) -> pq.Window:
    """All windows of k frames of a video of at least k frames, `w = t-k+1`."""
    truth, prediction = counts.truth, counts.prediction
    w = len(counts.shared) - k + 1
    starts = np.arange(w)[:, None]

    def at_first(tubes, values):  # [t, n] -> [w, n]: the value in the first frame of the window that lists the id
        first = _first_listed(tubes.categories)[:w]
        listed = first < starts + k
        first = np.minimum(first, len(values) - 1)
        return listed, first, values[first, np.arange(values.shape[1])]

    listed, first, category = at_first(truth, truth.categories)
    crowd = at_first(truth, truth.crowd)[2]
    order = at_first(truth, truth.order)[2]
    predicted, _, predicted_category = at_first(prediction, prediction.categories)

    on_void = counts.pair_truth == 0  # [k]; pairs of void are one per predicted id
    void_pixels = np.where(on_void, counts.shared, 0)
    if not quirks.unlisted_truth:
        void_pixels = np.where(truth.categories[:, counts.pair_truth] < 0, counts.shared, 0)
    void = np.zeros((len(counts.shared), len(prediction.ids)), np.int64)
    np.add.at(void.T, counts.pair_prediction, void_pixels.T)

    return pq.Window(
        truth_category=np.where(listed, category, -1),
        truth_area=_sums(truth.areas if quirks.json_area else np.where(truth.categories >= 0, truth.pixels, 0), k),
        truth_crowd=crowd,
        truth_order=first * len(truth.ids) + order,
        category=np.where(predicted, predicted_category, -1),
        area=_sums(prediction.pixels, k),
        void=_sums(void, k),
        pair_truth=counts.pair_truth,
        pair_prediction=counts.pair_prediction,
        shared=_sums(counts.shared, k),
    )


def video_table(counts: counting.VideoCounts, k: int, num_classes: int, quirks: Quirks = OFFICIAL) -> np.ndarray | None:
    """Table `[c, 4]` of all windows of k frames of one video; None when it has fewer than k frames."""
    frames = len(counts.shared)
    if frames < k and quirks.short_videos_absent or not frames:
        return None
    windows = make_windows(counts, min(k, frames), quirks)
    if quirks.json_area:
        _refuse_impossible(windows, counts, k)
    return pq.table_of(windows, num_classes, last_crowd=quirks.last_crowd)


def _refuse_impossible(window: pq.Window, counts: counting.VideoCounts, k: int) -> None:
    """Raises UserError when an area of the json is so small that two tubes share more than their union."""
    g, p = window.pair_truth, window.pair_prediction
    union = window.area[:, p] + window.truth_area[:, g] - window.shared - window.void[:, p]
    candidate = (window.truth_category[:, g] >= 0) & (window.truth_category[:, g] == window.category[:, p])
    wrong = np.argwhere(candidate & ~window.truth_crowd[:, g] & (window.shared > union))
    if len(wrong):
        t, i = wrong[0]
        raise UserError(
            f"{k} frames from {t}: truth segment {counts.truth.ids[g[i]]} has area {window.truth_area[t, g[i]]} "
            f"by its json but shares {window.shared[t, i]} pixels with segment {counts.prediction.ids[p[i]]}, an IoU "
            "above 1; mend the truth's areas"
        )


class VideoPQ:
    """Tables of the videos seen so far.

    Per-video tables are kept until `compute` adds them in the order of the video names, so the result has the same
    bits whatever the order and the grouping in which videos came. 343 videos need 5 MB.
    """

    def __init__(
        self,
        classes: ClassTable | None = None,
        *,
        windows: str | Sequence[int] = "leaderboard",
        quirks: Quirks = OFFICIAL,
    ):
        self.classes = classes or class_table("vipseg")
        self.windows = window_lengths(windows)
        self.quirks = quirks
        self.tables: dict[str, dict[int, np.ndarray | None]] = {}

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """The empty state."""
        return cls(settings.classes, windows=settings.windows, quirks=settings.quirks)

    def update(self, video: str, counts: counting.VideoCounts) -> None:
        """Score one video.

        Raises:
          ValueError: the video was scored before, or a category is none of the classes.
        """
        num_classes = len(self.classes.names)
        counting.check_classes(counts, num_classes)
        if not self.quirks.json_area:
            counting.check_areas(counts.truth)
        merge_videos(self.tables, {video: {k: video_table(counts, k, num_classes, self.quirks) for k in self.windows}})

    def merge(self, other: "VideoPQ") -> None:
        """Take in the videos of another state.

        Raises:
          ValueError: other windows or quirks, or a video that both have.
        """
        if (self.windows, self.quirks) != (other.windows, other.quirks):
            raise ValueError(f"windows {other.windows} with {other.quirks} cannot be merged into {self.windows}")
        merge_videos(self.tables, other.tables)

    def table(self, k: int, videos: Iterable[str] | None = None) -> np.ndarray:
        """Table `[c, 4]` of some (default: all) videos for windows of k frames."""
        total = np.zeros((len(self.classes.names), 4))
        for video in sorted(self.tables if videos is None else videos):
            table = self.tables[video][k]
            if table is not None:
                total += table
        return total

    def compute(self) -> dict:
        """All numbers, in percent; None where nothing is defined.

        Returns:
          `vpq`: `all`, `things`, `stuff`: mean over the windows, None when one of them is None;
          `windows`: text of k -> `all`, `things`, `stuff` -> `pq`, `sq`, `rq`, `classes`;
          `per_class`: text of class id -> `name`, `isthing`, `vpq`, and `windows` -> counts and values;
          `per_video`: video -> `vpq` (mean over the windows it is long enough for), `windows` -> `pq`, and `counts` ->
          class -> IoU sum, true and false positives, false negatives.
        """
        tables = {k: self.table(k) for k in self.windows}
        means = {str(k): pq.summarize(table, self.classes.is_thing) for k, table in tables.items()}
        return {
            "vpq": {part: _mean([mean[part]["pq"] for mean in means.values()]) for part in ("all", "things", "stuff")},
            "window_set": window_name(self.windows),
            "windows": means,
            "per_class": self._per_class(tables),
            "per_video": {video: self._one_video(video) for video in sorted(self.tables)},
        }

    def _per_class(self, tables: dict[int, np.ndarray]) -> dict[str, dict]:
        values = {k: pq.quality(table) for k, table in tables.items()}
        rows = {}
        for c, name in enumerate(self.classes.names):
            windows = {
                str(k): {key: float(100 * value[c]) for key, value in values[k].items()}
                | {"iou": float(table[c, pq.IOU])}
                | {key: int(table[c, i]) for key, i in (("tp", pq.TP), ("fp", pq.FP), ("fn", pq.FN))}
                for k, table in tables.items()
                if table[c, 1:].any()
            }
            if windows:
                score = _mean([row["pq"] for row in windows.values()])
                rows[str(c)] = {
                    "name": name,
                    "isthing": bool(self.classes.is_thing[c]),
                    "vpq": score,
                    "windows": windows,
                }
        return rows

    def _one_video(self, video: str) -> dict:
        everything = np.ones(len(self.classes.names), bool)
        tables = {k: self.table(k, [video]) for k in self.windows}
        scores = {str(k): pq.mean_quality(table, everything)["pq"] for k, table in tables.items()}
        return {
            "vpq": _mean([score for score in scores.values() if score is not None]),
            "windows": scores,
            "counts": {str(k): pq.sparse(table) for k, table in tables.items()},
        }

    @staticmethod
    def headline(numbers: Mapping) -> dict[str, float | None]:
        """VPQ: mean, things, stuff, and of every window."""
        return _headline(numbers)

    @staticmethod
    def rows(numbers: Mapping) -> list[Table]:
        """Windows, classes and videos."""
        return _rows(numbers)

    @staticmethod
    def resample(numbers: Mapping, weights: np.ndarray) -> dict[str, np.ndarray]:
        """VPQ of sets in which video v of `per_video` occurs `weights[b, v]` times: float64 `[b]`, nan undefined."""
        windows = {
            f"vpq{k}": pq.resampled([row["counts"][k] for row in numbers["per_video"].values()], weights)
            for k in numbers["windows"]
        }
        return {"vpq": np.mean(list(windows.values()), axis=0)} | windows


def _headline(numbers: Mapping) -> dict[str, float | None]:
    mean = numbers["vpq"]
    windows = {f"vpq{k}": row["all"]["pq"] for k, row in numbers["windows"].items()}
    return {"vpq": mean["all"], "vpq_things": mean["things"], "vpq_stuff": mean["stuff"]} | windows


def _rows(numbers: Mapping) -> list[Table]:
    lines = [
        (k, *(means["all"][name] for name in ("pq", "sq", "rq")), means["things"]["pq"], means["stuff"]["pq"])
        for k, means in numbers["windows"].items()
    ]
    mean = numbers["vpq"]
    lines.append(("mean", mean["all"], "", "", mean["things"], mean["stuff"]))
    windows = list(numbers["windows"])
    columns = ("vpq", *(f"vpq{k}" for k in windows))
    title = f"VPQ in percent, windows: {numbers['window_set']}"
    return [
        Table(SCORES, title, ("frames", "VPQ", "SQ", "RQ", "things", "stuff"), lines),
        per_class(numbers, columns, lambda row: (row["vpq"], *(row["windows"].get(k, {}).get("pq") for k in windows))),
        per_video(numbers, columns, lambda row: (row["vpq"], *(row["windows"][k] for k in windows))),
    ]


def _mean(values: list[float | None]) -> float | None:
    return None if not values or None in values else sum(values) / len(values)


def evaluate_video(
    truth: Iterable[counting.SegmentFrame],
    prediction: Iterable[counting.SegmentFrame],
    *,
    video: str = "video",
    classes: ClassTable | None = None,
    windows: str | Sequence[int] = "leaderboard",
    quirks: Quirks = OFFICIAL,
) -> VideoPQ:
    """State of one video from its frames in memory; merge the states of several and `compute`."""
    state = VideoPQ(classes, windows=windows, quirks=quirks)
    state.update(video, counting.count_video(truth, prediction))
    return state


def score_frames(truth: Iterable[PanopticFrame], prediction: Iterable[PanopticFrame], **options) -> VideoPQ:
    """The state of one video of class maps and track ids, as inference gives them; options as in `evaluate_video`."""
    return evaluate_video(
        (counting.from_panoptic(frame) for frame in truth),
        (counting.from_panoptic(frame) for frame in prediction),
        **options,
    )
