"""EoMT on the frames of VIPSeg: the first stage of VidEoMT, with attention masks that fade.

Command:   python main.py --config configs/eomt.py[:SIZE] --workdir runs/eomt
           --config.init_from.path=DIR starts from DINOv2, as `vps-jax convert FILE --config configs/eomt.py` leaves it
           SIZE: large (default), base, small, dinov3_large
Hardware:  8 GPUs
Source:    the published stage's recipe is unknown [spec 0]. Rates, losses and the fading of the masks are those of EoMT
           on COCO, the steps as shares of the run [spec 8]; sizes of the frames are those of configs/videomt.py. The
           number of steps and the batch are [ours]. Sections are those of docs/reference/videomt.md.
"""

from configs import common, videomt
from vps_jax import config as keys

STEPS = 40_000


def get_config(size: str = "large"):
    trunk_blocks, query_blocks = videomt.BLOCKS[common.choose(size, videomt.BLOCKS)]
    config = videomt.get_config(size)
    config.name = "eomt" if size == "large" else f"eomt_{size}"
    config.model.masked_steps = masked_steps(STEPS, query_blocks)
    config.model.auxiliary_sets = query_blocks  # before every query block, with the final norm
    config.model.norm_auxiliary = True
    config.optim = videomt.optim(trunk_blocks, query_blocks, decay=0.8, steps=STEPS)
    config.tasks = {"video_masks": common.section(keys.VideoMasks(normalize_clips=2))}  # images of a device
    config.init_from.fresh = ("^params/(heads/|query)", "^schedule/")  # what a bare trunk lacks
    config.train.steps = STEPS
    config.train.batch_size = 16
    config.data.clip_frames = 1
    return config


def masked_steps(steps: int, query_blocks: int) -> tuple[tuple[int, int], ...]:
    """When the masks of each block fade: of four, from 1/6 to 2/6 of the run, 2/6 to 3/6, 3/6 to 4/6, 4/6 to 5/6."""
    share = steps / (query_blocks + 2)
    return tuple((round((i + 1) * share), round((i + 2) * share)) for i in range(query_blocks))
