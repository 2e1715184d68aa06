"""What an experiment is: every key behind main.py and in checkpoints, with its default, in frozen dataclasses.

The defaults are the published values of Swin-L fine-tuning on VIPSeg (spec: tarvis 6.6, 7, 8). [ours] marks our own
choice. A file of `configs/` states what it changes; `experiment` turns its mapping into these dataclasses once, and
nothing behind it subscripts a string.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from vps_jax.parsing import choice, number, parse
from vps_jax.types import UserError

VERSION = 2  # of the config in a checkpoint; see `upgrade`
NO_DECAY = (r"norm[^/]*/(scale|bias)$", "^queries/", "level_embed")  # all norms and embeddings; biases do decay
RGB = tuple[float, float, float]
Size = tuple[int, int]


@dataclass(frozen=True)
class Tarvis:
    """TarViS; sizes of a backbone stand in its row (spec: tarvis 3, 4, 5)."""

    name: str = "tarvis"
    backbone: str = "swin_large"
    semantic_groups: tuple[tuple[str, int], ...] = (("VIPSEG", 124),)  # (name, classes), in the order of the rows
    instance_queries: int = number(128, low=1)
    hidden_dim: int = number(256, low=1)
    num_heads: int = number(8, low=1)
    neck_layers: int = number(6, low=1)  # pairs of a spatial and a temporal layer
    neck_ffn_dim: int = number(1024, low=1)
    decoder_layers: int = number(9, low=3)
    decoder_ffn_dim: int = number(2048, low=1)
    vos: bool = False  # the object encoder and its queries
    drop_path_rate: float = number(0.3, low=0, high=1)
    remat: bool = True  # memory / 6 for a third more arithmetic [ours]
    dtype: str = choice("bfloat16", "float32")  # of compute; parameters, logits and losses are float32 [ours]


@dataclass(frozen=True)
class Mask2Former:
    """ViT-Adapter with a Mask2Former head; None takes the number of the row `size` (spec: vit_adapter 8)."""

    name: str = "mask2former"
    size: str = "beit_large_640"
    semantic_groups: tuple[tuple[str, int], ...] = (("VSPW", 124),)  # one (label set, classes)
    image_size: Size | None = None  # of BEiT's tables, or of the images that a plain ViT's positions come from
    queries: int | None = None
    hidden_dim: int | None = None
    num_heads: int | None = None
    ffn_dim: int | None = None
    encoder_layers: int | None = None
    decoder_layers: int | None = None
    beit: bool | None = None
    width: int | None = None
    trunk_heads: int | None = None
    groups: tuple[int, ...] | None = None  # blocks per interaction
    mlp_ratio: float | None = None
    init_values: float | None = None
    windows: tuple[int, ...] | None = None
    prior_width: int | None = None
    deform_heads: int | None = None
    deform_points: int | None = None
    deform_ratio: float | None = None
    ffn_ratio: float | None = None
    drop_path_rate: float | None = None
    pixel_mean: RGB | None = None
    pixel_std: RGB | None = None
    remat: bool = True
    dtype: str = choice("float32", "bfloat16")


def check_semantic_loss(numbers) -> None:
    """Raises UserError for two options that exclude each other."""
    if numbers.regularization and numbers.ignore_null_classes:
        # the logit of a null class is -1000, and the norm would be of it (spec: tarvis 9.22)
        raise UserError("regularization and ignore_null_classes are both on; turn one off")


@dataclass(frozen=True)
class VidEoMT:
    """A ViT whose last blocks carry queries from frame to frame; None takes the number of the row `size` (videomt 6).

    EoMT, its frame-wise first stage, has `masked_steps`, `norm_auxiliary` and a prediction before every query block.
    """

    name: str = "videomt"
    size: str = "large"
    semantic_groups: tuple[tuple[str, int], ...] = (("VIPSEG", 124),)  # one (label set, classes)
    width: int | None = number(None, low=1)
    num_heads: int | None = number(None, low=1)
    trunk_blocks: int | None = number(None, low=1)  # see each frame alone
    query_blocks: int | None = number(None, low=1)  # carry the queries
    queries: int | None = number(None, low=1)
    registers: int | None = number(None, low=0)  # learned tokens after the class token
    image_size: int | None = number(None, low=0)  # side of the image that the position table is for; 0: rotary code
    norm_eps: float | None = number(None, low=0)
    init_values: float | None = None  # LayerScale at the start
    norm_queries: bool | None = None  # the final norm comes before the queries pass on (DINOv3)
    patch: int = number(16, low=1)
    mlp_ratio: float = number(4.0, low=0)
    upscales: int = number(2, low=0)  # doublings of the patch grid for the masks
    auxiliary_sets: int = number(3, low=0)  # predictions before so many query blocks count in training
    norm_auxiliary: bool = False  # the final norm comes before them
    masked_steps: tuple[tuple[int, int], ...] = ()  # steps (start, end) in which each query block's masks fade
    frozen_trunk: bool = False  # no gradient reaches the trunk
    remat: bool = True
    dtype: str = choice("bfloat16", "float32")


@dataclass(frozen=True)
class Panoptic:
    """Losses of video panoptic segmentation (spec: tarvis 6.2, 6.3)."""

    match_points: int = number(12544, low=1)
    mask_points: int = number(12544, low=1)  # of each (object, frame)
    class_weight: float = number(2.0, low=0)  # in the loss as in the matcher
    mask_weight: float = number(5.0, low=0)
    dice_weight: float = number(5.0, low=0)
    background_weight: float = number(0.1, low=0)  # of "no object" in the class loss
    semantic_points: int = number(50176, low=1)  # of each frame
    semantic_weight: float = number(1.0, low=0)
    regularization: bool = True  # adds 1e-3 times the mean norm of the semantic logits; excludes the next
    ignore_null_classes: bool = False  # classes that a batch neither has nor guesses leave the semantic softmax
    normalize_clips: int | None = number(1, low=1)  # clips over which a loss is normalised at once; None: the batch

    def __post_init__(self):
        check_semantic_loss(self)


@dataclass(frozen=True)
class Instance(Panoptic):
    """Losses of video instance segmentation (spec: tarvis 6.4)."""

    semantic_points: int = number(12544, low=1)
    void_is_background: bool = False  # as published for data sets that label things alone


@dataclass(frozen=True)
class Semantic:
    """Losses of video semantic segmentation (spec: tarvis 6.3)."""

    semantic_points: int = number(50176, low=1)
    semantic_weight: float = number(1.0, low=0)
    regularization: bool = True
    ignore_null_classes: bool = False
    normalize_clips: int | None = number(1, low=1)

    def __post_init__(self):
        check_semantic_loss(self)


@dataclass(frozen=True)
class Vos:
    """Losses of video object segmentation (spec: tarvis 6.5)."""

    mask_points: int = number(12544, low=1)
    mask_weight: float = number(5.0, low=0)
    dice_weight: float = number(5.0, low=0)
    normalize_clips: int | None = number(1, low=1)


@dataclass(frozen=True)
class MaskClassification:
    """Mask2Former's losses with one mask per class (spec: vit_adapter 5.1)."""

    match_points: int = number(12544, low=1)
    mask_points: int = number(12544, low=1)
    class_weight: float = number(2.0, low=0)
    mask_weight: float = number(5.0, low=0)
    dice_weight: float = number(5.0, low=0)
    background_weight: float = number(0.1, low=0)
    normalize_clips: int | None = number(None, low=1)


