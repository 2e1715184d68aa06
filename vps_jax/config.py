"""What an experiment is: every key behind main.py and in checkpoints, with its default, in frozen dataclasses.

The defaults are the published values of Swin-L fine-tuning on VIPSeg (spec: tarvis 6.6, 7, 8). [ours] marks our own
choice. A file of `configs/` states what it changes; `experiment` turns its mapping into these dataclasses once, and
nothing behind it subscripts a string. What belongs to one model or task stands in model_configs.py.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vps_jax.model_configs import (
    MODELS,
    TASKS,
    ClipInference,
    Instance,
    Mask2Former,
    MaskClassification,
    ModelRow,
    Panoptic,
    QueryInference,
    Semantic,
    Tarvis,
    TaskRow,
    VideoMasks,
    VidEoMT,
    Vos,
    WindowInference,
    model_config,
    model_row,
    task_row,
)
from vps_jax.parsing import choice, number, parse
from vps_jax.types import UserError
from vps_jax.upgrade import VERSION, upgrade

__all__ = [
    "MODELS", "NO_DECAY", "TASKS", "VERSION", "ClipInference", "Color", "Data", "EnsembleConfig", "Evaluate",
    "Experiment", "InitFrom", "Instance", "Mask2Former", "MaskClassification", "Matching", "MemberConfig", "ModelRow",
    "Optim", "OwnData", "Panoptic", "QueryInference", "Semantic", "Source", "Synthetic", "Tarvis", "TaskRow", "Train",
    "UserError", "VidEoMT", "VideoMasks", "Vos", "WindowInference", "ensemble_experiment", "experiment",
    "model_config", "model_row", "source_group", "task_row", "upgrade",
]  # fmt: skip

NO_DECAY = (r"norm[^/]*/(scale|bias)$", "^queries/", "level_embed")  # all norms and embeddings; biases do decay
Size = tuple[int, int]


@dataclass(frozen=True)
class Train:
    """The run."""

    steps: int = number(90_000, low=0)
    batch_size: int = number(32, low=1)  # clips per step on all devices together (spec: tarvis 7.2)
    accumulate: int = number(1, low=1)  # micro-batches per step; the published batch on few devices
    fsdp: int = number(1, low=1)  # devices that share one copy of the parameters
    seed: int = number(42, low=0)
    ema_decay: float = number(0.9998, low=0, high=1)  # after a ramp of (1 + n) / (10 + n) [ours]
    on_nonfinite: str = choice("stop", "skip")  # what a loss or gradient that is not finite leads to
    skip_at_most: int = number(10, low=1)  # steps in a row; more of them stop the run
    log_every: int = number(50, low=0)
    checkpoint_every: int = number(1_000, low=0)
    evaluate_every: int = number(10_000, low=0)  # and after the last step; 0 never
    first_evaluation: int = number(0, low=0)  # once more after so many steps, to see pictures soon; 0 not
    keep_checkpoints: int = number(2, low=1)  # the newest; the best by `best_metric` of the EMA weights stays as well
    best_metric: str = "vpq"
    wandb_project: str = ""  # of Weights & Biases, which then gets what TensorBoard gets; empty: none
    vos_point_likelihood: float = number(0.3, low=0, high=1)  # of VOS objects that are given by a point

    def __post_init__(self):
        if self.batch_size % self.accumulate:
            raise UserError(
                f"batch_size={self.batch_size} cannot be split over train.accumulate={self.accumulate} micro-batches; "
                "choose a divisor"
            )


@dataclass(frozen=True)
class InitFrom:
    """Weights that a fresh run starts from: an earlier stage's workdir, or converted ones."""

    path: str = ""  # empty: random
    weights: str = choice("ema", "raw")
    # semantic groups that start from another: (group, source group, its classes or None for all)
    groups: tuple[tuple[str, str, tuple[int, ...] | None], ...] = ()
    fresh: tuple[str, ...] = ()  # patterns of parameter paths that the checkpoint need not have
    by_name: bool = False  # classes of other groups start from the checkpoint's class of the same name, else by `like`
    like: tuple[tuple[str, str], ...] = ()  # (class, class of the checkpoint); of own data those of the class file

    def __post_init__(self):
        if self.by_name and not self.path:
            raise UserError("by_name=True without a path: no class could be taken; set init_from.path")
        if self.like and not self.by_name:
            raise UserError("like without by_name: it would not be looked at; set init_from.by_name=True")


