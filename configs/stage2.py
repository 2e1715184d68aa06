"""Stage 2: TarViS on seven video data sets; each has its task.

Command:   python main.py --config configs/stage2.py[:BACKBONE[,SET]] --workdir DIR --config.init_from.path=STAGE1
           BACKBONE: swin_large (default), swin_tiny, resnet50
           SET: what is evaluated, with its published inference settings: vipseg (default), cityscapes_vps, kitti_step,
           ovis, youtube_vis_2021; also with --mode predict or evaluate and the truth in data/SET
Hardware:  8 GPUs of 80 GB, batch 32
Time:      90,000 steps; by count at least 4 hours on 8 A100, expect twice that
Expected:  VPQ 48.0 on VIPSeg val with Swin-L [published]
Source:    docs/reference/tarvis.md [spec 6.6, 7]; what stands beside [ours] is a proposal
"""

from configs import common, datasets
from vps_jax.config import ClipInference
from vps_jax.datasets import dataset

STREET = {"hue": 10, "saturation": 10, "contrast": (0.95, 1.05), "brightness": 20}
STRONG = {"hue": 12, "saturation": 12, "contrast": (0.95, 1.05), "brightness": 25}
GROUP_OF = {"youtube_vis_2021": "YOUTUBE_VIS"}  # other names than the data set's
EVALUATED = {  # data set -> its metrics; the first picks the best weights
    "vipseg": ("vpq", "stq", "miou"),
    "cityscapes_vps": ("vpq", "stq"),
    "kitti_step": ("stq", "vpq"),
    "ovis": ("ap",),
    "youtube_vis_2021": ("ap",),
}
GROUPS = ("CITYSCAPES_VPS", "KITTI_STEP", "OVIS", "VIPSEG", "YOUTUBE_VIS")


def get_config(argument: str = "swin_large"):
    backbone, _, evaluated = argument.partition(",")
    config = common.base()
    config.name = f"stage2_{backbone}"
    config.model.backbone = backbone
    config.model.semantic_groups = datasets.groups(*GROUPS)
    config.model.vos = True
    config.init_from.weights = "raw"  # as published; "ema" may be better
    config.init_from.groups = tuple(
        (name, "CITYSCAPES", datasets.CITYSCAPES_19) for name in ("CITYSCAPES_VPS", "KITTI_STEP")
    )
    config.tasks = common.tasks(backbone, {"swin_large": 1.0, "other": 2.0}, points=50176, sharpen="norm")
    config.optim.lr_groups = (common.NEVER_USED, *config.optim.lr_groups)
    config.optim.no_decay = (*config.optim.no_decay, common.OBJECT_EMBEDS)
    config.data.sources = sources()
    if evaluated:
        evaluate_on(config, common.choose(evaluated, EVALUATED))
    return config


def evaluate_on(config, name: str) -> None:
    """Truth, metrics and published inference settings of a data set in place of VIPSeg's [spec 8]."""
    group = GROUP_OF.get(name, name.upper())
    config.infer = common.section(ClipInference(semantic_group=group, taxonomy=name, **dataset(name).inference))
    config.evaluate.layout = name
    if name != "vipseg":
        config.evaluate.truth = f"data/{name}"
    config.evaluate.metrics = EVALUATED[name]
    config.train.best_metric = EVALUATED[name][0]


def sources() -> dict:
    """Weights and augmentation of the data sets [spec 7, 7.6]."""
    return {
        "youtube_vis": source("youtube_vis_2021", 0.225, "instance", STRONG, (0.75, 0.75), (448, 512), 1024, 7.5),
        "ovis": source("ovis", 0.225, "instance", STRONG, (0.75, 0.75), 512, 1024, 7.5),
        "kitti_step": source("kitti_step", 0.075, "panoptic", STREET, (0.75, 0.5), 320, 1333, 2.0),
        # labelled frames that follow each other, from any start
        "cityscapes_vps": source("cityscapes_vps", 0.075, "panoptic", STREET, (0.5, 0.5), 448, 1333, 0.0),
        "vipseg": vipseg(0.15),
        "burst": source("burst", 0.2, "vos", STRONG, (0.75, 0.75), 512, 1333, 3.0),
        "davis": source("davis", 0.05, "vos", STRONG, (0.75, 0.75), 512, 1333, 7.5),
    }


def vipseg(weight: float, task: str = "panoptic", group: str = "VIPSEG"):
    """VIPSeg's clips, which stages 3 and 4 use too."""
    result = source("vipseg", weight, task, STREET, (0.75, 0.5), 512, 1333, 5.0)
    result.group = group
    return result


def source(name: str, weight: float, task: str, color: dict, crop, short_side, max_side: int, window: float):
    """Row of the table: short sides in pixels, crop as (height, width) factors, window in clip lengths, 0 for none."""
    vos = task == "vos"
    return common.source(
        path=f"data/prepared/{name}",
        task=task,
        # VOS has no classes; its sources name any group
        group="VIPSEG" if vos else GROUP_OF.get(name, name.upper()),
        weight=weight,
        short_side=short_side,
        max_side=max_side,
        crop=crop,
        crop_rule="preserving" if vos else "containing",
        color=color,
        frame_window=window,
    )
