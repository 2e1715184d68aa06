"""Image panoptic quality of all frames: VPQ over windows of one frame, told without the windows."""

from collections.abc import Mapping
from typing import Self

from vps_jax.evaluation.counts import VideoCounts
from vps_jax.evaluation.protocol import Settings, Table, other_scores, per_class, per_video
from vps_jax.evaluation.vpq import VideoPQ

PARTS = ("all", "things", "stuff")


class ImagePQ:
    """State: that of VPQ."""

    def __init__(self, frames: VideoPQ):
        self.frames = frames

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """The empty state."""
        return cls(VideoPQ(settings.classes, windows=(1,), quirks=settings.quirks))

    def update(self, video: str, counts: VideoCounts) -> None:
        """Score one video; ValueError when it was scored before."""
        self.frames.update(video, counts)

    def merge(self, other: "ImagePQ") -> None:
        """Take in the videos of another state."""
        self.frames.merge(other.frames)

    def compute(self) -> dict:
        """`all`, `things`, `stuff` -> `pq`, `sq`, `rq`, `classes`; `per_class` -> counts and values; `per_video`."""
        result = self.frames.compute()
        per_class = {
            c: {"name": row["name"], "isthing": row["isthing"]} | row["windows"]["1"]
            for c, row in result["per_class"].items()
        }
        per_video = {video: {"pq": row["vpq"]} for video, row in result["per_video"].items()}
        return result["windows"]["1"] | {"per_class": per_class, "per_video": per_video}

    @staticmethod
    def headline(numbers: Mapping) -> dict[str, float | None]:
        """None: it is one of VPQ's windows."""
        return {}

    @staticmethod
    def rows(numbers: Mapping) -> list[Table]:
        """Means, classes and videos."""
        counted = ("pq", "sq", "rq", "tp", "fp", "fn")
        return [
            other_scores([(f"image PQ, {part}", numbers[part]["pq"]) for part in PARTS]),
            per_class(numbers, counted, lambda row: (row[name] for name in counted)),
            per_video(numbers, ("pq",)),
        ]
