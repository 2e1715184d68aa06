"""A user's own data, from the folder that `vps-jax data prepare own` wrote.

Command:   python main.py --config configs/own.py:KIND,SIZE --config.own.data=FOLDER --workdir DIR
           KIND: semantic (default; classes alone), panoptic (stuff, and things with tracks), instance (things with
           tracks alone, of the forms ytvis and coco), image (classes, frame by frame)
           SIZE: tiny (default), small, swin_tiny, swin_large, resnet50; of image tiny, small, beit_large_640,
           beit_large_896, vit_large_384
Hardware:  tiny: two CPU cores, 2 GB of memory; small: one GPU; the others: as their published models, batch 8
Time:      tiny: about 8 minutes; semantic,tiny: 29 minutes of one core; no other size was run to its end
Expected:  depends on the data; see docs/own_data.md

Classes, their number, the records and the truth come from the folder. The sizes of published models are made to start
from one of them: `--config.init_from.path=PUBLISHED --config.init_from.by_name=True`. Their recipes are those of the
data sets that resemble the task most (docs/reference/tarvis.md, [spec 7]), in fewer steps. `tiny` and `small` are made
to start from nothing [ours].
"""

from configs import common, stage2, stage4, tiny, vspw_tiny, vspw_vit_adapter
from vps_jax import config as keys
from vps_jax.datasets import instance_json

KINDS = ("semantic", "panoptic", "instance", "image")
SMALL = ("tiny", "small")
SIZES = (*SMALL, "swin_tiny", "swin_large", "resnet50")
IMAGE_SIZES = (*SMALL, *vspw_vit_adapter.SIZES)
GROUP, CLASSES = "OWN", 1  # the number is that of the folder's class file once it is known
STEPS, BATCH = 10_000, 8  # of all sizes but tiny
NUMBERS = {
    "panoptic": keys.Panoptic(),
    "instance": keys.Instance(void_is_background=True),  # such data label things alone
    "semantic": keys.Semantic(),
}
# what the losses of a kind give no gradient: torch skips it, so it must not decay [spec 6.6]
UNUSED = {
    "panoptic": ("unused", "^heads/mask_embed_background/", 0.0),
    "semantic": ("unused", "^heads/(mask_embed_(background|instance)|proj_(background|instance|semantic))/", 0.0),
}
METRICS = {"panoptic": ("vpq", "stq", "miou"), "instance": ("ap",)}


def get_config(argument: str = "semantic,tiny"):
    kind, _, size = argument.partition(",")
    common.choose(kind, KINDS)
    size = common.choose(size or "tiny", IMAGE_SIZES if kind == "image" else SIZES)
    config = image(size) if kind == "image" else clips(kind, size)
    config.name = f"own_{kind}" if size == "tiny" else f"own_{kind}_{size}"
    config.synthetic.folder = ""
    config.own.group = GROUP
    config.model.semantic_groups = ((GROUP, CLASSES),)
    config.infer.semantic_group = GROUP
    config.evaluate.truth = config.evaluate.layout = ""  # of the folder
    config.evaluate.metrics = METRICS.get(kind, ("miou",))
    config.train.best_metric = config.evaluate.metrics[0]
    (source,) = config.data.sources.values()
    # one long video is not one sample of five
    source = source.to_dict() | {"path": "", "group": GROUP, "draw_by": "frames"}
    config.data.sources = {"own": common.source(**source)}
    return config


def clips(kind: str, size: str):
    """TarViS on clips."""
    if size in SMALL:
        config = tiny.get_config() if size == "tiny" else small()
        points = {key: n for key, n in config.tasks.panoptic.items() if key.endswith("_points")}
        task = common.section(NUMBERS[kind])
        task.update({key: n for key, n in points.items() if key in task})
    else:
        config = published(kind, size)
        weights = {"swin_large": 1.0, "other": 2.0}
        task = common.tasks(size, weights, points=50176, sharpen="norm")[kind]
    config.tasks = {kind: task}
    config.infer.task = kind
    if kind == "instance":
        config.infer.update(instance_json.INFERENCE)
    for source in config.data.sources.values():
        source.task = kind
    if (kind, size) == ("semantic", "tiny"):
        frames(config)
    rows = tuple(row for row in config.optim.lr_groups if row[0] != "unused")
    config.optim.lr_groups = ((UNUSED[kind],) if kind in UNUSED else ()) + rows
    return config