@dataclass(frozen=True)
class VideoMasks:
    """Losses of queries that are carried from frame to frame (spec: videomt 8)."""

    segments: str = choice("panoptic", "semantic", "instance")  # what a mask shows: thing or stuff, class, thing
    match_frame: str = choice("first", "appearance")  # all in the first (published for VIPSeg), or where seen
    match_points: int = number(12544, low=1)  # of each frame
    mask_points: int = number(12544, low=1)  # of each (object, frame)
    class_weight: float = number(2.0, low=0)  # in the loss as in the matcher
    mask_weight: float = number(5.0, low=0)
    dice_weight: float = number(5.0, low=0)
    background_weight: float = number(0.1, low=0)  # of "no object" in the class loss
    normalize_clips: int | None = number(1, low=1)  # clips over which a loss is normalised at once; None: the batch


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
    max_instances: int = number(64, low=1)  # the smallest beyond are dropped [ours]
    pad_multiple: int = number(64, low=1)
    chunk_steps: int = number(8, low=1)  # steps in a row from one source
    num_workers: int = number(12, low=0)  # processes that make batches; 0: threads of this process [ours]
    num_threads: int = number(2, low=1)
    prefetch: int = number(4, low=1)  # batches made ahead per process
    batch_size: int = number(32, low=1)  # that of `train`
    seed: int = number(42, low=0)  # that of `train`


@dataclass(frozen=True)
class ClipInference:
    """How a clip model runs on videos: clips, stitching and fusion of VIPSeg (spec: tarvis 8)."""

    task: str = choice("panoptic", "semantic", "instance", "vos")
    semantic_group: str | None = None  # None: the model's first
    taxonomy: str = "vipseg"  # name of the class table, for checkpoints that carry none
    short_side_px: int = number(576, low=1)
    max_side_px: int = number(1333, low=1)
    clip_frames: int = number(12, low=1)
    overlap_frames: int = number(6, low=0)
    score_threshold: float = number(0.5, low=0, high=1)  # a query is a track of its clip from this probability on
    max_tracks_per_clip: int = number(1000, low=1)
    association_iou: float = number(0.5, low=0, high=1)
    instance_overlap: str = choice("earlier", "mean")  # the published averaging has no effect (spec: tarvis 9.8)
    panoptic_score: float = number(0.5, low=0, high=1)  # a track is painted when its mean score exceeds this
    flip: bool = False  # average with the mirrored video