@dataclass(frozen=True)
class Optim:
    """AdamW, its parameter groups and its schedule (spec: tarvis 7.1, 7.2)."""

    name: str = choice("adamw", "sgd")
    lr: float = number(1e-4, low=0)
    schedule: str = choice("steps", "poly", "warmup_poly")
    warmup_steps: int = number(10_000, low=0)
    decay_steps: tuple[int, ...] = number((50_000, 84_000), low=0)
    decay_factor: float = number(0.1, low=0, high=1)
    poly_power: float = number(1.0, low=0)
    total_steps: int = number(90_000, low=1)  # of the poly schedules
    late_groups: tuple[str, ...] = ()  # of warmup_poly: lr_groups that stand still until the others have warmed up
    late_warmup_steps: int = number(0, low=0)  # of their own warm-up, which follows (spec: videomt 8)
    b1: float = number(0.9, low=0, below=1)
    b2: float = number(0.999, low=0, below=1)
    eps: float = number(1e-8, low=0)
    weight_decay: float = number(0.05, low=0)
    clip_norm: float = number(0.01, low=0)  # before Adam; 0 for none
    # rows (name, pattern, scale or one scale per stacked block); the first pattern found in a path wins
    lr_groups: tuple[tuple[str, str, float | tuple[float, ...]], ...] = (
        ("backbone", "^backbone/", 0.1),
        ("rest", "", 1.0),
    )
    no_decay: tuple[str, ...] = NO_DECAY

    def __post_init__(self):
        unknown = [name for name in self.late_groups if name not in [row[0] for row in self.lr_groups]]
        if unknown:
            raise UserError(f"late_groups={unknown}: no such rows in lr_groups; name some of them")
        if self.late_groups and self.schedule != "warmup_poly":
            raise UserError(f"late_groups with schedule={self.schedule!r}: only warmup_poly knows them; set that")


@dataclass(frozen=True)
class Color:
    """Ranges of the colour jitter: hue and saturation shift (of 255), contrast factor around 127, lightness shift."""

    hue: int = number(10, low=0, high=255)
    saturation: int = number(10, low=0, high=255)
    contrast: tuple[float, float] = number((0.95, 1.05), low=0)
    brightness: int = number(20, low=0, high=255)


@dataclass(frozen=True)
class Source:
    """A prepared data set, seen as clips of one task (spec: tarvis 7.5, 7.6, 7.8)."""

    path: str  # folder that `vps-jax data prepare` wrote
    short_side: int | tuple[int, ...] = number(low=1)  # pixels after the resize, or several to choose from
    split: str = "train"
    task: str = "panoptic"
    group: str = ""  # semantic group of the model; empty: the source's name
    weight: float = number(1.0, low=0)  # share of the chunks; 0 leaves the source out, as `Data.without` does
    max_side: int = number(1333, low=1)
    crop: tuple[float, float] | None = number(None, low=0, high=1)  # (height, width) factors
    crop_rule: str = choice("containing", "preserving")
    flip: float = number(0.5, low=0, high=1)
    color: Color | None = Color()  # None for no jitter
    frame_window: float = number(5.0, low=0)  # half width, in clip lengths, of the neighbourhood the frames come from
    draw_by: str = choice("videos", "frames")  # videos are equally likely (published), or by their number of frames
    needs_instances: bool | None = None  # leave out videos without instances; None: as the task needs
    objects: tuple[int, ...] = number((1, 2, 3, 4), low=1)  # numbers of objects in clips of task vos
    # each number equally often, of the videos that show so many or more; or each video with the most that it shows
    object_shares: str = choice("equal", "shown")
    shapes: tuple[Size, ...] | None = None  # padded shapes in place of the nearest multiples
    recipe: str = ""  # clip, vos, affine or photometric; empty: as the task needs
    augment: tuple[tuple[str, Any], ...] | None = None  # rows (operation, its numbers) in place of a recipe
    crop_px: int | Size | None = number(None, low=1)
    crop_together: bool = False
    ratio: tuple[float, float] = number((0.5, 2.0), low=0)


