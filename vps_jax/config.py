"""What an experiment is: every key behind main.py and in checkpoints, with its default, in frozen dataclasses.

The defaults are the published values of Swin-L fine-tuning on VIPSeg (spec: tarvis 6.6, 7, 8). [ours] marks our own
choice. A file of `configs/` states what it changes; `experiment` turns its mapping into these dataclasses once, and
nothing behind it subscripts a string. What belongs to one model or task stands in model_configs.py.
"""

import dataclasses
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

__all__ = [
    "MODELS", "NO_DECAY", "TASKS", "VERSION", "ClipInference", "Color", "Data", "Evaluate", "Experiment", "InitFrom",
    "Instance", "Mask2Former", "MaskClassification", "ModelRow", "Optim", "Panoptic", "QueryInference", "Semantic",
    "Source", "Synthetic", "Tarvis", "TaskRow", "Train", "VidEoMT", "VideoMasks", "Vos", "WindowInference",
    "experiment", "model_config", "model_row", "task_row", "upgrade",
]  # fmt: skip

VERSION = 2  # of the config in a checkpoint; see `upgrade`
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
    on_nonfinite: str = choice("stop", "skip")
    log_every: int = number(50, low=0)
    checkpoint_every: int = number(1_000, low=0)
    evaluate_every: int = number(10_000, low=0)  # and after the last step; 0 never
    keep_checkpoints: int = number(2, low=1)  # the newest; the best by `best_metric` of the EMA weights stays as well
    best_metric: str = "vpq"
    vos_point_likelihood: float = number(0.3, low=0, high=1)  # of VOS objects that are given by a point


@dataclass(frozen=True)
class InitFrom:
    """Weights that a fresh run starts from: an earlier stage's workdir, or converted ones."""

    path: str = ""  # empty: random
    weights: str = choice("ema", "raw")
    # semantic groups that start from another: (group, source group, its classes or None for all)
    groups: tuple[tuple[str, str, tuple[int, ...] | None], ...] = ()
    fresh: tuple[str, ...] = ()  # patterns of parameter paths that the checkpoint need not have


@dataclass(frozen=True)
class Optim:
    """AdamW, its parameter groups and its schedule (spec: tarvis 7.1, 7.2)."""

    name: str = choice("adamw", "sgd")
    lr: float = number(1e-4, low=0)
    schedule: str = choice("steps", "poly")
    warmup_steps: int = number(10_000, low=0)
    decay_steps: tuple[int, ...] = number((50_000, 84_000), low=0)
    decay_factor: float = number(0.1, low=0, high=1)
    poly_power: float = number(1.0, low=0)
    total_steps: int = number(90_000, low=1)  # of the poly schedule
    b1: float = number(0.9, low=0, high=1)
    b2: float = number(0.999, low=0, high=1)
    eps: float = number(1e-8, low=0)
    weight_decay: float = number(0.05, low=0)
    clip_norm: float = number(0.01, low=0)  # before Adam; 0 for none
    # rows (name, pattern, scale or one scale per stacked block); the first pattern found in a path wins
    lr_groups: tuple[tuple[str, str, float | tuple[float, ...]], ...] = (
        ("backbone", "^backbone/", 0.1),
        ("rest", "", 1.0),
    )
    no_decay: tuple[str, ...] = NO_DECAY


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
    short_side: int | tuple[int, ...]  # pixels after the resize, or several to choose from
    split: str = "train"
    task: str = "panoptic"
    group: str = ""  # semantic group of the model; empty: the source's name
    weight: float = number(1.0, low=0)  # share of the chunks; 0 leaves the source out
    max_side: int = number(1333, low=1)
    crop: tuple[float, float] | None = number(None, low=0, high=1)  # (height, width) factors
    crop_rule: str = choice("containing", "preserving")
    flip: float = number(0.5, low=0, high=1)
    color: Color | None = Color()  # None for no jitter
    frame_window: float = number(5.0, low=0)  # half width, in clip lengths, of the neighbourhood the frames come from
    needs_instances: bool | None = None  # leave out videos without instances; None: as the task needs
    objects: tuple[int, ...] = number((1, 2, 3, 4), low=1)  # numbers of objects in clips of task vos
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
    clip_frames: int = number(3, low=1)
    max_instances: int = number(64, low=0)  # the smallest beyond are dropped [ours]
    pad_multiple: int = number(64, low=1)
    chunk_steps: int = number(8, low=1)  # steps in a row from one source
    num_workers: int = number(12, low=0)  # processes that make batches; 0: threads of this process [ours]
    num_threads: int = number(2, low=1)
    prefetch: int = number(4, low=1)  # batches made ahead per process
    batch_size: int = number(32, low=1)  # that of `train`
    seed: int = number(42, low=0)  # that of `train`


@dataclass(frozen=True)
class Evaluate:
    """What the run evaluates on: a root with truth (`vps-jax data convert`)."""

    truth: str = "data/VIPSeg_720P"
    layout: str = "vipseg"  # name of the data set's specification
    split: str = "val"
    windows: str | tuple[int, ...] = "leaderboard"  # 1, 2, 4, 6 frames; their mean is the challenge's VPQ
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


def experiment(given: Mapping) -> Experiment:
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
    return parse(Experiment, given)


def upgrade(given: Mapping) -> dict:
    """A config of an earlier version in today's words; see `VERSION`."""
    given = dict(given.items())
    if given.get("version", 1) >= VERSION:
        return given
    given["version"] = VERSION
    given["tasks"] = {name: upgrade_task(numbers) for name, numbers in given.get("tasks", {}).items()}
    return given


def upgrade_task(numbers: Mapping) -> dict:
    """Version 1 called the clips of one normalisation a group; classes are those of the semantic group."""
    numbers = {key: value for key, value in numbers.items() if key != "num_classes"}
    if "group" in numbers:
        numbers["normalize_clips"] = numbers.pop("group")
    return numbers
