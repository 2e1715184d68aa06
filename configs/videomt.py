"""VidEoMT on VIPSeg: a plain ViT whose last blocks carry queries through clips of five frames.

Command:   python main.py --config configs/videomt.py[:SIZE] --workdir DIR
           --config.init_from.path=runs/eomt starts from the frame-wise stage, as it must [spec 8]
           SIZE: large (default), base, small, dinov3_large
Hardware:  8 GPUs, a clip each
Time:      40,000 steps; 1.6e19 operations, by count at least 2.6 hours on 8 A100 [spec 10]
Source:    the published configuration and what the published code does with it [spec 8]; the recipe of S and B is that
           of their YouTube-VIS models. [ours] marks our own choice. Sections are those of docs/reference/videomt.md.
"""

from configs import common
from vps_jax import config as keys

CLASSES = 124
STEPS = 40_000
BLOCKS = {"small": (9, 3), "base": (9, 3), "large": (20, 4), "dinov3_large": (20, 4)}  # of the trunk, with queries
SHORT_SIDES = tuple(range(480, 801, 32))


def get_config(size: str = "large"):
    common.choose(size, BLOCKS)
    config = common.base(
        model=keys.VidEoMT(size=size, semantic_groups=(("VIPSEG", CLASSES),)),
        infer=keys.QueryInference(semantic_group="VIPSEG"),
        # matched in the first frame, and normalised over the one clip of a device [spec 8]
        tasks={"video_masks": keys.VideoMasks(match_frame="first", normalize_clips=1)},
    )
    config.name = "videomt" if size == "large" else f"videomt_{size}"
    config.optim = optim(*BLOCKS[size], decay=0.6, steps=STEPS)
    config.train.steps = STEPS
    config.train.batch_size = 8
    config.train.ema_decay = 0.0  # none
    config.train.evaluate_every = 5_000
    config.data.clip_frames = 5
    config.data.pad_multiple = 32
    config.data.sources = {"vipseg": source(SHORT_SIDES)}
    return config


def source(short_side, **changes):
    """VIPSeg in clips of consecutive frames: several sizes, mirrored or not, no crop, no change of colour [spec 8]."""
    settings = {
        "path": "data/prepared/vipseg",
        "task": "video_masks",
        "group": "VIPSEG",
        "short_side": short_side,
        "max_side": 1333,
        "color": None,
        "augment": (("flip", {}), ("resize", {}), ("pad_color", {"color": (124, 116, 104)})),
        "frame_window": 0.0,
        "needs_instances": False,
    }
    return common.source(**settings | changes)


def optim(trunk_blocks: int, query_blocks: int, *, decay: float, steps: int):
    """AdamW with a rate that falls from the heads down to the image, and an encoder that starts later [spec 8].

    Args:
      trunk_blocks, query_blocks: of the model.
      decay: factor from block to block.
      steps: of the run.
    """
    depth = trunk_blocks + query_blocks
    rates = tuple(decay ** (depth - 1 - i) for i in range(depth))
    return common.section(
        keys.Optim(
            lr=1e-4,
            schedule="warmup_poly",
            warmup_steps=500,
            late_warmup_steps=1_000,
            late_groups=("trunk", "query_blocks", "embeddings", "norm"),
            poly_power=0.9,
            total_steps=steps,
            weight_decay=0.05,
            clip_norm=0.0,  # 0.01 stands in the published configuration, and nothing applies it [spec 0]
            lr_groups=(
                ("never_used", "^trunk/mask_token$", 0.0),
                ("trunk", "^trunk/blocks/", rates[:trunk_blocks]),
                ("query_blocks", "^blocks/", rates[trunk_blocks:]),
                ("embeddings", "^trunk/", rates[0]),
                ("norm", "^norm/", 1.0),
                ("heads", "", 1.0),
            ),
            no_decay=(),  # norms, biases, queries and LayerScale decay as everything else
        )
    )
