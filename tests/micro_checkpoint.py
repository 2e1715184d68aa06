"""Checkpoints of models of a few thousand numbers, for tests of what happens around a model."""

import pathlib

import jax
import numpy as np

from configs import tiny, videomt_tiny
from vps_jax import models
from vps_jax.train.checkpoint import save_converted


def videomt(folder: pathlib.Path, *, query_blocks: int = 1, **infer) -> pathlib.Path:
    """A VidEoMT of a trunk block and a few with queries, for frames of 40x64; every query may be a segment."""
    config = videomt_tiny.get_config()
    config.model.update({"trunk_blocks": 1, "query_blocks": query_blocks, "queries": 6})
    config.infer.update({
        "short_side_px": 40, "max_side_px": 64, "chunk_frames": 2, "score_threshold": 0.0, **infer,
    })  # fmt: skip
    return written(folder, config)


def tarvis(folder: pathlib.Path, **infer) -> pathlib.Path:
    """A TarViS with few layers for frames of 64x128; every query may be a track."""
    config = tiny.get_config()
    config.model.update({
        "backbone": "resnet_micro", "hidden_dim": 16, "num_heads": 2, "neck_layers": 1, "neck_ffn_dim": 16,
        "decoder_layers": 3, "decoder_ffn_dim": 16, "instance_queries": 6,
    })  # fmt: skip
    config.infer.update({
        "clip_frames": 4, "overlap_frames": 2, "short_side_px": 64, "max_side_px": 128, "score_threshold": 0.0,
        "panoptic_score": 0.0, **infer,
    })  # fmt: skip
    return written(folder, config)


def written(folder: pathlib.Path, config) -> pathlib.Path:
    """The folder with a checkpoint of random weights."""
    variables = jax.tree.map(np.array, models.init(models.build(config.model), jax.random.key(0), (64, 64)))
    save_converted(folder, config.to_dict(), variables)
    return folder
