"""The default: a small TarViS on synthetic videos, which two CPU cores train in minutes.

Command:   python main.py            (the data are generated and prepared first, if they are missing)
Hardware:  two CPU cores, 2 GB of memory
Time:      about 8 minutes
Expected:  VPQ of the EMA weights on unseen videos 42.1 to 42.6 over three seeds (mean of the windows 1, 2, 4, 6)

The recipe is its own: the published rate, clip and warm-up are made for 90,000 steps. Small batches, a higher rate that
falls linearly and a shorter memory of the second moment reach in 1,500 steps of 4 clips what `stepwise` reaches in
1,300 steps of 8 clips.
"""

from configs import common


def get_config():
    config = common.base()
    config.name = "tiny"

    config.model.backbone = "swin_micro"
    config.model.instance_queries = 20
    config.model.hidden_dim = 64
    config.model.num_heads = 4
    config.model.neck_layers = 2
    config.model.neck_ffn_dim = 128
    config.model.decoder_layers = 6
    config.model.decoder_ffn_dim = 128
    config.model.drop_path_rate = 0.0
    config.model.remat = False  # nothing of this size needs it
    config.model.dtype = "float32"  # CPUs gain nothing from bfloat16

    config.tasks.panoptic.match_points = 256
    config.tasks.panoptic.mask_points = 128
    config.tasks.panoptic.semantic_points = 256

    config.optim.lr = 3e-3
    config.optim.b2 = 0.99
    config.optim.schedule = "warmup_poly"
    config.optim.warmup_steps = 100
    config.optim.clip_norm = 1.0
    config.optim.lr_groups = (("all", "", 1.0),)  # nothing is pretrained

    config.train.steps = 1_500
    config.optim.total_steps = config.train.get_ref("steps").identity()  # other numbers stretch the schedule
    config.train.batch_size = 4
    config.train.ema_decay = 0.99
    config.train.log_every = 20
    config.train.checkpoint_every = 300
    config.train.evaluate_every = 1_500
    config.train.first_evaluation = 120  # shows pictures soon
    config.train.keep_checkpoints = 1

    config.synthetic.folder = "runs/data/tiny"
    folder = config.synthetic.get_ref("folder")  # an empty one generates nothing; then set the two paths below
    config.evaluate.truth = folder + "/converted"

    config.data.clip_frames = 2
    config.data.max_instances = 8
    config.data.chunk_steps = 1
    config.data.num_workers = 0
    config.data.sources = {
        "vipseg": common.source(
            path=folder + "/prepared/vipseg",
            group="VIPSEG",
            short_side=64,  # whole frames of both aspect classes fit into one program of 64x128
            max_side=128,
            frame_window=2.0,
        )
    }

    config.infer.clip_frames = 4
    config.infer.overlap_frames = 2
    config.infer.short_side_px = 64
    config.infer.max_side_px = 128
    return config


def stepwise(config, steps: int) -> None:
    """A schedule in the shape of the published one: eight clips a step, and a rate that falls to a tenth twice."""
    config.optim.lr = 1e-3
    config.optim.b2 = common.base().optim.b2
    config.optim.schedule = "steps"
    config.optim.warmup_steps = round(0.1 * steps)
    config.optim.decay_steps = (round(0.7 * steps), round(0.9 * steps))
    config.train.steps = config.train.evaluate_every = steps
    config.train.batch_size = 8
    config.train.checkpoint_every = min(steps, config.train.checkpoint_every)
    config.train.first_evaluation = 0