@dataclass(frozen=True)
class WindowInference:
    """How an image model runs on frames: sliding windows of VSPW at 640 (spec: vit_adapter 7, 8)."""

    task: str = choice("mask_classification")
    semantic_group: str | None = None
    taxonomy: str = "vspw"
    short_side_px: int = number(640, low=1)
    max_side_px: int = number(2048, low=1)
    size_multiple: int = number(32, low=1)
    window_px: int = number(640, low=1)
    stride_px: int = number(426, low=1)
    scales: tuple[float, ...] = number((1.0,), low=0)  # factors on both sides; scores are averaged over them
    cover_window: bool = False  # the short side is at least the window, without rounding up (as published for 640)
    flip: bool = False  # average with the mirrored frame
    window_batch: int = number(3, low=1)  # windows per run of the model


@dataclass(frozen=True)
class QueryInference:
    """How a model that carries queries runs on videos (spec: videomt 1, 5.1)."""

    task: str = choice("panoptic", "semantic", "instance")
    semantic_group: str | None = None
    taxonomy: str = "vipseg"
    short_side_px: int = number(720, low=1)
    max_side_px: int = number(1333, low=1)
    chunk_frames: int = number(4, low=1)  # frames that the trunk sees at once; no number depends on it [ours]
    online: bool = False  # decide every frame by what has been seen so far [ours]
    score_threshold: float = number(0.8, low=0, high=1)  # a query is a segment above this probability
    overlap_threshold: float = number(0.8, low=0, high=1)  # of its own pixels among those that its mask covers
    max_instances: int = number(20, low=1)  # of the instance task


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


class ModelRow(NamedTuple):
    """What a model is. Functions of higher rooms are named, `module:function`, and imported when they are asked for.

    Attributes:
      config: frozen dataclass of `config.model`.
      infer: frozen dataclass of `config.infer`.
      build: (config) -> flax module.
      keys: module with the key table of published files; empty for a model that has none.
      predictor: (module, variables, infer settings) -> `infer.predictor.Predictor`.
    """

    config: type
    infer: type
    build: str
    keys: str
    predictor: str


MODELS: dict[str, ModelRow] = {
    "tarvis": ModelRow(
        Tarvis, ClipInference, "vps_jax.models.tarvis:from_config", "vps_jax.convert.tarvis_files",
        "vps_jax.infer.clip_predictor:ClipPredictor",
    ),
    "mask2former": ModelRow(
        Mask2Former, WindowInference, "vps_jax.models.mask2former:from_config", "vps_jax.convert.vit_pretrained",
        "vps_jax.infer.window_predictor:WindowPredictor",
    ),
    "videomt": ModelRow(
        VidEoMT, QueryInference, "vps_jax.models.videomt:from_config", "vps_jax.convert.videomt_files",
        "vps_jax.infer.query_predictor:QueryPredictor",
    ),
}  # fmt: skip


class TaskRow(NamedTuple):
    """What a task is.

    Attributes:
      numbers: frozen dataclass of `config.tasks.<name>`.
      build: `module:name` of (numbers, num_classes, class_map) -> `tasks.Task`.
      has_classes: False for a task whose objects have no classes.
    """

    numbers: type
    build: str
    has_classes: bool = True


TASKS: dict[str, TaskRow] = {
    "panoptic": TaskRow(Panoptic, "vps_jax.tasks.panoptic:Panoptic"),
    "instance": TaskRow(Instance, "vps_jax.tasks.instance:Instance"),
    "semantic": TaskRow(Semantic, "vps_jax.tasks.semantic_map:Semantic"),
    "vos": TaskRow(Vos, "vps_jax.tasks.vos:Vos", has_classes=False),
    "mask_classification": TaskRow(MaskClassification, "vps_jax.tasks.mask_classification:MaskClassification"),
    "video_masks": TaskRow(VideoMasks, "vps_jax.tasks.video_masks:VideoMasks"),
}


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


def model_row(name: str) -> ModelRow:
    """The row of a model.

    Raises:
      UserError: no model has that name.
    """
    if name not in MODELS:
        raise UserError(f"model.name={name!r}: expected one of {', '.join(MODELS)}; set config.model.name")
    return MODELS[name]


def task_row(name: str) -> TaskRow:
    """The row of a task.

    Raises:
      UserError: no task has that name.
    """
    if name not in TASKS:
        raise UserError(f"tasks.{name}: no such task; expected some of {', '.join(TASKS)}")
    return TASKS[name]


def model_config(given: Mapping) -> Any:
    """`config.model` as the dataclass of its row."""
    row = model_row(given.get("name") if hasattr(given, "get") else given.name)
    return parse(row.config, given, "model")


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
