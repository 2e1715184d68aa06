"""Results as lists of run-length encoded masks: YouTube-VIS' rows, and COCO's, one per frame and segment."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vps_jax.datasets import rle
from vps_jax.datasets.classes import ClassTable
from vps_jax.files import write_json
from vps_jax.media.result_folders import Origin, VideoResult, in_order, make_writable, writing
from vps_jax.media.run_state import RunState
from vps_jax.types import PanopticFrame

UNKNOWN = 255


class MaskListWriter:
    """Writes `results.json`, the rows of all finished videos in the order of the run."""

    def __init__(self, folder: pathlib.Path, classes: ClassTable, make_rows):
        """Makes the folder and checks that it can be written; `make_rows(video, frames, classes)` gives the rows.

        Raises:
          UserError: it cannot.
        """
        self.folder = pathlib.Path(folder)
        make_writable(self.folder)
        self.state = RunState(self.folder)
        self._classes, self._make_rows = classes, make_rows

    def place(self, video_id: str) -> pathlib.Path:
        """The file that holds a video's rows."""
        return self.folder / "results.json"

    @contextlib.contextmanager
    def video(
        self, video_id: str, *, made_by: str = "", origin: Origin = None, order: Sequence[str] = (),
        number: int | str | None = None,
    ) -> Iterator[VideoResult]:  # fmt: skip
        """The place of one video's frames; masks are held as run lengths until the video is whole.

        Rows have the video's number in its data set, if it has one, or its name; see `VipsegWriter.video`.
        """
        frames: list[tuple[str, tuple[int, int], list[dict]]] = []

        def write(frame: PanopticFrame) -> None:
            frames.append((frame.stem, frame.categories.shape, segments_of(frame)))

        yield VideoResult(write, lambda track, category: track)
        rows = self._make_rows(video_id if number is None else number, frames, self._classes)
        with writing(self.folder / "results.json"):
            self.state.finish(video_id, {"made_by": made_by, "origin": origin, "rows": rows})
            listed = None
            while listed != (finished := self.state.finished()):
                listed = finished
                names = in_order(sorted(name for name in finished if "rows" in finished[name]), order)
                write_json(self.folder / "results.json", [row for name in names for row in finished[name]["rows"]])


def ytvis_writer(folder: pathlib.Path, classes: ClassTable) -> MaskListWriter:
    """One row per track: a mask per frame, None where it is not seen."""
    return MaskListWriter(folder, classes, track_rows)


def coco_writer(folder: pathlib.Path, classes: ClassTable) -> MaskListWriter:
    """One row per frame and segment, stuff among them."""
    return MaskListWriter(folder, classes, segment_rows)


def segments_of(frame: PanopticFrame) -> list[dict[str, Any]]:
    """Class, track (0 for stuff), score and mask of every segment of a frame, or of its instances where it has any."""
    if frame.instances:
        return [
            {"category": one.category, "track": one.track_id, "score": one.score,
             "counts": rle.to_text(rle.of_mask(one.mask))}
            for one in frame.instances
        ]  # fmt: skip
    rows = []
    keys = frame.track_ids.astype(np.int64) * 256 + np.where(frame.track_ids > 0, 0, frame.categories)
    for key in np.unique(keys).tolist():
        mask, track = keys == key, key // 256
        category = int(frame.categories[mask][0])
        if category != UNKNOWN:
            score = (frame.scores or {}).get(track, 1.0)
            rows.append(
                {"category": category, "track": track, "score": score, "counts": rle.to_text(rle.of_mask(mask))}
            )
    return rows


def track_rows(video_id: str | int, frames: Sequence[tuple], classes: ClassTable) -> list[dict]:
    """Rows of YouTube-VIS (spec: data_sets 5), one per track and class."""
    rows: dict[tuple[int, int], dict] = {}
    for i, (_, size, segments) in enumerate(frames):
        for segment in (one for one in segments if one["track"]):
            row = rows.setdefault((segment["track"], segment["category"]), {
                "video_id": int(video_id) if str(video_id).isdigit() else video_id,
                "category_id": classes.official_ids[segment["category"]], "score": segment["score"],
                "segmentations": [None] * len(frames), "track": segment["track"],
            })  # fmt: skip
            row["segmentations"][i] = {"size": list(size), "counts": segment["counts"]}
    return [row for _, row in sorted(rows.items())]


def segment_rows(video_id: str | int, frames: Sequence[tuple], classes: ClassTable) -> list[dict]:
    """Rows of COCO's results, with video, frame and track."""
    return [
        {
            "video_id": video_id, "image_id": stem, "category_id": classes.official_ids[segment["category"]],
            "track": segment["track"], "score": segment["score"],
            "segmentation": {"size": list(size), "counts": segment["counts"]},
        }
        for stem, size, segments in frames
        for segment in segments
    ]  # fmt: skip
