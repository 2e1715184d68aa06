"""Stage 1: TarViS on clips made of single images, with a random task for every chunk of steps.

Command:   python main.py --config configs/stage1.py[:BACKBONE] --workdir DIR --config.init_from.path=IMAGENET
           BACKBONE: swin_large (default), swin_tiny, resnet50; IMAGENET: `vps-jax convert` of its ImageNet file
Hardware:  8 GPUs of 80 GB, batch 32
Time:      500,000 steps; by count at least 23 hours on 8 A100, expect twice that
Expected:  no number is published for this stage alone; the released weights can take its place (docs/reproduce.md)
Source:    docs/reference/tarvis.md [spec 6.6, 7]; what stands beside [ours] is a proposal
"""

from configs import common, datasets

COLOR = {"hue": 12, "saturation": 12, "contrast": (0.95, 1.05), "brightness": 25}
WEIGHTS = {"COCO": 0.55, "ADE20K": 0.2, "CITYSCAPES": 0.05, "MAPILLARY": 0.2}
TASKS = {"instance": 0.3, "panoptic": 0.3, "vos": 0.4}


def get_config(backbone: str = "swin_large"):
    config = common.base()
    config.name = f"stage1_{backbone}"
    config.model.backbone = backbone
    config.model.semantic_groups = datasets.groups(*WEIGHTS)
    config.model.vos = True
    config.infer.semantic_group = None  # VIPSeg comes in stage 2
    config.init_from.fresh = ("^params/(?!backbone/)", "^params/backbone/norm_[0-3]/")  # an ImageNet file has no more

    config.tasks = common.tasks(backbone, {"swin_large": 0.75, "other": 2.0}, points=25088, sharpen="null")
    config.class_maps = {f"{name}_instance": datasets.things_only(name) for name in WEIGHTS}

    config.optim.lr_groups = (common.NEVER_USED, *config.optim.lr_groups)
    config.optim.no_decay = (*config.optim.no_decay, common.OBJECT_EMBEDS)
    config.optim.warmup_steps = 0
    config.optim.decay_steps = (444_500, 481_500)
    config.train.steps = 500_000
    config.train.checkpoint_every = 5_000  # the published run kept every 20,000th
    config.train.evaluate_every = 0  # nothing to evaluate on before stage 2
    config.data.sources = {f"{name}_{task}": source(name, task) for name in WEIGHTS for task in TASKS}
    return config


def source(name: str, task: str):
    """One data set seen as clips of one task [spec 7.8]."""
    return common.source(
        path=f"data/prepared/{datasets.TABLES[name]}",
        task=task,
        group=name,
        weight=WEIGHTS[name] * TASKS[task],
        recipe="affine",
        short_side=(512, 544, 576),
        crop_px=(512, 512),
        crop_together=name in ("CITYSCAPES", "MAPILLARY"),
        color=COLOR,
        needs_instances=True,
        objects=tuple(range(1, 9)),
        object_shares="shown",
    )
