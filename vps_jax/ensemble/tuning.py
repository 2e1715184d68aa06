"""Weights and scales of an ensemble, chosen on videos with truth from kept scores, without running a model.

Things do not depend on weights or scales: their pixels are taken from a result folder of the same things member. Every
candidate's stuff map is made from the kept scores, the things are painted over it, and the whole is scored.
"""

import dataclasses
import itertools
import pathlib
import pprint
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vps_jax.config import EnsembleConfig
from vps_jax.ensemble.averaging import weighted_mean
from vps_jax.ensemble.kept_scores import read_header, read_scores, score_path
from vps_jax.ensemble.members import Member, kept_folder
from vps_jax.evaluation import counts as counting
from vps_jax.evaluation import metrics as metric_table
from vps_jax.evaluation import scoring, vipseg_folders
from vps_jax.evaluation.images import read_png
from vps_jax.evaluation.protocol import PANOPTIC, Settings
from vps_jax.evaluation.vpq import window_lengths
from vps_jax.files import track, write_text
from vps_jax.infer.upsampling import label_map
from vps_jax.media.result_folders import read_video
from vps_jax.parsing import parse, plain
from vps_jax.types import Geometry, PanopticFrame, UserError

METRICS = ("vpq", "stq", "miou")
BGR_TO_ID = np.array([65536, 256, 1])


class Candidate(NamedTuple):
    """Weight (they add up to 1) and scale of each member, in the order of their names."""

    weights: tuple[float, ...]
    scales: tuple[str, ...]


class Trial(NamedTuple):
    """A candidate and the headline numbers of `METRICS`, in percent, `vpq` first; what is not defined is not there."""

    candidate: Candidate
    numbers: dict[str, float]


def candidates(members: Sequence[Member], *, steps: int = 4) -> list[Candidate]:
    """Every split of the weight in `steps` equal parts, with every scale that can matter.

    A single member, and the plain mean of the paper (equal weights, scale `logits`), are always among them.
    `log_softmax` subtracts one number from all classes of a pixel and so gives the labels of `logits`; only sums of
    probabilities have another choice: `log_scores`. The scale of a member without weight does not matter.
    """
    members, count = _in_order(members), len(members)
    splits = [parts for parts in itertools.product(range(steps + 1), repeat=count) if sum(parts) == steps]
    weights = [tuple(part / steps for part in parts) for parts in splits] + [(1 / count,) * count]
    choices = [("logits", "log_scores") if member.kind == "probabilities" else ("logits",) for member in members]
    found = {}
    for weight, scales in itertools.product(weights, itertools.product(*choices)):
        scales = tuple(scale if w else "logits" for scale, w in zip(scales, weight, strict=True))
        found[Candidate(weight, scales)] = None
    return list(found)


def tune(
    members: Sequence[Member],
    kept: str | pathlib.Path,
    predictions: str | pathlib.Path,
    truth: str | pathlib.Path,
    *,
    split: str = "val",
    tried: Sequence[Candidate] | None = None,
    windows: str | Sequence[int] = "leaderboard",
    progress: bool = True,
) -> list[Trial]:
    """Score candidates.

    Args:
      members: from `members.read_members`.
      kept: folder in which a run with `keep_scores` left the scores of all members.
      predictions: result folder of that run.
      truth: VIPSeg root with truth json; `split` of it.
      tried: by default all `candidates` of the members.
      windows: of VPQ.
      progress: show a progress bar on stderr.

    Returns:
      Trials, the best VPQ first.

    Raises:
      UserError: scores or frames of a video are missing, or all videos are shorter than a window.
    """
    members = _in_order(members)
    tried = candidates(members) if tried is None else tried
    root = vipseg_folders.read_truth(pathlib.Path(truth), split)
    settings, chosen = Settings(root.classes, window_lengths(windows)), metric_table.choose(METRICS, PANOPTIC)
    vipseg_folders.read_predictions(pathlib.Path(predictions), root)  # refuses what does not fit the truth
    files = {video: [score_file(m, pathlib.Path(kept), video) for m in members] for video in root.videos}
    states = [scoring.make_states(chosen, settings) for _ in tried]
    for video in track(list(root.videos), "tune", show=progress):
        frames = _frames(files[video], pathlib.Path(predictions), root, video)
        for state, counts in zip(states, _count_video(frames, tried, root), strict=True):
            scoring.add_counts(state, video, counts)
    trials = [Trial(c, metric_table.headline(scoring.compute(state))) for c, state in zip(tried, states, strict=True)]
    if "vpq" not in trials[0].numbers:
        raise UserError(f"windows {windows!r}: no video of {split} is as long as the longest; choose shorter windows")
    return sorted(trials, key=lambda trial: -trial.numbers["vpq"])


def _in_order(members: Sequence[Member]) -> list[Member]:
    return sorted(members, key=lambda member: member.name)


def score_file(member: Member, kept: pathlib.Path, video: str) -> pathlib.Path:
    """Kept scores of a member. Raises UserError if there are none of the video."""
    folder = member.kept if member.kept is not None else kept_folder(kept, member)
    path = score_path(folder, video)
    if not path.is_file():
        raise UserError(f"members.{member.name}: {path} is missing; predict this split with keep_scores first")
    return path


