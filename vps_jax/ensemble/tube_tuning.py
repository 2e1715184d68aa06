"""How the things of two members are matched, chosen on videos with truth from kept scores and tracks.

A run that matches tracks and keeps its scores keeps the tracks of both members too. From these files every setting
gives the very frames that running it would give, but for the things member's scores, which a run does not round.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from vps_jax.config import Matching
from vps_jax.ensemble import kept_tracks
from vps_jax.ensemble.averaging import weighted_mean
from vps_jax.ensemble.kept_scores import read_header, read_scores
from vps_jax.ensemble.members import Member, kept_folder
from vps_jax.ensemble.tube_matching import match_tracks
from vps_jax.ensemble.tuning import METRICS, Candidate, score_file, truth_frame
from vps_jax.evaluation import counts as counting
from vps_jax.evaluation import metrics as metric_table
from vps_jax.evaluation import scoring, vipseg_folders
from vps_jax.evaluation.protocol import PANOPTIC, Settings
from vps_jax.evaluation.vpq import window_lengths
from vps_jax.files import track
from vps_jax.infer.predictor import build_predictor
from vps_jax.infer.score_maps import GridScores
from vps_jax.types import FrameScores, FrameTracks, UserError

MIN_IOUS = (0.3, 0.5, 0.7)


class MatchingTrial(NamedTuple):
    """A setting, without `member` for tracks as they are, and the headline numbers of `METRICS`, in percent."""

    matching: Matching
    numbers: dict[str, float]


def settings_of(member: str, *, steps: int = 4) -> list[Matching]:
    """No matching, and every weight of `steps` equal parts above 0 with every least IoU."""
    tried = [Matching(member, part / steps, iou) for part in range(1, steps + 1) for iou in MIN_IOUS]
    return [Matching(), *tried]


def tune_matching(
    members: Sequence[Member], things: Member, stuff: Candidate, kept: str | pathlib.Path, truth: str | pathlib.Path, *,
    tried: Sequence[Matching], split: str = "val", windows: str | Sequence[int] = "leaderboard", progress: bool = True,
) -> list[MatchingTrial]:  # fmt: skip
    """Score settings of the matching.

    Args:
      members, things: from `members.read_members`.
      stuff: weights and scales, from `tuning.tune`.
      kept: folder in which a run with `keep_scores` and the same `matching.member` left scores and tracks.
      truth: VIPSeg root with truth json; `split` of it.
      tried: settings, from `settings_of`.
      windows: of VPQ.
      progress: show a progress bar on stderr.

    Returns:
      Trials, the best VPQ first; of equals, the one that was asked for first.

    Raises:
      UserError: scores or tracks of a video are missing.
    """
    members, kept = sorted(members, key=lambda member: member.name), pathlib.Path(kept)
    root = vipseg_folders.read_truth(pathlib.Path(truth), split)
    settings, chosen = Settings(root.classes, window_lengths(windows)), metric_table.choose(METRICS, PANOPTIC)
    partner = next(m for m in members if m.name == next(one.member for one in tried if one.member))
    files = {video: [score_file(member, kept, video) for member in members] for video in root.videos}
    tracks = {video: [_track_file(member, kept, video) for member in (things, partner)] for video in root.videos}
    painter = build_predictor(things.predictor, things.module, {}, things.infer)  # fuses; no model runs
    states = [scoring.make_states(chosen, settings) for _ in tried]
    for video in track(list(root.videos), "tune matching", show=progress):
        for matching, state in zip(tried, states, strict=True):
            frames = _fused(_frames(files[video], tracks[video], stuff, root.classes), matching, painter, root.classes)
            pairs, truths, segments = [], [], []
            for record, frame in zip(root.videos[video], frames, strict=True):
                expected, found = truth_frame(record), counting.from_panoptic(frame)
                pairs.append(counting.count_frame(expected.pixels, found.pixels))
                truths.append(expected.segments)
                segments.append(found.segments)
            scoring.add_counts(state, video, counting.join_frames(pairs, truths, segments))
    numbers = [metric_table.headline(scoring.compute(state)) for state in states]
    trials = [MatchingTrial(*row) for row in zip(tried, numbers, strict=True)]
    return sorted(trials, key=lambda trial: -trial.numbers["vpq"])


def _track_file(member: Member, kept: pathlib.Path, video: str) -> pathlib.Path:
    path = kept_tracks.track_path(kept_folder(kept, member), video)
    if not path.is_file():
        raise UserError(
            f"members.{member.name}: {path} is missing; predict this split with keep_scores and matching.member first"
        )
    return path


def _frames(
    files: Sequence[pathlib.Path], tracks: Sequence[pathlib.Path], stuff: Candidate, classes
) -> Iterator[tuple[FrameScores, FrameTracks, FrameTracks]]:
    """Mean scores of the frames of a video, and the tracks of both members, as a run has them."""
    sizes, stuff_ids = read_header(files[0]).geometry, np.array(classes.stuff_ids, np.int32)
    weights = [np.float32(weight) for weight in stuff.weights]
    scores = zip(*(read_scores(file) for file in files), strict=True)
    pairs = zip(*(kept_tracks.read_tracks(file) for file in tracks), strict=True)
    for parts, both in zip(scores, pairs, strict=True):
        names = {stem for stem, _ in (*parts, *both)}
        if len(names) > 1:
            raise UserError(f"frames {', '.join(sorted(names))} side by side; predict this split anew")
        given = [one for _, one in parts]
        mean = weighted_mean(given, weights, stuff_ids, scales=stuff.scales, num_classes=len(classes.names))
        yield FrameScores(names.pop(), sizes, GridScores(mean, sizes)), *(one for _, one in both)


def _fused(frames, matching: Matching, painter: Any, classes):
    """Panoptic frames with the things of a setting."""
    if matching.member:
        return painter.fuse(match_tracks(frames, matching, classes), classes)
    return painter.fuse((frame._replace(tracks=first) for frame, first, _ in frames), classes)
