"""The ensemble of the paper: stuff scores of several models averaged on one grid, things from one of them.

The common grid is the stride-4 grid of the member that gives the things. Scores of the others are resized onto it,
rounded to float16 (as they are kept on disk), brought to a common scale, and averaged with weights before the one
upsampling; softmax over classes would not change the best class. Members are always added in the order of their names,
so that their order in a config changes nothing (spec: tarvis 8.4, 8.5, 12; vit_adapter 10).
"""

import contextlib
import ctypes
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.ensemble.kept_scores import ScoreHeader, as_kept, read_scores, score_path, write_scores
from vps_jax.ensemble.members import Member, kept_folder, member_id
from vps_jax.infer import clip_model
from vps_jax.infer.fusion import Geometry
from vps_jax.infer.segment import StitchedClip, fuse_frames, stitched_clips
from vps_jax.infer.settings import IMAGE_TASK, Settings
from vps_jax.infer.sliding import SlidingModel, grid_positions, sample_matrix
from vps_jax.infer.stitching import Stitched
from vps_jax.media import video_io
from vps_jax.types import Array, PanopticFrame, UserError

FLOOR = 1e-6  # added to normalised scores before their logarithm


class MemberClip(NamedTuple):
    """What became final with one clip of a group of members.

    Attributes:
      sizes: of the things member's frames.
      stems: names of the finished frames.
      scores: per frame, member name -> raw stuff scores `[s, h4, w4]` on the common grid.
      stitched: of the group's first member; None for an image model.
    """

    sizes: Geometry
    stems: list[str]
    scores: list[dict[str, Array]]
    stitched: Stitched | None


class Group:
    """Members that run together because they share weights and frames: one pass through backbone and neck for all."""

    def __init__(self, members: Sequence[Member], things: Member):
        self.members = tuple(members)
        self._things = things.settings
        self._classes = np.array(things.settings.classes().stuff_ids, np.int32)
        self._runner = None

    def load(self) -> None:
        """Bring the weights to the device."""
        first, *others = self.members
        s = first.settings
        if s.task == IMAGE_TASK:
            self._runner = SlidingModel(first.model, first.load(), s.sliding())
            return
        self._runner = clip_model.ClipModel(
            first.model,
            first.load(),
            task=s.task,
            group=s.semantic_group,
            chunk=max(1, s.clip_frames - s.overlap_frames),
            also=[(member.settings.task, member.settings.semantic_group) for member in others],
        )

    def unload(self) -> None:
        """Let go of the weights and of the memory that they had."""
        self._runner = None
        give_back_memory()

    @property
    def programs(self) -> dict[str, int]:
        """How often each program was compiled; nothing while the weights are not loaded."""
        counts = {} if self._runner is None else self._runner.programs
        return {f"{self.members[0].name} {name}": count for name, count in counts.items()}

    def clips(self, video: video_io.Video) -> Iterator[MemberClip]:
        """Scores of a video as they become final."""
        if self.members[0].settings.task == IMAGE_TASK:
            yield from self._image_frames(video)
            return
        mirrors = (False, True) if self.members[0].settings.flip else (False,)
        runs = [self._run_clips(video, mirrored=mirrored) for mirrored in mirrors]
        for passes in zip(*runs, strict=True):
            yield self._mean_of_passes(passes)

    def _image_frames(self, video: video_io.Video) -> Iterator[MemberClip]:
        for frame in video.frames():
            sizes = common_geometry(frame.image.shape[:2], self._things)
            scores = self._runner.grid_scores(frame.image, sizes, classes=self._classes)
            yield MemberClip(sizes, [frame.stem], [{self.members[0].name: scores}], None)

    def _run_clips(self, video: video_io.Video, *, mirrored: bool) -> Iterator[StitchedClip]:
        self._runner.reset()
        # a mirrored pass of the same video runs beside this one and must not meet its features
        runner = self._runner.fresh() if mirrored else self._runner
        settings = self.members[0].settings
        return stitched_clips(video, runner.predict_sets, settings, num_sets=len(self.members), mirrored=mirrored)

    def _mean_of_passes(self, passes: Sequence[StitchedClip]) -> MemberClip:
        """Stuff scores on the common grid, averaged over the plain and the mirrored pass."""
        plain = passes[0]
        sizes = common_geometry(plain.sizes.original, self._things)
        scores = []
        for t in range(len(plain.stems)):
            frame = {}
            for i, member in enumerate(self.members):
                maps = [
                    to_grid(one.sets[i].frames[t].semantic, self._classes, plain.sizes, sizes, mirrored=k == 1)
                    for k, one in enumerate(passes)
                ]
                frame[member.name] = maps[0] if len(maps) == 1 else _mean(*maps)
            scores.append(frame)
        return MemberClip(sizes, plain.stems, scores, plain.sets[0])