def _frames(
    files: Sequence[pathlib.Path], predictions: pathlib.Path, root: vipseg_folders.TruthRoot, video: str
) -> Iterator[tuple[counting.SegmentFrame, PanopticFrame, list[np.ndarray], Geometry]]:
    """Truth, prediction, members' scores and sizes of each frame of a video."""
    sizes = read_header(files[0]).geometry
    records = root.videos[video]
    predicted = read_video(predictions, video, root.classes)
    streams = zip(records, predicted, *(read_scores(file) for file in files), strict=True)
    for record, prediction, *parts in streams:
        names = {record.stem, prediction.stem, *(stem for stem, _ in parts)}
        if len(names) > 1:
            raise UserError(f"video {video}: frames {', '.join(sorted(names))} side by side; predict this split anew")
        expected = truth_frame(record)
        shapes = (prediction.categories.shape, expected.pixels.shape)
        if shapes[0] != shapes[1]:
            found, wanted = ("x".join(map(str, shape[::-1])) for shape in shapes)
            raise UserError(f"video {video}, frame {record.stem}: predicted at {found}, but the truth is {wanted}")
        yield expected, prediction, [scores for _, scores in parts], sizes


def truth_frame(record) -> counting.SegmentFrame:
    """Segments of a frame of `vipseg_folders.TruthRoot`."""
    return counting.SegmentFrame(read_png(record.png, kind="RGB").astype(np.int64) @ BGR_TO_ID, record.segments)


def _count_video(frames, tried: Sequence[Candidate], root: vipseg_folders.TruthRoot) -> list[counting.VideoCounts]:
    """Pixel counts of every candidate; one frame in memory at a time."""
    stuff = np.array(root.classes.stuff_ids, np.int32)
    pairs, predicted, truths = [[] for _ in tried], [[] for _ in tried], []
    for truth, prediction, scores, sizes in frames:
        truths.append(truth.segments)
        for i, candidate in enumerate(tried):
            mean = weighted_mean(
                scores,
                [np.float32(weight) for weight in candidate.weights],
                stuff,
                scales=candidate.scales,
                num_classes=len(root.classes.names),
            )
            labels = label_map(mean, sizes, classes=root.classes.stuff_ids)
            painted = np.where(prediction.track_ids > 0, prediction.categories, labels)
            frame = counting.from_panoptic(PanopticFrame(prediction.stem, painted, prediction.track_ids))
            pairs[i].append(counting.count_frame(truth.pixels, frame.pixels))
            predicted[i].append(frame.segments)
    return [counting.join_frames(pair, truths, tables) for pair, tables in zip(pairs, predicted, strict=True)]


def plain_mean(trials: Sequence[Trial]) -> Trial:
    """The trial of the paper's words: equal weights, scores as they are."""
    return next(t for t in trials if len(set(t.candidate.weights)) == 1 and set(t.candidate.scales) == {"logits"})


def alone(trials: Sequence[Trial], member: int) -> Trial:
    """The trial of one member alone."""
    return next(t for t in trials if t.candidate.weights[member] == 1)


def write_tuned(
    path: str | pathlib.Path, config: EnsembleConfig | Mapping, trials: Sequence[Trial], *, truth: str, split: str,
    matching: Sequence = (),
) -> None:  # fmt: skip
    """Write the best candidate as a config file, with its numbers and those it was compared with.

    Args:
      path: new `.py` file with a `get_config`.
      config: the config that was tuned.
      trials: from `tune`.
      truth, split: named in the file.
      matching: `tube_tuning.MatchingTrial`s, the best first; none leaves the matching as it is.
    """
    config, best = parse(EnsembleConfig, config), trials[0]
    names, members = sorted(config.members), {}
    for name, weight, scale in zip(names, *best.candidate, strict=True):
        members[name] = dataclasses.replace(config.members[name], weight=weight, scale=scale)
    lines = [f"  {line}" for line in (*table(names, trials), *matching_table(matching))]
    config = dataclasses.replace(config, members=members, **({"matching": matching[0].matching} if matching else {}))
    content = pprint.pformat(plain(config), width=100, sort_dicts=False)
    head = f'"""Ensemble chosen from {len(trials)} candidates by its VPQ on {split} of {truth}.\n\n'
    text = head + "\n".join(lines) + '\n"""\n\nimport ml_collections\n\n\ndef get_config():\n'
    indented = content.replace("\n", "\n        ")
    write_text(pathlib.Path(path), f"{text}    return ml_collections.ConfigDict(\n        {indented}\n    )\n")


def table(names: Sequence[str], trials: Sequence[Trial]) -> list[str]:
    """Lines with the numbers of the best candidate, of the plain mean, and of each member (sorted names) alone."""
    rows = [("best", trials[0]), ("plain mean", plain_mean(trials))]
    rows += [(f"{name} alone", alone(trials, i)) for i, name in enumerate(names)]
    return [_line(row, trial.numbers) for row, trial in rows]


def matching_table(trials: Sequence) -> list[str]:
    """Lines with the numbers of the best `tube_tuning.MatchingTrial` and of the things as they are; none for none."""
    rows = [("best matching", trial) for trial in trials[:1]]
    rows += [("no matching", trial) for trial in trials if not trial.matching.member]
    return [_line(row, trial.numbers) for row, trial in rows]


def _line(row: str, numbers: Mapping[str, float | None]) -> str:
    return f"{row:16s}" + ", ".join(f"{key} {'-' if x is None else format(x, '.2f')}" for key, x in numbers.items())
