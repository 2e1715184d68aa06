"""Members of an ensemble: what a config says of them, and whether they fit together, before anything runs."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vps_jax import models
from vps_jax.config import MODELS, EnsembleConfig, Matching, MemberConfig
from vps_jax.datasets.classes import ClassTable
from vps_jax.ensemble.kept_scores import read_header, read_stems, score_path
from vps_jax.infer.predictor import check_classes, check_settings, infer_settings, predictor_class
from vps_jax.media.video import Video
from vps_jax.parsing import parse, plain, resolve
from vps_jax.types import Geometry, UserError

NO_CLASS_SCORES = ("instance", "vos")  # tasks that rate things alone, or no classes


class Checkpoint(NamedTuple):
    """A checkpoint that is not loaded yet.

    Attributes:
      model, infer: of its resolved config.
      classes: of its scores.
      identity: tells its weights from all others: path, step, EMA or raw.
      load: brings the variables to the device.
    """

    model: Any
    infer: Any
    classes: ClassTable
    identity: str
    load: Callable[[], Any]


class Member(NamedTuple):
    """One predictor of an ensemble.

    Attributes:
      name: in messages and folders.
      kind: of its scores, see `predictor.Predictor`.
      scale: on which its scores are averaged, see `averaging.scaled`.
      weight: in the mean, not negative.
      predictor: class that streams its scores; None, as what follows, for a member given by kept scores.
      module: the network.
      infer: how the network runs on videos.
      classes: of its scores.
      load: gives the variables.
      identity: of the weights.
      kept: folder with its scores, for a member that is not run.
    """

    name: str
    kind: str = "logits"
    scale: str = "logits"
    weight: float = 1.0
    predictor: Any = None
    module: Any = None
    infer: Any = None
    classes: ClassTable | None = None
    load: Callable[[], Any] | None = None
    identity: str = ""
    kept: pathlib.Path | None = None

    @property
    def has_tracks(self) -> bool:
        """Whether it can give the things."""
        return hasattr(self.predictor, "grid") and getattr(self.infer, "task", "panoptic") == "panoptic"

    @property
    def run_key(self) -> tuple:
        """Members with the same key run as one: query sets of one model that share weights, frames and clips."""
        if not hasattr(self.predictor, "stream_sets"):
            return (self.name,)
        return (self.identity, dataclasses.replace(self.infer, task="", semantic_group=None))

    def grid(self, original: tuple[int, int]) -> Geometry:
        """The common grid of an ensemble whose things this member gives, for frames of `original` pixels."""
        return self.predictor.grid(self.infer, original)


def read_members(
    config: Mapping | EnsembleConfig, open_checkpoint: Callable[[str, str], Checkpoint]
) -> tuple[list[Member], Member]:
    """Members of a config, and the one that gives the things.

    Args:
      config: see `EnsembleConfig`.
      open_checkpoint: (path, `ema` or `raw`) -> `Checkpoint`.

    Raises:
      UserError: a member is not described right, or does not fit the others.
    """
    config = parse(EnsembleConfig, config)
    members, faults = [], []
    for name in sorted(config.members):
        try:
            members.append(_read_member(name, config.members[name], open_checkpoint))
        except UserError as error:
            faults.append(f"members.{name}: {error}")
    if faults:
        raise UserError("; ".join(faults))
    things = _things_member(members, config.things)
    check_members(members, things)
    check_matching(config.matching, members, things)
    return members, things


def _read_member(name: str, row: MemberConfig, open_checkpoint) -> Member:
    if row.scores:
        kind = kind_of_task(row.task or "semantic")
        return Member(name, kind, row.scale, row.weight, kept=pathlib.Path(row.scores))
    if not row.checkpoint:
        raise UserError("has neither checkpoint nor scores; name one of them")
    opened = open_checkpoint(row.checkpoint, row.weights)
    infer = member_settings(infer_settings(opened.model, opened.infer), row)
    module, predictor = models.build(opened.model), predictor_class(opened.model)
    if getattr(infer, "task", None) in NO_CLASS_SCORES:
        raise UserError(f"infer.task={infer.task!r}: its scores are not of the classes; expected panoptic or semantic")
    check_settings(predictor, module, infer)
    check_classes(module, infer, opened.classes)
    return Member(
        name,
        predictor.kind,
        row.scale,
        row.weight,
        predictor,
        module,
        infer,
        opened.classes,
        opened.load,
        opened.identity,
    )


def member_settings(infer: Any, row: MemberConfig) -> Any:
    """The settings of a checkpoint with what the member's row says of them."""
    given = {
        "task": row.task,
        "semantic_group": row.group,
        "flip": row.flip,
        "scales": row.scales,
        "frame_classes": row.frame_classes,
    }
    changes = {key: value for key, value in given.items() if value is not None and value != ""}
    if not changes.get("flip") and not hasattr(infer, "flip"):
        changes.pop("flip", None)  # a model that cannot flip is not asked to
    return parse(type(infer), plain(infer) | changes, "infer")


