"""Members of an ensemble: what a config says of them, and whether they fit together, before anything runs."""

import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vps_jax import models
from vps_jax.ensemble.kept_scores import read_header, read_stems, score_path
from vps_jax.infer.clip_model import geometry
from vps_jax.infer.segment import check_classes
from vps_jax.infer.settings import IMAGE_TASK, TASKS, Settings
from vps_jax.media import video_io
from vps_jax.types import UserError

SCALES = ("logits", "log_softmax", "log_scores")
WEIGHTS = ("ema", "raw")
KEYS = ("checkpoint", "weights", "task", "group", "scale", "weight", "flip", "scores")


class Checkpoint(NamedTuple):
    """A checkpoint that is not loaded yet.

    Attributes:
      config: its resolved config, with `model` and `infer`.
      identity: tells its weights from all others: path, step, EMA or raw.
      load: brings the variables to the device.
    """

    config: Mapping
    identity: str
    load: Callable[[], Any]


class Member(NamedTuple):
    """One predictor of an ensemble.

    Attributes:
      name: in messages and folders.
      settings: how its model runs on videos; `flip` averages with the mirrored video.
      scale: one of `SCALES`, see `ensemble.scaled`.
      weight: in the mean, not negative.
      model: flax module, None for a member given by kept scores.
      load: gives the variables.
      identity: of the weights.
      kept: folder with its scores, for a member that is not run.
    """

    name: str
    settings: Settings
    scale: str = "logits"
    weight: float = 1.0
    model: Any = None
    load: Callable[[], Any] | None = None
    identity: str = ""
    kept: pathlib.Path | None = None

    @property
    def run_key(self) -> tuple:
        """Members with the same key share weights, frames and clips, so they run as one."""
        if self.kept is not None or self.settings.task == IMAGE_TASK:
            return (self.name,)
        return (self.identity, self.settings._replace(task="", semantic_group=None))


def read_members(config: Mapping, open_checkpoint: Callable[[str, str], Checkpoint]) -> tuple[list[Member], Member]:
    """Members of a config, and the one that gives the things.

    Args:
      config: `members`: name -> mapping of `KEYS`; `things`: name of a member, needed if several are panoptic.
      open_checkpoint: (path, `ema` or `raw`) -> `Checkpoint`.

    Raises:
      UserError: a member is not described right, or does not fit the others.
    """
    members = [_read_member(name, config["members"][name], open_checkpoint) for name in sorted(config["members"])]
    things = _things_member(members, config.get("things"))
    check_members(members, things)
    return members, things


def _read_member(name: str, row: Mapping, open_checkpoint) -> Member:
    unknown = sorted(set(row) - set(KEYS))
    if unknown:
        raise UserError(f"members.{name}.{unknown[0]}: no such setting; expected some of {', '.join(KEYS)}")
    common = {"scale": row.get("scale", "logits"), "weight": float(row.get("weight", 1.0))}
    if row.get("scores"):
        return Member(name, Settings(task=row.get("task", "semantic")), kept=pathlib.Path(row["scores"]), **common)
    if not row.get("checkpoint"):
        raise UserError(f"members.{name}: has neither checkpoint nor scores; name one of them")
    if row.get("weights", "ema") not in WEIGHTS:
        raise UserError(f"members.{name}.weights={row['weights']!r}: expected one of {', '.join(WEIGHTS)}")
    try:
        found = open_checkpoint(row["checkpoint"], row.get("weights", "ema"))
        settings = Settings.from_config(found.config["infer"])
        model = models.build(found.config["model"])
    except UserError as error:
        raise UserError(f"members.{name}: {error}") from None
    task = row.get("task") or settings.task
    # the two kinds of models take different tasks, and a checkpoint's own tells its kind
    fitting = (IMAGE_TASK,) if settings.task == IMAGE_TASK else tuple(t for t in TASKS if t != IMAGE_TASK)
    if task not in fitting:
        raise UserError(f"members.{name}.task={task!r}: its checkpoint can run {' or '.join(fitting)}; choose that")
    settings = settings._replace(
        task=task,
        semantic_group=row.get("group") or settings.semantic_group,
        flip=bool(row.get("flip", settings.flip)),
    )
    return Member(name, settings, model=model, load=found.load, identity=found.identity, **common)