@dataclass(frozen=True)
class Data:
    """Clips of the training sources (spec: tarvis 1, 7.5)."""

    sources: dict[str, Source] = dataclasses.field(default_factory=dict)
    without: str = ""  # data sets to leave out, by the names of their prepared folders, or of sources: "ovis,burst"
    clip_frames: int = number(3, low=1)
    max_instances: int = number(64, low=0)  # the smallest beyond are dropped [ours]
    pad_multiple: int = number(64, low=1)
    chunk_steps: int = number(8, low=1)  # steps in a row from one source
    num_workers: int = number(12, low=0)  # processes that make batches; 0: threads of this process [ours]
    num_threads: int = number(2, low=1)
    prefetch: int = number(4, low=1)  # batches made ahead per process
    broken_records: str = choice("stop", "skip")  # what a stored frame that cannot be read leads to [ours]
    batch_size: int = number(32, low=1)  # that of `train`
    seed: int = number(42, low=0)  # that of `train`

    def __post_init__(self):
        for name in self.left_out:
            if not any(name in source_names(key, source) for key, source in self.sources.items()):
                known = dict.fromkeys(source_names(key, source)[0] for key, source in self.sources.items())
                raise UserError(
                    f"without={self.without!r}: {name} is no data set of these sources; choose some of "
                    f"{', '.join(known)}"
                )

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names in `without`."""
        return tuple(name.strip() for name in self.without.split(",") if name.strip())

    @property
    def used(self) -> dict[str, Source]:
        """Sources that have a weight and are not left out."""
        return {
            key: source
            for key, source in self.sources.items()
            if source.weight > 0 and not set(source_names(key, source)) & set(self.left_out)
        }


def source_names(key: str, source: Source) -> tuple[str, str]:
    """What `Data.without` may call a source: its prepared folder's name (that of its data set), or its own."""
    return pathlib.PurePath(source.path).name, key


@dataclass(frozen=True)
class Evaluate:
    """What the run evaluates on: a root with truth (`vps-jax data convert`)."""

    truth: str = "data/VIPSeg_720P"
    layout: str = "vipseg"  # name of the data set's specification
    split: str = "val"
    windows: str | tuple[int, ...] = number("leaderboard", low=1)  # 1, 2, 4, 6 frames; the mean is the challenge's
    metrics: tuple[str, ...] = ("vpq", "stq", "miou")
    samples: int = number(2, low=0)  # videos whose overlays are kept in samples/ and TensorBoard


@dataclass(frozen=True)
class Synthetic:
    """A data set that is drawn, if `folder` lacks it, before anything runs."""

    folder: str = ""  # empty: nothing is drawn
    seed: int = number(0, low=0)
    train: int = number(132, low=0)  # videos
    val: int = number(24, low=0)
    test: int = number(6, low=0)
    layout: str = "vipseg"
    also: tuple[str, ...] = ()  # further layouts of the same scenes


@dataclass(frozen=True)
class OwnData:
    """A user's own data, from which classes, group, sources without a path and truth are filled in."""

    data: str = ""  # folder that `vps-jax data prepare own` wrote; empty: none
    group: str = "OWN"  # semantic group that gets its classes


