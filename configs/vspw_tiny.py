"""The ViT-Adapter at small scale: every part of configs/vspw_vit_adapter.py, for two CPU cores.

Command:   python main.py --config configs/vspw_tiny.py    (missing data are generated and prepared first)
Hardware:  two CPU cores
Time:      about 7 minutes, evaluation included
Expected:  mIoU of the EMA weights on unseen videos at least 50
"""

from configs import vspw_vit_adapter

CROP = 96


def get_config():
    config = vspw_vit_adapter.get_config()
    config.name = "vspw_tiny"
    config.model.size = "beit_tiny_96"
    config.model.drop_path_rate = 0.0
    config.model.remat = False  # nothing of this size needs it
    config.model.dtype = "float32"  # CPUs gain nothing from bfloat16

    config.tasks.mask_classification.match_points = 256
    config.tasks.mask_classification.mask_points = 256
    config.tasks.mask_classification.normalize_clips = None

    config.optim.lr = 1e-3
    config.optim.warmup_steps = 100
    config.optim.total_steps = 1_000
    config.optim.clip_norm = 1.0
    config.optim.lr_groups = (("all", "", 1.0),)  # nothing is pretrained

    config.train.steps = 1_000
    config.train.batch_size = 8
    config.train.ema_decay = 0.99
    config.train.log_every = 20
    config.train.checkpoint_every = 250
    config.train.evaluate_every = 1_000
    config.train.keep_checkpoints = 1

    config.synthetic.folder = "runs/data/vspw_tiny"
    config.synthetic.layout = "vspw"
    config.synthetic.test = 2
    folder = config.synthetic.get_ref("folder")
    config.evaluate.truth = folder + "/raw"

    config.data.num_workers = 0
    config.data.pad_multiple = 32
    source = config.data.sources.vspw
    source.path = folder + "/prepared/vspw"
    source.short_side = CROP
    source.max_side = 2 * CROP
    source.crop_px = (CROP, CROP)
    source.ratio = (0.75, 1.5)

    config.infer.short_side_px = CROP
    config.infer.max_side_px = 2 * CROP
    config.infer.window_px = CROP
    config.infer.stride_px = 64
    return config
