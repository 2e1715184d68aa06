"""The ensemble of the paper: stuff scores of several models averaged on one grid, things from one of them.

The common grid is the stride-4 grid of the member that gives the things. Scores of the others are resized onto it,
rounded to float16 (as they are kept on disk), brought to a common scale, and averaged with weights before the one
upsampling; softmax over classes would not change the best class. Members are always added in the order of their names,
so that their order in a config changes nothing (spec: tarvis 8.4, 8.5, 12; vit_adapter 10). Things may be those of two
members, see `tube_matching`.
"""

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.config import Matching
from vps_jax.ensemble import kept_tracks
from vps_jax.ensemble.kept_scores import (
    ScoreHeader,
    as_kept,
    read_header,
    read_scores,
    score_path,
    write_blobs,
    write_scores,
)
from vps_jax.ensemble.members import Member, kept_folder, member_id, stuff_names
from vps_jax.ensemble.tube_matching import match_tracks
from vps_jax.infer.predictor import build_predictor
from vps_jax.infer.process_memory import return_free_memory
from vps_jax.infer.score_maps import GridScores
from vps_jax.media.video import Video
from vps_jax.types import Array, FrameScores, FrameTracks, Geometry, PanopticFrame, UserError

FLOOR = 1e-6  # added to normalised scores before their logarithm


class Group:
    """Members that run together because they share weights and frames: one pass through the model for all."""

    def __init__(self, members: Sequence[Member]):
        self.members = tuple(members)
        self._predictor = None

    def load(self) -> None:
        """Bring the weights to the device."""
        first, *others = self.members
        also = [member.infer for member in others]
        self._predictor = build_predictor(first.predictor, first.module, first.load(), first.infer, also=also)

    def unload(self) -> None:
        """Let go of the weights and of the memory that they had."""
        self._predictor = None
        return_free_memory()

    @property
    def programs(self) -> dict[str, int]:
        """How often each program was compiled; nothing while the weights are not loaded."""
        counts = {} if self._predictor is None else self._predictor.programs
        return {f"{self.members[0].name} {name}": count for name, count in counts.items()}

    def stream(self, video: Video) -> Iterator[tuple[FrameScores, ...]]:
        """Scores of each frame, one per member."""
        if len(self.members) > 1:
            return self._predictor.stream_sets(video)
        return ((frame,) for frame in self._predictor.stream(video))

    def fuse(self, frames: Iterator[FrameScores]) -> Iterator[PanopticFrame]:
        """Panoptic frames as the first member makes them."""
        return self._predictor.fuse(frames, self.members[0].classes)


def scaled(scores: Array, scale: str) -> Array:
    """Raw stuff scores `[s, h4, w4]` on the scale on which members are averaged.

    `logits` takes them as they are. `log_softmax` subtracts a number per pixel: members' units stay, and so does the
    best class of any average. `log_scores` is for sums of probabilities: log of the share of each class.
    """
    if scale == "log_softmax":
        return jax.nn.log_softmax(scores, axis=0)
    if scale == "log_scores":
        share = scores / jnp.maximum(scores.sum(0), FLOOR)
        return jnp.log(share + FLOOR)
    return scores


@functools.partial(jax.jit, static_argnames=("scales", "num_classes"))
def weighted_mean(scores, weights, classes, *, scales: tuple[str, ...], num_classes: int):
    """Mean of members' scores `[s, h4, w4]` with `weights [m]`, as rows `classes` of `[num_classes, h4, w4]`."""
    total = 0.0
    for one, weight, scale in zip(scores, weights, scales, strict=True):
        total = total + weight * scaled(jnp.asarray(one, jnp.float32), scale)
    mean = total / sum(weights)
    return jnp.zeros((num_classes, *mean.shape[1:]), jnp.float32).at[classes].set(mean)


