"""Videos in, the ensemble's result folder out: members side by side, or one after another in little memory."""

import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

from vps_jax.ensemble.averaging import Ensemble, Group, common_geometry
from vps_jax.ensemble.members import Checkpoint, check_kept, read_members
from vps_jax.infer.predict import Report, make_writer, open_sources, progress_bar, write_videos
from vps_jax.media import video_io
from vps_jax.types import UserError

RUNS = ("together", "in_turn")
KEYS = ("name", "members", "things", "run", "keep_scores", "evaluate")


def predict_ensemble(
    sources: Sequence[str | pathlib.Path],
    config: Mapping,
    open_checkpoint: Callable[[str, str], Checkpoint],
    out: str | pathlib.Path,
    *,
    split: str | None = None,
    overlay: bool = True,
    progress: bool = True,
    layout: str = "vipseg",
) -> Report:
    """Segment videos with several models; both ways of running them write the same bytes.

    Args:
      sources, out, split, overlay, progress, layout: as in `predict.predict`.
      config: `members` and `things`, see `members.read_members`; `run`: `together` (all weights in memory) or `in_turn`
        (one member's weights at a time, the others' scores on disk; a run that was stopped goes on); `keep_scores`:
        folder in which the scores of all members stay, for tuning, or nothing.
      open_checkpoint: (path, `ema` or `raw`) -> `members.Checkpoint`.

    Raises:
      UserError: as `predict.predict`; members that do not fit together; too little room on the disk.
    """
    check_keys(config)
    members, things = read_members(config, open_checkpoint)
    videos = open_sources(sources, split=split)
    check_kept(members, things, videos)
    writer = make_writer(out, layout, things.settings)
    run, keep = config.get("run") or "together", config.get("keep_scores")
    if not keep:  # for tuning, members without weight matter too
        members = [member for member in members if member is things or member.weight > 0]
    with _score_folder(keep, pathlib.Path(out), run) as folder:
        ensemble = Ensemble(members, things, keep=folder, keep_things=bool(keep))
        check_room(ensemble, videos)
        programs: dict[str, int] = {}
        for group in _to_run(ensemble, videos):
            group.load()
            if run == "in_turn":
                _keep_scores(ensemble, group, videos, progress=progress)
                programs |= group.programs
                group.unload()
        ensemble.groups[0].load()
        frames = write_videos(videos, ensemble.segment, writer, things.settings, overlay=overlay, progress=progress)
        for group in ensemble.groups:
            programs |= group.programs
    return Report(len(videos), frames, programs)


def check_keys(config: Mapping) -> None:
    """Raises UserError for an unknown key or way of running."""
    unknown = sorted(set(config) - set(KEYS))
    if unknown:
        raise UserError(f"ensemble.{unknown[0]}: no such setting; expected some of {', '.join(KEYS)}")
    if (config.get("run") or "together") not in RUNS:
        raise UserError(f"ensemble.run={config['run']!r}: expected one of {', '.join(RUNS)}")


def check_room(ensemble: Ensemble, videos: Sequence[video_io.Video]) -> None:
    """Raises UserError if the disk cannot hold the scores that are to be kept, uncompressed."""
    if ensemble.keep is None:
        return
    stuff = len(ensemble.things.settings.classes().stuff_ids)
    kept = [m for m in ensemble.members if ensemble.keep_things or m not in ensemble.groups[0].members]
    need = 0
    for video in videos:
        height, width = common_geometry(video.size(), ensemble.things.settings).padded
        missing = sum(not ensemble.kept(member, video).is_file() for member in kept)
        need += missing * video.num_frames * stuff * (height // 4) * (width // 4) * 2
    free = shutil.disk_usage(ensemble.keep).free
    if need > free:
        raise UserError(
            f"{ensemble.keep}: kept scores may need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; free some, run "
            "fewer videos at a time, or run the members together without keep_scores"
        )


@contextlib.contextmanager
def _score_folder(keep: str | None, out: pathlib.Path, run: str) -> Iterator[pathlib.Path | None]:
    """Where scores are kept: as told, or for the time of a run in turn, or nowhere."""
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


def _to_run(ensemble: Ensemble, videos: Sequence[video_io.Video]) -> Iterator[Group]:
    """Groups beside the things member's of which some scores are not there yet."""
    for group in ensemble.groups[1:]:
        if not all(ensemble.is_done(group, video) for video in videos):
            yield group


def _keep_scores(ensemble: Ensemble, group: Group, videos: Sequence[video_io.Video], *, progress: bool) -> None:
    names = " + ".join(member.name for member in group.members)
    todo = [video for video in videos if not ensemble.is_done(group, video)]
    with progress_bar(sum(video.num_frames for video in todo), show=progress) as advance:
        for video in todo:
            for _ in ensemble.run_group(group, video):
                advance(f"{names}: {video.video_id}")
