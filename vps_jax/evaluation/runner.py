"""Score a result folder against a truth folder: VIPSeg, VSPW or YouTube-VIS, told apart by what lies there."""

import csv
import functools
import io
import json
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from rich.console import Console
from rich.progress import track

from vps_jax.evaluation import miou, scores, vc, vipseg_folders, vspw_folders
from vps_jax.evaluation.quirks import without
from vps_jax.evaluation.report import print_report
from vps_jax.evaluation.vpq import window_lengths
from vps_jax.taxonomy import class_table
from vps_jax.types import UserError

__all__ = ["evaluate_folders", "print_report", "score_vipseg_video", "score_vspw_video"]

PathLike = str | os.PathLike


def evaluate_folders(
    truth: PathLike,
    predictions: PathLike,
    *,
    split: str = "val",
    metrics: str | Sequence[str] | None = None,
    windows: str | Sequence[int] = "leaderboard",
    processes: int = 1,
    quirks_off: Sequence[str] = (),
    per_video: PathLike | None = None,
    json_out: PathLike | None = None,
    progress: bool = False,
) -> dict:
    """Score a result folder. The numbers do not depend on `processes`, not in one bit.

    Args:
      truth: VIPSeg root (`panoptic_gt_VIPSeg_<split>.json`, `panomasksRGB/`) or VSPW root (`<split>.txt`, `data/`).
      predictions: VIPSeg results (`pred.json`, `pan_pred/`) or VSPW results (`<video>/<stem>.png`).
      split: split of the truth.
      metrics: of `vpq`, `stq`, `pq`, `miou`, `vc` (VSPW: `miou`, `vc`); default all.
      windows: VPQ's windows: `leaderboard`, `official-script`, `1,2,4` or a sequence of lengths in frames.
      processes: videos are scored in so many processes.
      quirks_off: habits of the official scripts to leave, see `quirks.Quirks`.
      per_video: file that gets one csv row per video.
      json_out: file that gets the result as json.
      progress: show a progress bar on the terminal.

    Returns:
      What was scored (`layout`, `split`, `videos`, `frames`, ...) and one dictionary per metric, in percent; see
      docs/evaluation.md.

    Raises:
      UserError: a folder, file or frame is not as expected; the message names it.
    """
    truth, predictions = pathlib.Path(truth), pathlib.Path(predictions)
    windows, quirks = window_lengths(windows), without(*quirks_off)
    layout = _layout(truth, split)
    if layout == "vipseg":
        root = vipseg_folders.read_truth(truth, split)
        chosen = scores.choose_metrics(metrics, scores.METRICS)
        settings = scores.Settings(root.classes, chosen, windows, quirks)
        results = vipseg_folders.read_predictions(predictions, root)
        jobs = [(video, records, results[video]) for video, records in root.videos.items()]
        score = functools.partial(score_vipseg_video, settings=settings)
        frames = sum(len(records) for records in root.videos.values())
    else:
        chosen = scores.choose_metrics(metrics, ("miou", "vc"))
        settings = scores.Settings(class_table("vspw"), chosen, windows, quirks)
        jobs = list(vspw_folders.read_folders(truth, predictions, split).items())
        score = functools.partial(score_vspw_video, settings=settings)
        frames = sum(len(pairs) for _, pairs in jobs)

    states = scores.make_states(settings)
    for one in _run(score, jobs, processes=processes, progress=progress):
        scores.merge(states, one)
    result = {
        "truth": str(truth),
        "predictions": str(predictions),
        "layout": layout,
        "split": split,
        "videos": len(jobs),
        "frames": frames,
        "unit": "percent",
        "quirks_off": sorted(quirks_off),
    } | scores.compute(states)
    if json_out is not None:
        _write(json_out, json.dumps(result, indent=1, allow_nan=False) + "\n")
    if per_video is not None:
        _write(per_video, _per_video_csv(result))
    return result


def _layout(truth: pathlib.Path, split: str) -> str:
    source = vipseg_folders.truth_json(truth, split)
    if source.is_file():
        return "vipseg"
    if (truth / "data").is_dir() and (truth / f"{split}.txt").is_file():
        return "vspw"
    raise UserError(
        f"{truth}: no truth of split {split!r} there; expected {source.name} and panomasksRGB/ (VIPSeg) "
        f"or {split}.txt and data/ (VSPW)"
    )


def score_vipseg_video(job: tuple, *, settings: scores.Settings) -> dict:
    """States of one video; job is (video, truth records, prediction records)."""
    video, truth, prediction = job
    counts, tracker = scores.count_frames(vipseg_folders.load_frames(truth, prediction), settings)
    vipseg_folders.check_ids(prediction, counts.prediction)
    return scores.score_counts(video, counts, tracker, settings)


def score_vspw_video(job: tuple, *, settings: scores.Settings) -> dict:
    """States of one video; job is (video, mask pairs)."""
    video, pairs = job
    num_classes = len(settings.classes.names)
    states, confusion = scores.make_states(settings), 0
    tracker = vc.Tracker(num_classes, quirks=settings.quirks)
    for truth, prediction in vspw_folders.load_frames(pairs):
        if "miou" in states:
            # class = value - 1, and 0 - 1 is 255, which is no class
            confusion = confusion + miou.confusion_of_maps(truth - truth.dtype.type(1), prediction, num_classes)
        if "vc" in states:
            tracker.add(truth, prediction)
    if "miou" in states:
        states["miou"].update(video, confusion)
    if "vc" in states:
        states["vc"].update(video, tracker.scores())
    return states


def _run(score: Callable, jobs: list, *, processes: int, progress: bool) -> Iterator[dict]:
    """Results of all jobs in their order. Processes are spawned: the caller may hold threads of its own."""
    shown = functools.partial(
        track, description="evaluate", total=len(jobs), console=Console(stderr=True), disable=not progress
    )
    if processes <= 1:
        yield from shown(map(score, jobs))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
        yield from shown(pool.map(score, jobs))


def _write(path: PathLike, text: str) -> None:
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    os.replace(partial, path)


def _per_video_csv(result: dict) -> str:
    """One row per video: every number of each metric's `per_video`."""
    rows: dict[str, dict] = {}
    for metric in scores.METRICS:
        for video, values in result.get(metric, {}).get("per_video", {}).items():
            row = rows.setdefault(video, {"video": video})
            for name, value in values.items():
                if isinstance(value, dict):
                    row |= {f"{metric}{k}": number for k, number in value.items()}
                elif name != "classes":
                    row[name] = value
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.values())
    return text.getvalue()
