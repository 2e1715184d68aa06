"""A part of a video: from when to when, how often, and how many frames at most."""

from collections.abc import Iterator
from dataclasses import dataclass

from vps_jax.media.video import Frame, Video
from vps_jax.types import UserError

CLOSE = 1e-6  # seconds: times of containers are rounded


@dataclass(frozen=True)
class Selection:
    """Which frames of a video are read; the defaults take all.

    Attributes:
      start, end: seconds of the source; a frame at `end` is not read any more.
      stride: every so many frames.
      fps: at most so many frames per second, by the source's clock.
      max_frames: at most so many frames.
    """

    start: float = 0.0
    end: float | None = None
    stride: int = 1
    fps: float | None = None
    max_frames: int | None = None

    def __post_init__(self):
        if self.start < 0 or (self.end is not None and self.end <= self.start):
            raise UserError(f"{self.given('start', 'end')}: expected 0 or more seconds, and an end behind the start")
        if self.stride < 1 or (self.max_frames is not None and self.max_frames < 1):
            raise UserError(f"{self.given('stride', 'max_frames')}: expected whole numbers above 0")
        if self.fps is not None and not self.fps > 0:
            raise UserError(f"--fps {self.fps}: expected a number above 0")

    def given(self, *names: str) -> str:
        """Those of the options that are set, as a user writes them."""
        values = {name: getattr(self, name) for name in names}
        return " ".join(f"--{name.replace('_', '-')} {v}" for name, v in values.items() if v is not None)


def seconds(text: str) -> float:
    """`90`, `1:30` or `0:01:30.5` in seconds.

    Raises:
      UserError: no such time.
    """
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = [-1.0]
    if len(parts) > 3 or min(parts) < 0:
        raise UserError(f"{text!r} is no time; expected seconds, or minutes and seconds such as 1:30")
    return sum(part * 60**i for i, part in enumerate(reversed(parts)))


def select(video: Video, selection: Selection) -> Video:
    """The chosen part of a video; frames keep their names and times.

    Raises:
      UserError: none of its frames is in that part.
    """
    if selection == Selection():
        return video
    stems = tuple(stem for stem, _ in chosen(zip(video.stems, video.times, strict=True), selection))
    times = tuple(time for _, time in chosen(zip(video.stems, video.times, strict=True), selection))
    if video.num_frames and not stems:
        raise UserError(
            f"video {video.video_id}: no frame from {selection.given('start', 'end')}; it is "
            f"{video.times[-1]:.2f} s long, choose another part"
        )

    def frames() -> Iterator[Frame]:
        for _, _, frame in chosen(((frame.stem, frame.time, frame) for frame in video.frames()), selection):
            yield frame

    fps = video.fps / selection.stride
    fps = min(fps, selection.fps) if selection.fps else fps

    def fingerprint() -> str:
        whole = video.fingerprint()
        return whole and f"{whole} {selection}"

    return video._replace(
        num_frames=len(stems), fps=fps, frames=frames, stems=stems, times=times, fingerprint=fingerprint
    )


def chosen(rows, selection: Selection) -> Iterator[tuple]:
    """The rows (stem, time, ...) that are in the part; later ones are not asked for."""
    given, inside, ticks = 0, 0, -1  # ticks: periods of `fps` that have a frame
    for row in rows:
        time = row[1]
        tick = int((time - selection.start) * selection.fps + CLOSE) if selection.fps else inside
        if time < selection.start - CLOSE:
            continue
        if selection.end is not None and time > selection.end - CLOSE:
            return
        inside += 1
        if (inside - 1) % selection.stride or tick <= ticks:
            continue
        ticks = tick
        yield row
        given += 1
        if given == selection.max_frames:
            return