@dataclass(frozen=True)
class Experiment:
    """One run of main.py. `model`, `infer` and `tasks` are of the classes that the model's and the tasks' rows name."""

    name: str = "experiment"
    version: int = VERSION
    model: Any = Tarvis()
    tasks: dict[str, Any] = dataclasses.field(default_factory=dict)
    class_maps: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)  # source -> classes of its group
    train: Train = Train()
    init_from: InitFrom = InitFrom()
    optim: Optim = Optim()
    data: Data = Data()
    infer: Any = ClipInference()
    evaluate: Evaluate = Evaluate()
    synthetic: Synthetic = Synthetic()
    own: OwnData = OwnData()


@dataclass(frozen=True)
class MemberConfig:
    """One predictor of an ensemble; `checkpoint` or `scores` is needed."""

    checkpoint: str = ""  # folder of a run or of converted weights
    weights: str = choice("ema", "raw")
    task: str | None = None  # None, as the next two: what the checkpoint says
    group: str | None = None  # semantic group
    flip: bool | None = None  # average with the mirrored video
    scales: tuple[float, ...] | None = number(None, low=0)  # factors on the size of the frames, averaged too
    frame_classes: bool | None = None  # of VidEoMT: class maps by each frame's own class logits, see `QueryInference`
    scale: str = choice("logits", "log_softmax", "log_scores")  # how scores are brought to one scale before the mean
    weight: float = number(1.0, low=0)  # in the mean
    scores: str | None = None  # in place of a checkpoint: folder with kept scores


@dataclass(frozen=True)
class Matching:
    """Things of an ensemble: tracks of another member that are those of the things member, see `tube_matching`."""

    member: str | None = None  # with tracks of its own; None: the things member's masks stay as they are
    weight: float = number(0.5, low=0, high=1)  # of its masks in the mean; 1 takes them with the first's identities
    min_iou: float = number(0.5, low=0, high=1)  # of two tracks that are one


@dataclass(frozen=True)
class EnsembleConfig:
    """Several predictors whose stuff scores are averaged, and what they are evaluated on."""

    members: dict[str, MemberConfig]
    name: str = "ensemble"
    things: str | None = None  # member whose tracks are painted; needed if several have tracks
    matching: Matching = Matching()  # of its tracks with those of another member
    run: str = choice("together", "in_turn")  # all weights in memory, or those of one member at a time
    keep_scores: str | None = None  # folder in which the scores of all members stay, for tuning
    evaluate: Evaluate = Evaluate()


def source_group(name: str, source: Source) -> str:
    """The semantic query group of a source."""
    return source.group or name


def experiment(given: Mapping | Experiment) -> Experiment:
    """The experiment of a config file, of the command line or of a checkpoint, with every default filled in.

    Raises:
      UserError: an unknown key, a wrong type or an impossible value, named in one line.
    """
    if isinstance(given, Experiment):
        return given
    given = upgrade(given)
    model = model_config(given.get("model", {"name": "tarvis"}))
    given["model"] = model
    given["infer"] = parse(model_row(model.name).infer, given.get("infer", {}), "infer")
    tasks = given.get("tasks", {})
    given["tasks"] = {name: parse(task_row(name).numbers, tasks[name], f"tasks.{name}") for name in tasks}
    train = given["train"] = parse(Train, given.get("train", {}), "train")
    shared = {"batch_size": train.batch_size, "seed": train.seed}
    data = given["data"] = parse(Data, {**shared, **dict(given.get("data", {}).items())}, "data")
    for key, value in shared.items():
        if getattr(data, key) != value:
            raise UserError(f"data.{key}={getattr(data, key)}: expected train.{key}={value}; set train.{key} alone")
    return parse(Experiment, given)


def ensemble_experiment(given: Mapping | EnsembleConfig) -> EnsembleConfig:
    """The ensemble of a config file or of the command line, with every default filled in.

    Raises:
      UserError: as `experiment`.
    """
    return parse(EnsembleConfig, given)