def kind_of_task(task: str) -> str:
    """The kind of scores of the models that have a task."""
    for row in MODELS.values():
        fields = {field.name: field for field in dataclasses.fields(row.infer)}
        if "task" in fields and task in fields["task"].metadata.get("choices", ()):
            return resolve(row.predictor).kind
    raise UserError(f"task={task!r}: no model has it; leave it out, or name the task that made the scores")


def _things_member(members: Sequence[Member], name: str | None) -> Member:
    with_tracks = [m for m in members if m.has_tracks]
    chosen = [m for m in with_tracks if name in (None, "", m.name)]
    if len(chosen) != 1:
        there = ", ".join(m.name for m in with_tracks) or "none"
        raise UserError(f"things={name!r}: expected one panoptic member with a checkpoint (there: {there}), name it")
    return chosen[0]


def check_members(members: Sequence[Member], things: Member) -> None:
    """Raises UserError, naming the member, unless all can be averaged with the things member."""
    if not any(m.weight > 0 for m in members):
        raise UserError("members: no weight is above 0; give at least one member a weight")
    for member in members:
        if member.scale == "log_scores" and member.kind != "probabilities":
            raise UserError(
                f"members.{member.name}.scale='log_scores': its scores may be negative; expected a member whose scores "
                "are sums of probabilities, choose logits or log_softmax"
            )
        if member.kept is None and member.classes.names != things.classes.names:
            raise UserError(
                f"members.{member.name}: has {_first_difference(member.classes.names, things.classes.names)} classes; "
                f"expected those of {things.name} in their order, leave it out"
            )


def check_matching(matching: Matching, members: Sequence[Member], things: Member) -> None:
    """Raises UserError unless the member whose tracks are to be matched has some, and is not the things member."""
    there = [member.name for member in members if member.has_tracks and member is not things]
    if matching.member and matching.member not in there:
        raise UserError(
            f"matching.member={matching.member!r}: expected another panoptic member with a checkpoint than "
            f"{things.name} (there: {', '.join(there) or 'none'}); name one, or leave it out"
        )


def check_kept(members: Sequence[Member], things: Member, videos: Sequence[Video]) -> None:
    """Raises UserError, naming the member, unless members given by their scores have these videos and classes."""
    for member in (m for m in members if m.kept is not None):
        for video in videos:
            path = score_path(member.kept, video.video_id)
            if not path.is_file():
                raise UserError(
                    f"members.{member.name}: {path} is missing; expected scores of every video, run it on them"
                )
            _check_file(member, path, video, things)


def stuff_names(things: Member) -> tuple[str, ...]:
    """Names of the classes whose scores are averaged."""
    return tuple(things.classes.names[c] for c in things.classes.stuff_ids)


def _check_file(member: Member, path: pathlib.Path, video: Video, things: Member) -> None:
    header, classes = read_header(path), stuff_names(things)
    where = f"members.{member.name}: {path}"
    if header.classes != classes:
        difference = _first_difference(header.classes, classes)
        raise UserError(f"{where} has {difference}; expected the stuff classes of {things.name} in order, make it anew")
    sizes = things.grid(video.size())
    if header.geometry != sizes:
        raise UserError(f"{where} is for sizes {tuple(header.geometry)}; expected {tuple(sizes)}, make it anew")
    if (stems := tuple(read_stems(path))) != video.stems:
        raise UserError(f"{where} has {_first_difference(stems, video.stems)} frames; expected those of the video")


def _first_difference(given: Sequence[str], expected: Sequence[str]) -> str:
    if len(given) != len(expected):
        return f"{len(given)} instead of {len(expected)}"
    at = next(i for i, (a, b) in enumerate(zip(given, expected, strict=True)) if a != b)
    return f"{given[at]!r} in place of {expected[at]!r}"


def member_id(member: Member) -> str:
    """Identity of a member's scores: its weights and how they were run."""
    return json.dumps([member.identity, plain(member.infer)], sort_keys=True)


def kept_folder(keep: pathlib.Path, member: Member) -> pathlib.Path:
    """Folder of a member's scores; another checkpoint or setting gives another folder."""
    digest = hashlib.sha256(member_id(member).encode()).hexdigest()
    return pathlib.Path(keep) / f"{member.name}-{digest[:12]}"