def give_back_memory() -> None:
    """Return freed memory to the system: on a CPU, glibc would keep part of what a member had."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def common_geometry(original: tuple[int, int], things: Settings) -> Geometry:
    """Sizes of a video as the things member sees it."""
    return clip_model.geometry(original, short_side=things.short_side_px, max_side=things.max_side_px)


def to_grid(semantic: Array, classes: np.ndarray, sizes: Geometry, common: Geometry, *, mirrored: bool) -> Array:
    """Chosen classes of scores `[k, h4, w4]` on the grid of another geometry.

    Args:
      semantic: scores on the stride-4 grid of `sizes`.
      classes: rows to keep.
      sizes: what the member saw.
      common: where the scores are wanted; cells beyond the frame repeat what the member saw there.
      mirrored: the member saw the frame flipped.

    Returns:
      float32 `[len(classes), h4', w4']`; the very numbers when nothing is to be resized.
    """
    if sizes == common and not mirrored:
        return _rows(semantic, classes)
    rows, columns = (
        sample_matrix(grid_positions(out // 4, resized=resized, size=seen / 4), grid // 4)
        for out, resized, seen, grid in zip(common.padded, common.resized, sizes.resized, sizes.padded, strict=True)
    )
    if mirrored:
        at = sizes.resized[1] / 4 - grid_positions(
            common.padded[1] // 4, resized=common.resized[1], size=sizes.resized[1] / 4
        )
        columns = sample_matrix(at, sizes.padded[1] // 4)
    return _resample(semantic, classes, rows.astype(np.float32), columns.astype(np.float32))


_rows = jax.jit(lambda semantic, classes: semantic[classes].astype(jnp.float32))
_mean = jax.jit(lambda a, b: 0.5 * (a + b))


@jax.jit
def _resample(semantic, classes, rows, columns):
    with jax.default_matmul_precision("highest"):
        return jnp.einsum("khw,yh,xw->kyx", semantic[classes].astype(jnp.float32), rows, columns)


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


class Ensemble:
    """Members ready to run over videos; see `members.check_members` for what must hold."""

    def __init__(
        self, members: Sequence[Member], things: Member, *, keep: pathlib.Path | None = None, keep_things: bool = False
    ):
        """Nothing is loaded yet: `load` the groups that are to run.

        Args:
          members: all, `things` among them.
          things: the member whose tracks are painted.
          keep: folder for the scores of members, read where a video's file is there already; None keeps nothing.
          keep_things: keep the scores of the things member and of those that run with it too (for tuning).
        """
        self.members = tuple(sorted(members, key=lambda member: member.name))
        self.things = things
        self.keep = keep
        self.keep_things = keep_things
        self.groups = make_groups(self.members, things)

    def kept(self, member: Member, video: video_io.Video):
        """File of a member's scores of a video, None without a folder."""
        if member.kept is not None:
            return score_path(member.kept, video.video_id)
        return score_path(kept_folder(self.keep, member, self.things), video.video_id) if self.keep else None

    def _header(self, member: Member, sizes: Geometry) -> ScoreHeader:
        table = self.things.settings.classes()
        return ScoreHeader(member_id(member, self.things), tuple(table.names[c] for c in table.stuff_ids), sizes)

    def is_done(self, group: Group, video: video_io.Video) -> bool:
        """Whether the scores of all members of a group are there."""
        paths = [self.kept(member, video) for member in group.members]
        return all(path is not None and path.is_file() for path in paths)

    def run_group(self, group: Group, video: video_io.Video) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Names and scores of a group's frames as they are made, float16 on the common grid; kept if there is a folder.

        The files are finished only when the iterator is used up.
        """
        with self._files(group.members if self.keep else (), video) as append:
            for clip in group.clips(video):
                for stem, scores in zip(clip.stems, clip.scores, strict=True):
                    kept = {name: as_kept(x) for name, x in scores.items()}
                    append(clip.sizes, stem, kept)
                    yield stem, kept

    @contextlib.contextmanager
    def _files(self, members: Sequence[Member], video: video_io.Video):
        """A function (sizes, name of the frame, scores by member) that appends a frame to the members' files."""
        with contextlib.ExitStack() as stack:
            files = {}

            def append(sizes: Geometry, stem: str, scores: Mapping[str, Array]) -> None:
                for member in members:
                    if member.name not in files:
                        target = write_scores(self.kept(member, video), self._header(member, sizes))
                        files[member.name] = stack.enter_context(target)
                    files[member.name](stem, as_kept(scores[member.name]))

            yield append

    def segment(self, video: video_io.Video) -> Iterator[PanopticFrame]:
        """Panoptic frames of a video; groups without kept scores run beside the things member's."""
        return fuse_frames(self._fused_clips(video), self.things.settings)

    def _fused_clips(self, video: video_io.Video) -> Iterator[StitchedClip]:
        first, *others = self.groups
        streams = [self._frames(group, video) for group in others]
        with self._files(first.members if self.keep_things else (), video) as append:
            for clip in first.clips(video):
                frames = []
                for stem, own, frame in zip(clip.stems, clip.scores, clip.stitched.frames, strict=True):
                    append(clip.sizes, stem, own)
                    parts = [next(stream, ("nothing", {})) for stream in streams]
                    for group, (other, _) in zip(others, parts, strict=True):
                        if other != stem:
                            raise UserError(f"members.{group.members[0].name}: frame {other} where {stem} is expected")
                    frames.append(frame._replace(semantic=self._mean(own, [scores for _, scores in parts])))
                yield StitchedClip(clip.sizes, clip.stems, (clip.stitched._replace(frames=frames),))
            for stream in streams:
                next(stream, None)  # past its last frame, where its files are finished

    def _frames(self, group: Group, video: video_io.Video) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Names and kept scores of a group's frames, from its files or from running it now."""
        if not self.is_done(group, video):
            yield from self.run_group(group, video)
            return
        files = [read_scores(self.kept(member, video)) for member in group.members]
        for parts in zip(*files, strict=True):
            yield parts[0][0], {member.name: x for member, (_, x) in zip(group.members, parts, strict=True)}

    def _mean(self, own: Mapping[str, Array], others: Sequence[Mapping[str, np.ndarray]]) -> Array:
        """Weighted mean of one frame; only the things member's scores are not rounded to float16."""
        scores = {name: x if name == self.things.name else as_kept(x) for name, x in own.items()}
        for part in others:
            scores.update(part)
        table = self.things.settings.classes()
        return weighted_mean(
            [scores[member.name] for member in self.members],
            [np.float32(member.weight) for member in self.members],
            np.array(table.stuff_ids, np.int32),
            scales=tuple(member.scale for member in self.members),
            num_classes=len(table.names),
        )


def make_groups(members: Sequence[Member], things: Member) -> list[Group]:
    """Groups of members that share weights and frames, the things member's first and itself first in it."""
    together: dict[tuple, list[Member]] = {}
    for member in sorted(members, key=lambda m: m is not things):
        together.setdefault(member.run_key, []).append(member)
    return [Group(part, things) for part in together.values()]