def frames(config) -> None:
    """Labelled frames of some hundred pixels, few and far between, from random weights: crops of single frames [ours].

    A video of densely labelled frames may take clips: `data.clip_frames`, `infer.clip_frames`, `infer.overlap_frames`.
    """
    task = config.tasks["semantic"]
    task.semantic_points = 1024
    task.regularization = False
    task.class_balance = 0.5  # a pixel of a class that is a hundred times rarer weighs ten times as much
    config.model.backbone = "resnet_micro"
    config.model.neck_layers = 1
    config.model.decoder_layers = 3

    config.train.steps = 4_000
    config.train.checkpoint_every = 500
    config.train.batch_size = 4
    steps = config.train.get_ref("steps").identity()  # more of them stretch the schedule, and not the other way round
    config.train.evaluate_every = steps.identity()
    config.optim.lr = 1e-3
    config.optim.b2 = common.base().optim.b2
    config.optim.schedule = "warmup_poly"
    config.optim.warmup_steps = 100
    config.optim.total_steps = steps

    config.data.clip_frames = 1
    (source,) = config.data.sources.values()
    source.short_side = 240
    source.max_side = 960
    source.ratio = (0.8, 1.5)  # of the short side: 192 to 360 pixels
    source.crop_px = (192, 256)
    source.augment = (("random_scale", {}), ("mixed_crop", {}), ("flip", {}), ("jitter_color", {}))

    config.infer.short_side_px = 288
    config.infer.max_side_px = 960
    config.infer.clip_frames = 1
    config.infer.overlap_frames = 0


def small():
    """Between configs/tiny.py and the published models: Swin-T under a narrow head, frames of 256 pixels [ours]."""
    config = tiny.get_config()
    tiny.stepwise(config, STEPS)
    config.model.backbone = "swin_tiny"
    config.model.instance_queries = 50
    config.model.hidden_dim = 128
    config.model.num_heads = 8
    config.model.neck_layers = 3
    config.model.neck_ffn_dim = 512
    config.model.decoder_ffn_dim = 512
    config.model.drop_path_rate = 0.1
    config.model.remat = True
    config.model.dtype = "bfloat16"
    config.tasks.panoptic.match_points = 4096
    config.tasks.panoptic.mask_points = 4096
    config.tasks.panoptic.semantic_points = 16384
    # an ImageNet file of Swin-T may be the start, which has no more
    config.init_from.fresh = ("^params/(?!backbone/)", "^params/backbone/norm_[0-3]/")
    shorten(config)
    config.optim.lr = 3e-4
    config.data.clip_frames = 3
    config.data.max_instances = 32
    config.data.num_workers = 4
    (source,) = config.data.sources.values()
    source.short_side = 256
    source.max_side = 512
    source.frame_window = 5.0
    config.infer.short_side_px = 256
    config.infer.max_side_px = 512
    config.infer.clip_frames = 8
    config.infer.overlap_frames = 4
    return config


def published(kind: str, backbone: str):
    """A published TarViS, whose weights it starts from: stage 4's recipe at half the rate of the stages before it."""
    config = stage4.get_config(backbone)
    shorten(config)
    config.optim.lr = 5e-5  # new classes learn more than stage 4's do
    source = stage2.source("youtube_vis_2021", 1.0, "instance", stage2.STRONG, (0.75, 0.75), (448, 512), 1024, 7.5)
    config.data.sources = {"own": source if kind == "instance" else stage2.vipseg(1.0)}
    config.infer.short_side_px = 448 if kind == "instance" else config.infer.short_side_px
    return config


def image(size: str):
    """ViT-Adapter with Mask2Former's head on single frames."""
    if size in SMALL:
        config = vspw_tiny.get_config()
        return config if size == "tiny" else small_image(config)
    config = vspw_vit_adapter.get_config(size)
    config.train.steps = config.optim.total_steps = STEPS
    config.train.evaluate_every = STEPS // 5
    return config


def small_image(config):
    """Between configs/vspw_tiny.py and the published sizes: a BEiT of 12 narrow blocks, crops of 256 pixels [ours]."""
    side = 256
    config.model.size = "beit_small_128"
    config.model.image_size = (side, side)
    config.model.queries = 60
    config.model.drop_path_rate = 0.1
    config.model.remat = True
    config.model.dtype = "bfloat16"
    config.tasks.mask_classification.match_points = 4096
    config.tasks.mask_classification.mask_points = 4096
    shorten(config)
    config.optim.lr = 3e-4
    config.optim.total_steps = STEPS
    config.data.num_workers = 4
    (source,) = config.data.sources.values()
    source.short_side = side
    source.max_side = 4 * side
    source.crop_px = (side, side)
    source.ratio = (0.5, 2.0)
    config.infer.short_side_px = config.infer.window_px = side
    config.infer.max_side_px = 4 * side
    config.infer.stride_px = 170
    return config


def shorten(config) -> None:
    """The steps, batch and rates of all sizes but tiny, for data sets of some thousand frames [ours]."""
    config.optim.warmup_steps = 500
    config.optim.decay_steps = (7_000, 9_000)
    config.train.steps = STEPS
    config.train.batch_size = BATCH
    config.train.ema_decay = 0.999
    config.train.log_every = 50
    config.train.checkpoint_every = 1_000
    config.train.evaluate_every = STEPS // 5
    config.train.first_evaluation = 0
    config.train.keep_checkpoints = 2
