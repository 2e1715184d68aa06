"""The order in which a run takes its videos, and how long it keeps their compiled programs.

A network is compiled for each size of its frames, and a program takes tens of megabytes and more as long as it is kept.
Videos of one size therefore follow one another, the largest size first, so that a run's need of memory shows early; and
what was compiled for a size is forgotten after its last video.
"""

import gc
from collections.abc import Callable, Iterator, Sequence

import jax

from vps_jax.infer.process_memory import return_free_memory
from vps_jax.media.video import Video
from vps_jax.types import PanopticFrame, UserError

Size = tuple[int, int]
UNREADABLE = (0, 0)


class VideoOrder:
    """Videos by the size of their frames in a network."""

    def __init__(self, network_size: Callable[[Size], Size] | None):
        """`network_size`: of a predictor, see `predictor.Predictor`; None for one whose programs suit all videos."""
        self._network_size = network_size
        self._sizes: dict[str, Size] = {}
        self._compiled_for: Size | None = None

    def sorted(self, videos: Sequence[Video]) -> list[Video]:
        """The largest first; those of one size, and all if there is no size, as they come."""
        if self._network_size is None:
            return list(videos)
        self._sizes = {video.video_id: self._measured(video) for video in videos}
        return sorted(videos, key=lambda video: self._rank(self._sizes[video.video_id]))

    def forgetting(self, frames: Callable[[Video], Iterator[PanopticFrame]]):
        """The same frames of a video. Memory that the videos before it have freed goes back to the system first, and
        when another size begins, all programs of this process are forgotten."""

        def of_video(video: Video) -> Iterator[PanopticFrame]:
            size = self._sizes.get(video.video_id)
            if self._compiled_for not in (None, size):
                jax.clear_caches()
                gc.collect()  # programs and the functions that own them refer to each other
            self._compiled_for = size
            return_free_memory()
            return frames(video)

        return of_video

    def _measured(self, video: Video) -> Size:
        try:
            return self._network_size(video.size())
        except UserError:
            return UNREADABLE  # which is said when its turn comes

    @staticmethod
    def _rank(size: Size) -> tuple[int, Size]:
        return -size[0] * size[1], size
