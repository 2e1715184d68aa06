"""Results as lists of run-length encoded masks: YouTube-VIS' rows, BURST's sequences, COCO's frames and segments."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from vps_jax.datasets import rle
from vps_jax.datasets.classes import ClassTable
from vps_jax.files import write_json
from vps_jax.media.result_folders import Origin, VideoResult, list_rows, make_writable, writing
from vps_jax.media.run_state import RunState
from vps_jax.types import PanopticFrame

UNKNOWN = 255


class MaskListWriter:
    """Writes `results.json`, the rows of all finished videos in the order of the run."""

    def __init__(
        self, folder: pathlib.Path, classes: ClassTable, make_rows: Callable[..., list], make_content=lambda rows: rows
    ):
        """Makes the folder and checks that it can be written.

        Args:
          folder: of the results.
          classes: of the frames.
          make_rows: (name of a video, its number or None, its frames, classes) -> its rows.
          make_content: rows of all videos -> what the file holds.

        Raises:
          UserError: it cannot.
        """
        self.folder = pathlib.Path(folder)
        make_writable(self.folder)
        self.state = RunState(self.folder)
        self._classes, self._make_rows, self._make_content = classes, make_rows, make_content

    def place(self, video_id: str) -> pathlib.Path:
        """The file that holds a video's rows."""
        return self.folder / "results.json"

    @contextlib.contextmanager
    def video(
        self, video_id: str, *, made_by: str = "", origin: Origin = None, order: Sequence[str] = (),
        number: int | str | None = None,
    ) -> Iterator[VideoResult]:  # fmt: skip
        """The place of one video's frames; masks are held as run lengths until the video is whole."""
        frames: list[tuple[str, tuple[int, int], list[dict]]] = []

        def write(frame: PanopticFrame) -> None:
            frames.append((frame.stem, frame.categories.shape, segments_of(frame)))

        yield VideoResult(write, lambda track, category: track)
        rows = self._make_rows(video_id, number, frames, self._classes)
        with writing(self.folder / "results.json"):
            self.state.finish(video_id, {"made_by": made_by, "origin": origin, "rows": rows})
            self.list_finished(order)

    def list_finished(self, order: Sequence[str]) -> None:
        """Bring `results.json` up to date."""
        path = self.folder / "results.json"
        list_rows(self.state, order, lambda rows: write_json(path, self._make_content(rows)))


def ytvis_writer(folder: pathlib.Path, classes: ClassTable) -> MaskListWriter:
    """One row per track: a mask per frame, None where it is not seen."""
    return MaskListWriter(folder, classes, track_rows)


def burst_writer(folder: pathlib.Path, classes: ClassTable) -> MaskListWriter:
    """One sequence per video, in the form of BURST's annotations."""
    categories = [{"id": row["id"], "name": row["name"]} for row in classes.rows()]
    content = functools.partial(dict, categories=categories, split="")
    return MaskListWriter(folder, classes, sequence_rows, lambda rows: content(sequences=rows))


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


def identifier(video_id: str, number: int | str | None) -> int | str:
    """What results call a video: its number in its data set, or its name, which may be a number."""
    if number is not None:
        return number
    return int(video_id) if video_id.isdigit() else video_id


def track_rows(video_id: str, number: int | str | None, frames: Sequence[tuple], classes: ClassTable) -> list[dict]:
    """Rows of YouTube-VIS (spec: data_sets 5), one per track and class."""
    rows: dict[tuple[int, int], dict] = {}
    for i, (_, size, segments) in enumerate(frames):
        for segment in (one for one in segments if one["track"]):
            row = rows.setdefault((segment["track"], segment["category"]), {
                "video_id": identifier(video_id, number),
                "category_id": classes.official_ids[segment["category"]], "score": segment["score"],
                "segmentations": [None] * len(frames), "track": segment["track"],
            })  # fmt: skip
            row["segmentations"][i] = {"size": list(size), "counts": segment["counts"]}
    return [row for _, row in sorted(rows.items())]


def sequence_rows(video_id: str, number: int | str | None, frames: Sequence[tuple], classes: ClassTable) -> list[dict]:
    """The one row of a video for BURST (spec: data_sets 10); a track has its likeliest class."""
    dataset, _, name = video_id.rpartition("/")
    height, width = frames[0][1] if frames else (0, 0)
    categories, segmentations = {}, []
    for _, _, segments in frames:
        by_track: dict[str, dict] = {}
        for segment in (one for one in segments if one["track"]):
            track = str(segment["track"])
            categories.setdefault(track, classes.official_ids[segment["category"]])
            by_track.setdefault(track, {"rle": segment["counts"], "is_gt": False, "score": segment["score"]})
        segmentations.append(by_track)
    return [{
        "id": identifier(video_id, number), "dataset": dataset or "videos", "seq_name": name,
        "height": height, "width": width, "annotated_image_paths": [f"{stem}.jpg" for stem, _, _ in frames],
        "track_category_ids": categories, "segmentations": segmentations,
    }]  # fmt: skip


def segment_rows(video_id: str, number: int | str | None, frames: Sequence[tuple], classes: ClassTable) -> list[dict]:
    """Rows of COCO's results, with video, frame and track."""
    return [
        {
            "video_id": video_id if number is None else number, "image_id": stem,
            "category_id": classes.official_ids[segment["category"]],
            "track": segment["track"], "score": segment["score"],
            "segmentation": {"size": list(size), "counts": segment["counts"]},
        }
        for stem, size, segments in frames
        for segment in segments
    ]  # fmt: skip