def _things_member(members: Sequence[Member], name: str | None) -> Member:
    panoptic = [m for m in members if m.settings.task == "panoptic" and m.kept is None]
    chosen = [m for m in panoptic if name in (None, "", m.name)]
    if len(chosen) != 1:
        found = ", ".join(m.name for m in panoptic) or "none"
        raise UserError(f"things={name!r}: expected one panoptic member with a checkpoint (there: {found}), name it")
    return chosen[0]


def check_members(members: Sequence[Member], things: Member) -> None:
    """Raises UserError, naming the member, unless all can be averaged with the things member."""
    if not any(m.weight > 0 for m in members):
        raise UserError("members: no weight is above 0; give at least one member a weight")
    for member in members:
        if not (member.weight >= 0 and math.isfinite(member.weight)):
            raise UserError(f"members.{member.name}.weight={member.weight}: expected a number of at least 0")
        if member.scale not in SCALES:
            raise UserError(f"members.{member.name}.scale={member.scale!r}: expected one of {', '.join(SCALES)}")
        if member.scale == "log_scores" and member.settings.task != IMAGE_TASK:
            raise UserError(
                f"members.{member.name}.scale='log_scores': its scores may be negative; expected a member of task "
                f"{IMAGE_TASK}, choose logits or log_softmax"
            )
        if member.kept is None:
            _check_model(member, things)


def _check_model(member: Member, things: Member) -> None:
    found, expected = member.settings.classes().names, things.settings.classes().names
    if found != expected:
        raise UserError(
            f"members.{member.name}: taxonomy {member.settings.taxonomy!r} has {_first_difference(found, expected)} "
            f"classes; expected those of {things.name} in their order, leave it out"
        )
    try:
        check_classes(member.model, member.settings)
        if member.settings.task == IMAGE_TASK:
            check_window(member.model, member.settings)
    except UserError as error:
        raise UserError(f"members.{member.name}: {error}") from None


def check_window(model, settings: Settings) -> None:
    """Raises UserError if the windows are not of the only size that a BEiT takes."""
    backbone = getattr(model, "backbone", None)
    size = getattr(backbone, "image_size", None)
    if getattr(backbone, "beit", False) and tuple(size) != (settings.window_px,) * 2:
        raise UserError(f"window_px={settings.window_px}; expected {size[0]}, the size of the model's tables")


def check_kept(members: Sequence[Member], things: Member, videos: Sequence[video_io.Video]) -> None:
    """Raises UserError, naming the member, unless members given by their scores have these videos and classes."""
    table = things.settings.classes()
    expected = tuple(table.names[c] for c in table.stuff_ids)
    for member in (m for m in members if m.kept is not None):
        for video in videos:
            path = score_path(member.kept, video.video_id)
            if not path.is_file():
                raise UserError(
                    f"members.{member.name}: {path} is missing; expected scores of every video, run it on them"
                )
            _check_file(member, path, video, things, expected)


def _check_file(member: Member, path: pathlib.Path, video: video_io.Video, things: Member, classes: tuple) -> None:
    header, where = read_header(path), f"members.{member.name}: {path}"
    if header.classes != classes:
        found = _first_difference(header.classes, classes)
        raise UserError(f"{where} has {found}; expected the stuff classes of the taxonomy in their order, make it anew")
    sizes = geometry(video.size(), short_side=things.settings.short_side_px, max_side=things.settings.max_side_px)
    if header.geometry != sizes:
        raise UserError(f"{where} is for sizes {tuple(header.geometry)}; expected {tuple(sizes)}, make it anew")
    if (stems := tuple(read_stems(path))) != video.stems:
        raise UserError(f"{where} has {_first_difference(stems, video.stems)} frames; expected those of the video")


def _first_difference(found: Sequence[str], expected: Sequence[str]) -> str:
    if len(found) != len(expected):
        return f"{len(found)} instead of {len(expected)}"
    at = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
    return f"{found[at]!r} in place of {expected[at]!r}"


def member_id(member: Member, things: Member) -> str:
    """Identity of a member's scores: its weights and how they were run, and the grid on which they lie."""
    grid = (things.settings.short_side_px, things.settings.max_side_px)
    return json.dumps([member.identity, member.settings._asdict(), grid], sort_keys=True)


def kept_folder(keep: pathlib.Path, member: Member, things: Member) -> pathlib.Path:
    """Folder of a member's scores; another checkpoint or setting gives another folder."""
    digest = hashlib.sha256(member_id(member, things).encode()).hexdigest()
    return pathlib.Path(keep) / f"{member.name}-{digest[:12]}"
