"""What all TarViS experiments share: every key that a room reads, at the published Swin-L fine-tuning values.

A stage's file starts from `base()` and states only what it changes. Marks: [spec 7.1] is section 7.1 of
docs/reference/tarvis.md, read or measured in the published system; [ours] is our own choice.
"""

import ml_collections

VIPSEG_CLASSES = 124
# in published files, but nothing runs them; torch skips parameters without gradient, so they must not decay [spec 6.6]
NEVER_USED = ("never_used", "^heads/(mask_embed_free|proj_vos|proj_background_vos)/", 0.0)


def base() -> ml_collections.ConfigDict:
    """A complete config without data sources."""
    config = ml_collections.ConfigDict()
    config.name = "base"
    config.train = train()
    config.init_from = init_from()
    config.optim = optim()
    config.model = model()
    config.tasks = {"panoptic": panoptic()}
    config.class_maps = {}  # source name -> its classes in the order of its semantic group, -1 for none; none: the same
    config.data = data()
    config.data.batch_size = config.train.get_ref("batch_size")
    config.data.seed = config.train.get_ref("seed")
    config.infer = infer()
    config.evaluate = evaluate()
    return config


def model() -> ml_collections.ConfigDict:
    """TarViS with Swin-L; the sizes of a backbone stand in a table in the model's file."""
    return ml_collections.ConfigDict({
        "name": "tarvis",
        "backbone": "swin_large",
        "semantic_groups": (("VIPSEG", VIPSEG_CLASSES),),  # (name, classes), in the order of the rows [spec 4.2]
        "instance_queries": 128,  # [spec 4.1]
        "hidden_dim": 256,
        "num_heads": 8,
        "neck_layers": 6,  # pairs of a spatial and a temporal layer [spec 3.3]
        "neck_ffn_dim": 1024,
        "decoder_layers": 9,  # [spec 5]
        "decoder_ffn_dim": 2048,
        "vos": False,  # object encoder and its queries; VIPSeg alone has no use for them
        "drop_path_rate": 0.3,  # every Swin variant [spec 2]
        "remat": True,  # memory / 6 for a third more arithmetic [ours]
        "dtype": "bfloat16",  # compute only; parameters, logits, losses and sampling are float32 [ours, spec 7.4]
    })  # fmt: skip


def panoptic() -> ml_collections.ConfigDict:
    """Losses of video panoptic segmentation [spec 6.2, 6.3, 6.6; weights of Swin-L fine-tuning]."""
    return ml_collections.ConfigDict({
        "match_points": 12544,
        "mask_points": 12544,
        "semantic_points": 50176,
        "semantic_weight": 1.0,
        "regularization": True,
        "ignore_null_classes": False,
        "class_weight": 2.0,
        "mask_weight": 5.0,
        "dice_weight": 5.0,
        "background_weight": 0.1,
    })  # fmt: skip


def tasks(backbone: str, semantic_weight: dict, *, points: int, sharpen: str) -> ml_collections.ConfigDict:
    """Losses of the joint stages [spec 6.6].

    Args:
      backbone: Swin-L has weights of its own.
      semantic_weight: weight of the semantic cross entropy for `swin_large` and for the `other` backbones.
      points: semantic points per frame of panoptic clips.
      sharpen: what Swin-L adds to the semantic loss: `norm`, the regularisation, or `null`, ignored null classes.
    """
    large = backbone == "swin_large"
    shared = {
        "semantic_weight": semantic_weight["swin_large" if large else "other"],
        "regularization": large and sharpen == "norm",
        "ignore_null_classes": large and sharpen == "null",
    }
    result = ml_collections.ConfigDict({"panoptic": panoptic(), "instance": panoptic()})
    result.panoptic.update({**shared, "semantic_points": points})
    result.instance.update({**shared, "semantic_points": 12544})
    result.instance.void_is_background = True  # as published, for data sets that label things alone
    result.semantic = {**shared, "semantic_points": points}
    result.vos = {"mask_points": 12544, "mask_weight": 5.0, "dice_weight": 5.0}
    return result


