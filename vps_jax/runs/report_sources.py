"""Where the images of a report come from: the sources that predict has recorded, or those that are named now."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vps_jax.media import run_state
from vps_jax.media.sources import open_sources, open_videos
from vps_jax.media.video import Frame, Video
from vps_jax.types import PanopticFrame, UserError

MOST_PICTURES = 120  # of a video
MOST_PICTURES_IN_ALL = 3000  # of a page, when nobody asks for more: some 100 MB
WHERE = "name its place with --source, or leave the images out with --no-images"


class Pictures(NamedTuple):
    """What is shown of the frames.

    Attributes:
      sources: where the videos are now, see `media.sources.open_videos`; empty: where predict has read them.
      split: of a data-set root among them.
      images: show them; otherwise colours alone.
      most: pictures per video; None: 120, and fewer where there are many videos.
      side: longest side of a picture in pixels.
    """

    sources: Sequence[str] = ()
    split: str | None = None
    images: bool = True
    most: int | None = None
    side: int = 640

    def check(self) -> None:
        """Raises UserError for numbers that make no picture."""
        if (self.most is not None and self.most < 1) or not 16 <= self.side <= 8192:
            raise UserError(
                f"--max-frames {self.most} --side {self.side}: expected 1 or more pictures of 16 to 8192 pixels"
            )
        if self.sources and not self.images:
            raise UserError(f"--source {self.sources[0]} means nothing with --no-images; leave one of them out")

    def each(self, videos: int) -> int:
        """How many pictures each of so many videos may have."""
        return self.most or min(MOST_PICTURES, max(1, MOST_PICTURES_IN_ALL // videos))


def find_sources(folder: pathlib.Path, names: Sequence[str], pictures: Pictures) -> tuple[dict[str, Video], list[str]]:
    """Where the images of the videos are, by name, and a line for those that have none.

    Args:
      folder: of the results.
      names: of the videos.
      pictures: what is shown of them.

    Raises:
      UserError: a source is not there any more, or not among those that were named.
    """
    if not pictures.images:
        return {}, []
    if pictures.sources:
        by_name = {video.video_id: video for video in open_sources(pictures.sources, split=pictures.split)}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise UserError(
                f"--source has no video named {missing[0]}, but {', '.join(list(by_name)[:3])}; name it too, or choose "
                "others with --videos"
            )
        return by_name, []
    origins, opened = _origins(folder), functools.lru_cache(maxsize=4)(_opened)
    by_name = {name: _reopen(name, *origins[name], opened) for name in names if name in origins}
    missing = [name for name in names if name not in by_name]
    if not missing:
        return by_name, []
    some = f"{missing[0]} and {len(missing) - 1} more" if len(missing) > 1 else missing[0]
    return by_name, [f"no images of {some}: predict did not record where they came from; name it with --source"]


def _origins(folder: pathlib.Path) -> dict[str, list]:
    """What opens the source of each video again, as predict has recorded it."""
    if not (folder / run_state.FOLDER).is_dir():
        return {}
    state = run_state.RunState(folder)
    origins = {name: state.content(name).get("origin") for name in state.finished()}
    return {name: origin for name, origin in origins.items() if origin}


def _reopen(name: str, path: str, split: str | None, opened: Callable[[str, str | None], dict]) -> Video:
    if not pathlib.Path(path).exists():
        raise UserError(f"video {name}: its source {path} is not there any more; {WHERE}")
    try:
        return opened(path, split)[name]
    except KeyError:
        raise UserError(f"video {name}: {path} does not have it any more; {WHERE}") from None
    except UserError as error:
        raise UserError(f"video {name}: {error}; or {WHERE}") from None


def _opened(path: str, split: str | None) -> dict[str, Video]:
    """The videos of a source by name; those of a root are opened at once."""
    return {video.video_id: video for video in open_videos(path, split=split)}


class Looker:
    """Finds the images of a video's frames, which are asked for in order."""

    def __init__(self, video: Video):
        self._video, self._frames = video, video.frames()

    def at(self, frame: PanopticFrame) -> Frame:
        """The image of a frame.

        Raises:
          UserError: the video has no such frame, or one of another size.
        """
        where = f"video {self._video.video_id}: {self._video.source or 'its source'}"
        video_frame = next((one for one in self._frames if one.stem == frame.stem), None)
        if video_frame is None:
            raise UserError(f"{where} has no frame {frame.stem} as the results do; {WHERE}")
        if video_frame.image.shape[:2] != frame.categories.shape:
            sizes = ["x".join(map(str, shape[1::-1])) for shape in (video_frame.image.shape, frame.categories.shape)]
            raise UserError(f"{where} has {sizes[0]} pixels, its results {sizes[1]}; {WHERE}")
        return video_frame
