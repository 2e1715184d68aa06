"""`vps-jax report`: a run as one HTML file."""

import pathlib
from typing import Annotated

import typer

Folder = pathlib.Path
Text = typer.Option


def report(
    results: Annotated[Folder, typer.Argument(help="Output folder of predict.")],
    output: Annotated[Folder | None, Text("--output", help="HTML file; default: report.html in the folder.")] = None,
    source: Annotated[
        list[str], Text("--source", help="Where the videos are now, as predict takes them; may be repeated.")
    ] = [],  # noqa: B006
    images: Annotated[bool, Text("--images/--no-images", help="Show the images under the colours.")] = True,
    videos: Annotated[str | None, Text("--videos", help="Only these: a,b or a file with one per line.")] = None,
    max_frames: Annotated[
        int | None, Text("--max-frames", help="Pictures per video; default: 120, fewer of many videos.")
    ] = None,
    side: Annotated[int, Text("--side", help="Longest side of a picture in pixels.")] = 640,
    truth: Annotated[Folder | None, Text("--truth", help="Truth to score the results with.")] = None,
    scores: Annotated[Folder | None, Text("--scores", help="Json of evaluate, instead of --truth.")] = None,
    before: Annotated[Folder | None, Text("--compare", help="Json or results to compare the scores with.")] = None,
    split: Annotated[str, Text("--split", help="Split of the truth, and of a source that is a root.")] = "val",
    metrics: Annotated[str, Text("--metrics", help="As in evaluate.")] = "all",
    windows: Annotated[str, Text("--windows", help="As in evaluate.")] = "leaderboard",
    processes: Annotated[int, Text("--processes", help="As in evaluate.")] = 1,
):
    """Show a run in a browser: videos with classes to switch off, tracks and areas over time, scores; one HTML file.

    Example: vps-jax report results

    Example: vps-jax report results --truth data/VIPSeg_720P --compare before.json --output report.html
    """
    from vps_jax.evaluation import checked, process
    from vps_jax.runs.report_files import Pictures, Scoring
    from vps_jax.runs.report_files import report as write_report

    output = results / "report.html" if output is None else output
    with process.tidy():
        done = write_report(
            results, output, videos=checked.names_of_videos(videos), progress=process.watched(),
            pictures=Pictures(source, split, images, max_frames, side),
            scoring=Scoring(truth, scores, before, split, metrics, windows, processes),
        )  # fmt: skip
    print("\n".join(f"note: {note}" for note in done.notes), end="\n" if done.notes else "")
    print(f"{done.videos} videos, {done.frames} frames, {done.size / 1e6:.1f} MB -> {output}")
