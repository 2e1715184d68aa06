"""What can be trained and run: the keys of every model, of how it runs on videos, and of every task, with their rows.

The defaults are the published values (spec: tarvis 3 to 8, vit_adapter 5 to 8). [ours] marks our own choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from vps_jax.parsing import choice, number, parse
from vps_jax.types import UserError

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
    class_balance: float = number(0.0, low=0, high=1)  # 1: a pixel counts by the inverse share of its class [ours]
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
    class_balance: float = number(0.0, low=0, high=1)
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
class ClipInference:
    """How a clip model runs on videos: clips, stitching and fusion of VIPSeg (spec: tarvis 8)."""

    task: str = choice("panoptic", "semantic", "instance", "vos")
    semantic_group: str | None = None  # None: the model's first
    taxonomy: str = "vipseg"  # name of the class table, for checkpoints that carry none
    short_side_px: int | None = number(576, low=1)  # None: frames keep their size
    max_side_px: int = number(1333, low=1)
    clip_frames: int = number(12, low=1)
    overlap_frames: int = number(6, low=0)
    score_threshold: float = number(0.5, low=0, high=1)  # a query is a track of its clip from this probability on
    max_tracks_per_clip: int = number(1000, low=1)
    association_iou: float = number(0.5, low=0, high=1)
    instance_overlap: str = choice("earlier", "mean")  # the published averaging has no effect (spec: tarvis 9.8)
    panoptic_score: float = number(0.5, low=0, high=1)  # a track is painted when its mean score exceeds this
    max_instances: int = number(10, low=1)  # of the instance task, in a video
    flip: bool = False  # average with the mirrored video
    scales: tuple[float, ...] = number((1.0,), low=0.01)  # factors on both sides; scores are averaged over them

    def __post_init__(self):
        if 2 * self.overlap_frames > self.clip_frames:
            raise UserError(
                f"overlap_frames={self.overlap_frames}: expected at most half of clip_frames={self.clip_frames}"
            )


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
    chunk_frames: int = number(4, low=1)  # that the trunk sees at once; no number depends on it [ours]
    online: bool = False  # decide every frame by what has been seen so far [ours]
    frame_classes: bool = False  # class maps by each frame's own class logits; else by their mean, as published
    score_threshold: float = number(0.8, low=0, high=1)  # a query is a segment above this probability
    overlap_threshold: float = number(0.8, low=0, high=1)  # of its own pixels among those that its mask covers
    max_instances: int = number(20, low=1)  # of the instance task
    flip: bool = False  # average with the mirrored video
    scales: tuple[float, ...] = number((1.0,), low=0.01)  # factors on both sides; scores are averaged over them


class ModelRow(NamedTuple):
    """What a model is. Functions of higher layers are named, `module:function`, and imported when they are asked for.

    Attributes:
      config: frozen dataclass of `config.model`.
      infer: frozen dataclass of `config.infer`.
      build: (config) -> flax module.
      keys: module with the key table of published files; empty for a model that has none.
      predictor: (module, variables, infer settings) -> `infer.predictor.Predictor`.
      class_head: path of its layer with one output per class and a last one for "no object"; empty for none.
    """

    config: type
    infer: type
    build: str
    keys: str
    predictor: str
    class_head: str = ""


MODELS: dict[str, ModelRow] = {
    "tarvis": ModelRow(
        Tarvis, ClipInference, "vps_jax.models.tarvis:from_config", "vps_jax.convert.tarvis_files",
        "vps_jax.infer.clip_predictor:ClipPredictor",
    ),
    "mask2former": ModelRow(
        Mask2Former, WindowInference, "vps_jax.models.mask2former:from_config", "vps_jax.convert.vit_pretrained",
        "vps_jax.infer.window_predictor:WindowPredictor", "params/heads/cls_embed",
    ),
    "videomt": ModelRow(
        VidEoMT, QueryInference, "vps_jax.models.videomt:from_config", "vps_jax.convert.videomt_files",
        "vps_jax.infer.query_predictor:QueryPredictor", "params/heads/class_head",
    ),
}  # fmt: skip


class TaskRow(NamedTuple):
    """What a task is.

    Attributes:
      numbers: frozen dataclass of `config.tasks.<name>`.
      build: `module:name` of (numbers, num_classes, class_map) -> `tasks.Task`.
      has_classes: False for a task whose objects have no classes.
      has_tracks: False for a task whose results are classes of pixels alone.
      needs_instances: False for a task that also trains on videos without instances.
      asked_as: what users of a trained model call it, if that is not its name.
    """

    numbers: type
    build: str
    has_classes: bool = True
    has_tracks: bool = True
    needs_instances: bool = True
    asked_as: str = ""


TASKS: dict[str, TaskRow] = {
    "panoptic": TaskRow(Panoptic, "vps_jax.tasks.panoptic:Panoptic"),
    "instance": TaskRow(Instance, "vps_jax.tasks.instance:Instance"),
    "semantic": TaskRow(Semantic, "vps_jax.tasks.semantic_map:Semantic", has_tracks=False, needs_instances=False),
    "vos": TaskRow(Vos, "vps_jax.tasks.vos:Vos", has_classes=False),
    "mask_classification": TaskRow(
        MaskClassification,
        "vps_jax.tasks.mask_classification:MaskClassification",
        has_tracks=False,
        needs_instances=False,
        asked_as="semantic",
    ),
    "video_masks": TaskRow(VideoMasks, "vps_jax.tasks.video_masks:VideoMasks", needs_instances=False),
}


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
