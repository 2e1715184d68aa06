"""The parts of the page that gradio has no component for: how far a run is, and its results."""

from html import escape

from vps_jax.app.jobs import ARCHIVE, REPORT, Done, Job, Shown
from vps_jax.files import duration

COLUMNS = {
    "track": "Track", "class": "Class", "first_frame": "First frame", "last_frame": "Last frame", "frames": "Frames",
    "mean_score": "Mean score", "mean_area": "Mean area in pixels",
}  # fmt: skip


def failure(line: str) -> str:
    """What went wrong, in one line."""
    return f"<p class='failure' role='alert'>{escape(line)}</p>"


def progress(job: Job, before: int) -> str:
    """How far a run is, and how long it takes still; `before` is the number of runs that come first."""
    if before:
        return bar(None, f"Waiting: {before} other {'run comes' if before == 1 else 'runs come'} first")
    if not job.frames:
        return bar(None, "Getting ready; sizes that are new to the model take longer")
    if job.frames == job.total:
        return bar(1, "Writing the results")
    words = f"{job.video}: frame {job.frames}" + (f" of {job.total}" if job.total else "")
    left = job.seconds_left()
    share = job.frames / job.total if job.total else None
    return bar(share, words + ("" if left is None else f", {duration(left)} left"))


def bar(share: float | None, words: str) -> str:
    """A bar that is filled to a share 0..1, or moves where that is not known."""
    value = "" if share is None else f" value='{share:.4f}'"
    return f"<p id='words' role='status'>{escape(words)}</p><progress{value}></progress>"


def results(done: Done) -> tuple[str, str]:
    """What is said of a finished run, and its overlays, tracks and report."""
    videos = f"{len(done.videos)} video{'s' * (len(done.videos) != 1)}"
    line = f"<p role='status'>{videos}, {done.frames} frames in {duration(done.seconds)}</p>"
    address = f"results/{done.run}"
    files = (
        f"<p class='files'><a id='download' href='{address}/{ARCHIVE}' download>Download all results</a>"
        f"<a href='{address}/{REPORT}' target='_blank'>Open the report in a tab of its own</a></p>"
    )
    report = (
        "<h2>Classes, identities and areas over time</h2>"
        f"<iframe id='report' src='{address}/{REPORT}' title='Report'></iframe>"
    )
    return line + "".join(map(failure, done.failed)), files + "".join(map(video(address), done.videos)) + report


def video(address: str):
    """What shows one video of the results under this address."""

    def show(one: Shown) -> str:
        source = f"{address}/{one.overlay}"
        return (
            f"<section class='video'><h2>{escape(one.name)}</h2>"
            f"<video src='{source}' controls loop muted playsinline preload='auto'></video>{tracks(one)}</section>"
        )

    return show


def tracks(one: Shown) -> str:
    """The tracks of a video as a table."""
    if not one.tracks:
        return "<p class='quiet'>No things with identities were found.</p>"
    columns = {name: title for name, title in COLUMNS.items() if any(row[name] is not None for row in one.tracks)}
    head = "".join(f"<th scope='col'>{title}</th>" for title in columns.values())
    rows = ("".join(f"<td>{cell(row[name])}</td>" for name in columns) for row in one.tracks)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<div class='table'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def cell(value: object) -> str:
    """A value as a cell shows it."""
    if isinstance(value, float):
        value = f"{value:.3f}" if value <= 1 else f"{value:.0f}"
    return escape("" if value is None else str(value))
