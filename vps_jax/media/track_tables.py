"""Tables of the tracks of a video: what, from when to when, how sure, where; for spreadsheets and for programs."""

import csv
import io
import json
import pathlib
from array import array
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from vps_jax.datasets.classes import ClassTable
from vps_jax.files import write_text
from vps_jax.types import PanopticFrame, UserError

COLUMNS = (
    "track", "class", "category_id", "first_frame", "last_frame", "frames", "mean_score", "mean_area", "segment_id",
)  # fmt: skip


class Seen(NamedTuple):
    """Where a track was seen: an entry per frame, in arrays, since a long video has many.

    Attributes:
      category: of its first frame.
      stems: names of the frames.
      scores: 0..1, of the frames that have one.
      areas: in pixels.
      boxes: four numbers per frame: x and y of the first pixel, width, height.
    """

    category: int
    stems: list[str]
    scores: array
    areas: array
    boxes: array

    def per_frame(self) -> list[dict[str, Any]]:
        """Rows of `frame`, `area` and `box`."""
        return [
            {"frame": stem, "area": area, "box": self.boxes[4 * i : 4 * i + 4].tolist()}
            for i, (stem, area) in enumerate(zip(self.stems, self.areas, strict=True))
        ]


class TrackTables:
    """Collects the tracks of one video, frame by frame; a track has the number that the overlay shows."""

    def __init__(self, classes: ClassTable):
        self._classes = classes
        self._tracks: dict[int, Seen] = {}

    def add(self, frame: PanopticFrame) -> None:
        """Take the next frame: area in pixels and box (x, y of the first pixel, width, height) of every track."""
        areas = np.bincount(frame.track_ids.ravel())
        boxes = ndimage.find_objects(frame.track_ids)
        for track in np.flatnonzero(areas[1:]) + 1:
            track, (rows, columns) = int(track), boxes[track - 1]
            if track not in self._tracks:
                inside = frame.track_ids[rows, columns] == track
                category = int(frame.categories[rows, columns][inside][0])
                self._tracks[track] = Seen(category, [], array("d"), array("q"), array("q"))
            seen = self._tracks[track]
            seen.stems.append(frame.stem)
            seen.areas.append(int(areas[track]))
            seen.boxes.extend((columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start))
            if frame.scores is not None and track in frame.scores:
                seen.scores.append(frame.scores[track])

    def rows(self, segment_id) -> list[dict[str, Any]]:
        """One row per track in the order of their numbers, with `per_frame` beside `COLUMNS`.

        Args:
          segment_id: (track, category) -> its id in `pred.json`, or None.
        """
        rows = []
        for track, seen in sorted(self._tracks.items()):
            rows.append({
                "track": track,
                "class": self._classes.names[seen.category],
                "category_id": self._classes.official_ids[seen.category],
                "first_frame": seen.stems[0],
                "last_frame": seen.stems[-1],
                "frames": len(seen.stems),
                "mean_score": round(float(np.mean(seen.scores)), 6) if seen.scores else None,
                "mean_area": round(float(np.mean(seen.areas)), 2),
                "segment_id": segment_id(track, seen.category),
                "per_frame": seen.per_frame(),
            })  # fmt: skip
        return rows

    def write(self, folder: pathlib.Path, video_id: str, segment_id) -> None:
        """Write `<video>.csv` and `<video>.json`, atomically."""
        rows, text = self.rows(segment_id), io.StringIO()
        table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        (folder / video_id).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{video_id}.csv", text.getvalue())
        write_text(folder / f"{video_id}.json", json.dumps({"video_id": video_id, "tracks": rows}))


def read_tracks(folder: pathlib.Path, video_id: str) -> list[dict[str, Any]]:
    """Rows of `<video>.json` in the folder of the tables, see `TrackTables.rows`; none where it was not written.

    Raises:
      UserError: it is damaged.
    """
    path = folder / f"{video_id}.json"
    try:
        rows = json.loads(path.read_text())["tracks"]
        return [row for row in rows if isinstance(row["track"], int)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no table of tracks ({error}); remove it and run the same predict again") from error