def init_from() -> ml_collections.ConfigDict:
    """Weights that a fresh run starts from: an earlier stage's workdir, or converted ones."""
    return ml_collections.ConfigDict({
        "path": "",  # empty: random
        "weights": "ema",  # or "raw"
        "groups": (),  # semantic groups that start from another: (group, source group, its classes or None for all)
        "fresh": (),  # patterns of parameter paths that the checkpoint need not have
    })  # fmt: skip


def optim() -> ml_collections.ConfigDict:
    """AdamW, its groups and its schedule [spec 7.1, 7.2]."""
    return ml_collections.ConfigDict({
        "name": "adamw",
        "lr": 1e-4,
        "schedule": "steps",
        "warmup_steps": 10_000,
        "decay_steps": (50_000, 84_000),
        "decay_factor": 0.1,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.05,
        "clip_norm": 0.01,  # before Adam; measured norms are 1e3 and more, so every step is clipped
        "lr_groups": (("backbone", "^backbone/", 0.1), ("rest", "", 1.0)),
        # all norms and all embeddings; biases and relative position tables do decay
        "no_decay": (r"norm[^/]*/(scale|bias)$", "^queries/", "level_embed"),
    })  # fmt: skip


def train() -> ml_collections.ConfigDict:
    """The run."""
    return ml_collections.ConfigDict({
        "steps": 90_000,
        "batch_size": 32,  # clips per step on all devices together [spec 7.2]
        "accumulate": 1,  # micro-batches per step; the published batch on few devices
        "fsdp": 1,  # devices that share one copy of the parameters
        "seed": 42,  # [spec 7.9]
        "ema_decay": 0.9998,  # after a ramp of (1 + n) / (10 + n) [ours]
        "on_nonfinite": "stop",  # or "skip" the step
        "log_every": 50,
        "checkpoint_every": 1_000,
        "evaluate_every": 10_000,  # and after the last step; 0 never
        "keep_checkpoints": 2,  # the newest; the best by `best_metric` of the average stays as well
        "best_metric": "vpq",
        "vos_point_likelihood": 0.3,  # share of VOS objects that are given by a point [spec 4.4]
    })  # fmt: skip


def data() -> ml_collections.ConfigDict:
    """Clips [spec 1, 7.5]; sources are added by the experiment."""
    return ml_collections.ConfigDict({
        "clip_frames": 3,
        "max_instances": 64,  # the smallest beyond are dropped [ours]
        "chunk_steps": 8,  # steps in a row from one source [spec 7.5]
        "num_workers": 12,  # processes; JPEG decoding is most of the work [ours]
        "sources": {},
    })  # fmt: skip


def infer() -> ml_collections.ConfigDict:
    """Clips, stitching and fusion of VIPSeg [spec 8]."""
    return ml_collections.ConfigDict({
        "clip_frames": 12,
        "overlap_frames": 6,
        "short_side_px": 576,
        "max_side_px": 1333,
        "score_threshold": 0.5,
        "max_tracks_per_clip": 1000,
        "association_iou": 0.5,
        "instance_overlap": "earlier",  # the published averaging has no effect [spec 9.8]
        "panoptic_score": 0.5,
        "task": "panoptic",
        "semantic_group": "VIPSEG",
        "taxonomy": "vipseg",
    })  # fmt: skip


def evaluate() -> ml_collections.ConfigDict:
    """What the run evaluates on: a VIPSeg root with truth (`vps-jax data convert`)."""
    return ml_collections.ConfigDict({
        "truth": "data/VIPSeg_720P",
        "layout": "vipseg",  # or "vspw"
        "split": "val",
        "windows": "leaderboard",  # 1, 2, 4, 6 frames; their mean is the challenge's VPQ
        "metrics": ("vpq", "stq", "miou"),
        "samples": 2,  # videos whose overlays are kept in samples/ and TensorBoard
    })  # fmt: skip
