"""Videos in, the ensemble's result folder out: members side by side, or one after another in little memory."""

import contextlib
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

from vps_jax.ensemble.averaging import Ensemble, Group
from vps_jax.ensemble.members import Checkpoint, EnsembleConfig, check_kept, member_id, read_members
from vps_jax.files import progress_bar, require_space
from vps_jax.infer.predict import Report, Run, RunOptions, check_outside
from vps_jax.infer.video_order import VideoOrder
from vps_jax.media.result_folders import make_writer
from vps_jax.media.selection import Selection
from vps_jax.media.sources import open_inputs
from vps_jax.media.video import Video
from vps_jax.parsing import parse, plain
from vps_jax.types import UserError
from vps_jax.viz.overlay import Style, chosen_ids


def predict_ensemble(
    sources: Sequence[str | pathlib.Path],
    config: Mapping | EnsembleConfig,
    open_checkpoint: Callable[[str, str], Checkpoint],
    out: str | pathlib.Path,
    *,
    split: str | None = None,
    selection: Selection = Selection(),  # noqa: B008  (immutable)
    strict: bool = False,
    overlay: bool = True,
    progress: bool = True,
    layout: str = "vipseg",
    tracks: bool = False,
    resume: bool = False,
    keep_going: bool = False,
    style: Style = Style(),  # noqa: B008  (immutable)
) -> Report:
    """Segment videos with several models; both ways of running them write the same bytes.

    Args:
      sources, out, split, selection, strict, overlay, progress, layout, tracks, keep_going, style: as in
        `predict.predict`.
      resume: skip videos that this ensemble has finished.
      config: see `members.EnsembleConfig`. A run in turn keeps scores on disk, so one that was stopped goes on.
      open_checkpoint: (path, `ema` or `raw`) -> `members.Checkpoint`.

    Raises:
      UserError: as `predict.predict`; members that do not fit together; too little room on the disk.
    """
    config = parse(EnsembleConfig, config)
    members, things = read_members(config, open_checkpoint)
    videos, failed = open_inputs(sources, split=split, selection=selection, strict=strict, keep_going=keep_going)
    check_outside(videos, pathlib.Path(out))
    check_kept(members, things, videos)
    chosen_ids(style, things.classes)
    writer, keep = make_writer(out, layout, things.classes), config.keep_scores
    if not keep:  # for tuning, members without weight matter too
        members = [m for m in members if m is things or m.weight > 0 or m.name == config.matching.member]
    with _score_folder(keep, pathlib.Path(out), config.run) as folder:
        ensemble = Ensemble(members, things, keep=folder, keep_things=bool(keep), matching=config.matching)
        check_room(ensemble, videos)
        programs = _prepare_groups(ensemble, videos, in_turn=config.run == "in_turn", progress=progress)
        ensemble.groups[0].load()
        options = RunOptions(overlay, tracks, progress, identity(ensemble) if resume else "", keep_going, style)
        order = VideoOrder(lambda original: things.grid(original).padded)
        frames = order.forgetting(ensemble.panoptic_frames) if keep_going else ensemble.panoptic_frames
        report = Run(writer, things.classes, options).write(videos, [frames], taken=order.sorted(videos))
        for group in ensemble.groups:
            programs |= group.programs
    return report._replace(programs=programs, failed=(*failed, *report.failed))


def identity(ensemble: Ensemble) -> str:
    """What makes the results: members, how they are run, scales and weights, and whose things are matched."""
    rows = [[member_id(m), str(m.kept), m.scale, m.weight] for m in ensemble.members]
    content = [rows, ensemble.things.name]
    if ensemble.matching.member:
        content.append(plain(ensemble.matching))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _prepare_groups(ensemble: Ensemble, videos: Sequence[Video], *, in_turn: bool, progress: bool) -> dict[str, int]:
    """Load the groups beside the things member's of which some scores are not there yet, or make their scores now.

    Returns:
      What was compiled by groups that are not loaded any more.
    """
    programs: dict[str, int] = {}
    for group in ensemble.groups[1:]:
        todo = [video for video in videos if not ensemble.is_done(group, video)]
        if not todo:
            continue
        group.load()
        if in_turn:
            _keep_scores(ensemble, group, todo, progress=progress)
            programs |= group.programs
            group.unload()
    return programs


def check_room(ensemble: Ensemble, videos: Sequence[Video]) -> None:
    """Raises UserError if the disk cannot hold the scores that are to be kept, uncompressed."""
    if ensemble.keep is None:
        return
    stuff = len(ensemble.things.classes.stuff_ids)
    kept = [m for m in ensemble.members if ensemble.keep_things or m not in ensemble.groups[0].members]
    need = 0
    for video in videos:
        height, width = ensemble.things.grid(video.size()).padded
        missing = sum(not ensemble.kept(member, video).is_file() for member in kept)
        need += missing * video.num_frames * stuff * (height // 4) * (width // 4) * 2
    require_space(ensemble.keep, need)


@contextlib.contextmanager
def _score_folder(keep: str | None, out: pathlib.Path, run: str) -> Iterator[pathlib.Path | None]:
    """Where scores are kept: in `keep`, or beside the results for the time of a run in turn, or nowhere."""
    if not keep and run == "together":
        yield None
        return
    folder = pathlib.Path(keep) if keep else out / ".scores"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another keep_scores") from error
    yield folder
    if not keep:
        shutil.rmtree(folder)  # only after a whole run: a stopped one finds its scores again


def _keep_scores(ensemble: Ensemble, group: Group, videos: Sequence[Video], *, progress: bool) -> None:
    names = " + ".join(member.name for member in group.members)
    with progress_bar(names, total=sum(video.num_frames for video in videos), show=progress) as advance:
        for video in videos:
            for _ in ensemble.run_group(group, video):
                advance(f"{names}: {video.video_id}")
