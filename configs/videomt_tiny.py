"""VidEoMT at small scale: both stages of configs/eomt.py and configs/videomt.py, for two CPU cores.

Command:   python main.py --config configs/videomt_tiny.py:segmenter --workdir runs/videomt_tiny_segmenter
           python main.py --config configs/videomt_tiny.py
Hardware:  two CPU cores
The data are those of configs/tiny.py. Nothing is pretrained, so all parameters train at one rate.
"""

from configs import common, eomt, tiny, videomt

STEPS = {"segmenter": 900, "video": 700}
SEGMENTER = "runs/videomt_tiny_segmenter"


def get_config(stage: str = "video"):
    common.choose(stage, STEPS)
    drawn = tiny.get_config()
    config = {"segmenter": eomt, "video": videomt}[stage].get_config("small")
    config.name = "videomt_tiny" if stage == "video" else f"videomt_tiny_{stage}"
    config.model.size = "tiny"
    config.model.patch = 8
    config.model.upscales = 1
    config.model.remat = False  # nothing of this size needs it
    config.model.dtype = "float32"  # CPUs gain nothing from bfloat16

    config.tasks.video_masks.match_frame = "appearance"
    config.tasks.video_masks.match_points = 256
    config.tasks.video_masks.mask_points = 128
    config.tasks.video_masks.normalize_clips = None

    steps = STEPS[stage]
    config.optim.lr = 1e-3
    config.optim.warmup_steps = 100
    config.optim.late_warmup_steps = 0
    config.optim.late_groups = ()
    config.optim.total_steps = steps
    config.optim.clip_norm = 1.0
    config.optim.lr_groups = (("never_used", "^trunk/mask_token$", 0.0), ("all", "", 1.0))
    if stage == "segmenter":
        config.model.masked_steps = eomt.masked_steps(steps, 3)
        config.init_from.fresh = ()
    else:
        config.init_from.path = SEGMENTER

    config.train.steps = steps
    config.train.batch_size = 8
    config.train.ema_decay = 0.99
    config.train.log_every = 20
    config.train.checkpoint_every = steps // 2
    config.train.evaluate_every = steps
    config.train.keep_checkpoints = 1

    config.synthetic.folder = drawn.synthetic.folder
    folder = config.synthetic.get_ref("folder")
    config.evaluate.truth = folder + "/converted"
    config.data.clip_frames = 1 if stage == "segmenter" else 3
    config.data.max_instances = 8
    config.data.chunk_steps = 1
    config.data.num_workers = 0
    config.data.pad_multiple = 64  # one program for both aspects
    own = drawn.data.sources.vipseg
    path = folder + "/prepared/vipseg"
    config.data.sources = {"vipseg": videomt.source(own.short_side, path=path, max_side=own.max_side)}
    config.infer.short_side_px = own.short_side
    config.infer.max_side_px = own.max_side
    return config
