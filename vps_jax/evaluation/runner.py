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
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from vps_jax.evaluation import miou, scores, vc, vipseg_folders, vspw_folders, ytvis_folders
from vps_jax.evaluation.ap import AveragePrecision
from vps_jax.evaluation.quirks import Quirks, without
from vps_jax.evaluation.terminal import print_report
from vps_jax.evaluation.vpq import window_lengths
from vps_jax.taxonomy import class_table
from vps_jax.types import UserError

__all__ = ["evaluate_folders", "print_report"]

PathLike = str | os.PathLike


class Plan(NamedTuple):
    """What there is to score.

    Attributes:
      layout: `vipseg`, `vspw` or `ytvis`.
      states: metric -> empty state.
      score: turns one job, a video, into states of the same metrics; can be sent to another process.
      jobs: one per video.
      frames: of all videos.
    """

    layout: str
    states: dict
    score: Callable
    jobs: list
    frames: int


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
      truth: VIPSeg root (`panoptic_gt_VIPSeg_<split>.json`, `panomasksRGB/`), VSPW root (`<split>.txt`, `data/`), or
        YouTube-VIS / OVIS root or json file.
      predictions: VIPSeg results (`pred.json`, `pan_pred/`), VSPW results (`<video>/<stem>.png`), or results.json.
      split: split of the truth.
      metrics: names or a text `vpq,stq`. VIPSeg: `vpq`, `stq`, `pq`, `miou`, `vc` by default, and `anatomy`; VSPW:
        `miou`, `vc`; YouTube-VIS: `ap`. `all` is all of them.
      windows: VPQ's windows: `leaderboard`, `official-script`, `1,2,4` or a sequence of lengths in frames.
      processes: videos are scored in so many processes.
      quirks_off: habits of the official scripts to leave, see `quirks.Quirks`.
      per_video: file that gets one csv row per video.
      json_out: file that gets the result as json.
      progress: show a progress bar on standard error.

    Returns:
      What was scored (`layout`, `split`, `videos`, `frames`, ...) and one dictionary per metric, in percent; see
      docs/evaluation.md.

    Raises:
      UserError: a folder, file or frame is not as expected; the message names it.
    """
    truth, predictions = pathlib.Path(truth), pathlib.Path(predictions)
    plan = _plan(truth, predictions, split, metrics, window_lengths(windows), without(*quirks_off))
    if per_video is not None and plan.layout == "ytvis":
        raise UserError(f"{per_video}: AP has no value for one video; leave the csv per video out")
    for states in _run(plan, processes=processes, progress=progress):
        scores.merge(plan.states, states)
    result = {
        "truth": str(truth),
        "predictions": str(predictions),
        "layout": plan.layout,
        "split": split,
        "videos": len(plan.jobs),
        "frames": plan.frames,
        "unit": "percent",
        "quirks_off": sorted(quirks_off),
    } | scores.compute(plan.states)
    if json_out is not None:
        _write(json_out, json.dumps(result, indent=1, allow_nan=False) + "\n")
    if per_video is not None:
        _write(per_video, _per_video_csv(result))
    return result


def _plan(truth, predictions, split, metrics, lengths, quirks: Quirks) -> Plan:
    """The plan of whichever layout the truth has."""
    if vipseg_folders.truth_json(truth, split).is_file():
        return _plan_vipseg(truth, predictions, split, metrics, lengths, quirks)
    if (truth / "data").is_dir() and (truth / f"{split}.txt").is_file():
        return _plan_vspw(truth, predictions, split, metrics, quirks)
    if (source := ytvis_folders.truth_json(truth, split)) is not None:
        return _plan_ytvis(source, predictions, metrics, quirks)
    raise UserError(
        f"{truth}: no truth of split {split!r} there; expected {vipseg_folders.truth_json(truth, split).name} "
        f"(VIPSeg), {split}.txt and data/ (VSPW) or {split}/instances.json (YouTube-VIS)"
    )


def _plan_vipseg(truth, predictions, split, metrics, lengths, quirks: Quirks) -> Plan:
    root = vipseg_folders.read_truth(truth, split)
    chosen = scores.choose_metrics(metrics, scores.METRICS, scores.DEFAULT)
    settings = scores.Settings(root.classes, chosen, lengths, quirks)
    results = vipseg_folders.read_predictions(predictions, root)
    jobs = [(video, records, results[video]) for video, records in root.videos.items()]
    frames = sum(len(records) for records in root.videos.values())
    score = functools.partial(_score_vipseg, settings=settings)
    return Plan("vipseg", scores.make_states(settings), score, jobs, frames)


def _score_vipseg(job: tuple, *, settings: scores.Settings) -> dict:
    video, truth, prediction = job
    counts, tracker = scores.count_frames(vipseg_folders.load_frames(truth, prediction), settings)
    vipseg_folders.check_ids(prediction, counts.prediction)
    return scores.score_counts(video, counts, tracker, settings)


def _plan_vspw(truth, predictions, split, metrics, quirks: Quirks) -> Plan:
    chosen = scores.choose_metrics(metrics, ("miou", "vc"), ("miou", "vc"))
    settings = scores.Settings(class_table("vspw"), chosen, quirks=quirks)
    jobs = list(vspw_folders.read_folders(truth, predictions, split).items())
    score = functools.partial(_score_vspw, settings=settings)
    return Plan("vspw", scores.make_states(settings), score, jobs, sum(len(pairs) for _, pairs in jobs))


def _score_vspw(job: tuple, *, settings: scores.Settings) -> dict:
    video, pairs = job
    num_classes = len(settings.classes.names)
    states, confusion = scores.make_states(settings), 0
    tracker = vc.Tracker(num_classes, quirks=settings.quirks)
    for truth, prediction in vspw_folders.load_frames(pairs):
        if "miou" in states:
            # class = value - 1; in uint8 void 0 becomes 255, which is no class either
            confusion = confusion + miou.confusion_of_maps(truth - truth.dtype.type(1), prediction, num_classes)
        if "vc" in states:
            tracker.add(truth, prediction)
    if "miou" in states:
        states["miou"].update(video, confusion)
    if "vc" in states:
        states["vc"].update(video, tracker.scores())
    return states


def _plan_ytvis(source, predictions, metrics, quirks: Quirks) -> Plan:
    scores.choose_metrics(metrics, ("ap",), ("ap",))
    categories, videos = ytvis_folders.read_files(source, predictions)
    score = functools.partial(_score_ytvis, categories=categories, quirks=quirks)
    states = {"ap": AveragePrecision(categories, quirks=quirks)}
    return Plan("ytvis", states, score, videos, sum(video.length for video in videos))


def _score_ytvis(job: ytvis_folders.VideoTracks, *, categories: dict[int, str], quirks: Quirks) -> dict:
    state = AveragePrecision(categories, quirks=quirks)
    state.update(job.video, *ytvis_folders.tracks(job))
    return {"ap": state}


def _run(plan: Plan, *, processes: int, progress: bool) -> Iterator[dict]:
    """States of all videos in order. Processes are spawned: the caller may hold threads of its own."""
    console = Console(stderr=True)
    shown = functools.partial(
        track, description="evaluate", total=len(plan.jobs), console=console, disable=not progress
    )
    if processes <= 1:
        yield from shown(map(plan.score, plan.jobs))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(plan.jobs)), mp_context=context) as pool:
        yield from shown(pool.map(plan.score, plan.jobs))


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