class Part(NamedTuple):
    """What a group says of a frame, on the common grid.

    Attributes:
      stem: name of the frame.
      scores: stuff scores `[s, h4, w4]` by member, float16 if they come from other groups than the first.
      tracks: by member, float16, of the members whose tracks are matched.
    """

    stem: str
    scores: Mapping[str, Array]
    tracks: Mapping[str, FrameTracks]


class Ensemble:
    """Members ready to run over videos; see `members.check_members` for what must hold."""

    def __init__(
        self, members: Sequence[Member], things: Member, *, keep: pathlib.Path | None = None, keep_things: bool = False,
        matching: Matching = Matching(),  # noqa: B008  (immutable)
    ):  # fmt: skip
        """Nothing is loaded yet: `load` the groups that are to run.

        Args:
          members: all, `things` among them.
          things: the member whose tracks are painted.
          keep: folder for the scores of members, read where a video's file is there already; None keeps nothing.
          keep_things: keep the scores of the things member and of those that run with it too (for tuning).
          matching: of the things with the tracks of another of the members.
        """
        self.members = tuple(sorted(members, key=lambda member: member.name))
        self.things = things
        self.keep = keep
        self.keep_things = keep_things
        self.matching = matching
        self.groups = make_groups(self.members, things)
        self._tracked = (things.name, matching.member) if matching.member else ()  # members whose tracks are matched
        self._stuff = np.array(things.classes.stuff_ids, np.int32)

    def kept(self, member: Member, video: Video) -> pathlib.Path | None:
        """File of a member's scores of a video, None without a folder."""
        folder = self._folder(member)
        return folder and score_path(folder, video.video_id)

    def _folder(self, member: Member) -> pathlib.Path | None:
        if member.kept is not None:
            return member.kept
        return kept_folder(self.keep, member) if self.keep else None

    def is_done(self, group: Group, video: Video) -> bool:
        """Whether what all members of a group say is there, of these very frames, on this ensemble's grid."""
        paths = [self.kept(member, video) for member in group.members]
        if not all(path is not None and path.is_file() for path in paths):
            return False
        paths += [kept_tracks.track_path(self._folder(m), video.video_id) for m in group.members if self._is_tracked(m)]
        if not all(path.is_file() for path in paths):
            return False
        sizes, source = self.things.grid(video.size()), video.fingerprint()
        headers = [read_header(path) for path in paths]
        return all(header.geometry == sizes and header.source in ("", source) for header in headers)

    def _is_tracked(self, member: Member) -> bool:
        return member.name in self._tracked

    def run_group(self, group: Group, video: Video) -> Iterator[Part]:
        """What a group says of its frames as it is made, float16 on the common grid; kept if there is a folder.

        The files are finished only when the iterator is used up.
        """
        with self._files(group.members if self.keep else (), video) as append:
            for frames in group.stream(video):
                sizes = self.things.grid(frames[0].sizes.original)
                part = self._part(group, frames, sizes)
                part = part._replace(scores={name: as_kept(x) for name, x in part.scores.items()})
                append(sizes, part)
                yield part

    def _part(self, group: Group, frames: Sequence[FrameScores], sizes: Geometry) -> Part:
        """What the members of a group say of a frame, on the common grid; scores are not rounded."""
        scores, tracks = {}, {}
        for member, frame in zip(group.members, frames, strict=True):
            scores[member.name] = frame.scores.on_grid(sizes, self._stuff)
            if self._is_tracked(member):
                tracks[member.name] = kept_tracks.on_grid(frame, sizes)
        return Part(frames[0].stem, scores, tracks)

    @contextlib.contextmanager
    def _files(self, members: Sequence[Member], video: Video):
        """A function (sizes, `Part`) that appends a frame to the files of these members."""
        with contextlib.ExitStack() as stack:
            scores, tracks = {}, {}

            def open_files(member: Member, sizes: Geometry) -> None:
                header = ScoreHeader(member_id(member), stuff_names(self.things), sizes, video.fingerprint())
                scores[member.name] = stack.enter_context(write_scores(self.kept(member, video), header))
                if self._is_tracked(member):
                    path = kept_tracks.track_path(self._folder(member), video.video_id)
                    tracks[member.name] = stack.enter_context(write_blobs(path, header))

            def append(sizes: Geometry, part: Part) -> None:
                for member in members:
                    if member.name not in scores:
                        open_files(member, sizes)
                    scores[member.name](part.stem, as_kept(part.scores[member.name]))
                for name, write in tracks.items():
                    write(part.stem, kept_tracks.pack(part.tracks[name]))

            yield append

    def panoptic_frames(self, video: Video) -> Iterator[PanopticFrame]:
        """Panoptic frames of a video; groups without kept scores run beside the things member's."""
        frames = self._averaged(video)
        if self.matching.member:
            pair = (self.things.name, self.matching.member)
            with_tracks = ((frame, *(tracks[name] for name in pair)) for frame, tracks in frames)
            return self.groups[0].fuse(match_tracks(with_tracks, self.matching, self.things.classes))
        return self.groups[0].fuse(frame for frame, _ in frames)

    def _averaged(self, video: Video) -> Iterator[tuple[FrameScores, dict[str, FrameTracks]]]:
        """The frames of the things member with the mean of all members' stuff scores in place of its own.

        With each come the tracks, by member, that are to be matched.
        """
        first, *others = self.groups
        streams = [self._kept_or_run(group, video) for group in others]
        with self._files(first.members if self.keep_things else (), video) as append:
            for frames in first.stream(video):
                frame = frames[0]
                own = self._part(first, frames, frame.sizes)
                append(frame.sizes, own)
                parts = [own, *(next(stream, Part("nothing", {}, {})) for stream in streams)]
                for group, part in zip(self.groups, parts, strict=True):
                    if part.stem != frame.stem:
                        raise UserError(
                            f"members.{group.members[0].name}: frame {part.stem} where {frame.stem} is expected"
                        )
                mean = self._mean(own.scores, [part.scores for part in parts[1:]])
                tracks = {name: one for part in parts for name, one in part.tracks.items()}
                yield frame._replace(scores=GridScores(mean, frame.sizes)), tracks
            for stream in streams:
                next(stream, None)  # past its last frame, where its files are finished

    def _kept_or_run(self, group: Group, video: Video) -> Iterator[Part]:
        """What a group says of its frames, from its files or from running it now."""
        if not self.is_done(group, video):
            yield from self.run_group(group, video)
            return
        names = [member.name for member in group.members]
        tracked = [member for member in group.members if self._is_tracked(member)]
        files = [read_scores(self.kept(member, video)) for member in group.members]
        files += [kept_tracks.read_tracks(kept_tracks.track_path(self._folder(m), video.video_id)) for m in tracked]
        for frames in zip(*files, strict=True):
            stem, contents = frames[0][0], [content for _, content in frames]
            scores = dict(zip(names, contents[: len(names)], strict=True))
            yield Part(stem, scores, dict(zip((m.name for m in tracked), contents[len(names) :], strict=True)))

    def _mean(self, own: Mapping[str, Array], others: Sequence[Mapping[str, np.ndarray]]) -> Array:
        """Weighted mean of one frame; only the things member's scores are not rounded to float16."""
        scores = {name: x if name == self.things.name else as_kept(x) for name, x in own.items()}
        for part in others:
            scores.update(part)
        return weighted_mean(
            [scores[member.name] for member in self.members],
            [np.float32(member.weight) for member in self.members],
            self._stuff,
            scales=tuple(member.scale for member in self.members),
            num_classes=len(self.things.classes.names),
        )


def make_groups(members: Sequence[Member], things: Member) -> list[Group]:
    """Groups of members that share weights and frames, the things member's first and itself first in it."""
    together: dict[tuple, list[Member]] = {}
    for member in sorted(members, key=lambda m: m is not things):
        together.setdefault(member.run_key, []).append(member)
    return [Group(part) for part in together.values()]
