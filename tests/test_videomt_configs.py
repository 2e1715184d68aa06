"""The recipes of VidEoMT and of its first stage: rates by layer, what starts late, when masks fade."""

import functools

import numpy as np
import pytest

from configs import eomt, videomt
from vps_jax import models
from vps_jax.config import experiment
from vps_jax.models.videomt import SIZES
from vps_jax.train.optimizer import parameter_groups
from vps_jax.train.state import flat_paths


@functools.cache
def groups(stage):
    config = experiment(stage.get_config())
    model = models.build(config.model)
    params = models.shapes(model)["params"]
    found = parameter_groups(params, lr_groups=config.optim.lr_groups, no_decay=config.optim.no_decay)
    return {name: flat_paths(getattr(found, name)) for name in ("names", "lr_scales", "decays")}, config


@pytest.mark.parametrize(("stage", "decay"), [(videomt, 0.6), (eomt, 0.8)])
def test_rates_fall_from_the_last_block_to_the_image(stage, decay):
    found, config = groups(stage)
    scales = {path: np.asarray(scale).ravel() for path, scale in found["lr_scales"].items()}
    np.testing.assert_allclose(scales["blocks/fc1/kernel"], decay ** np.arange(3, -1, -1.0), rtol=1e-6)
    np.testing.assert_allclose(scales["trunk/blocks/gamma1"], decay ** np.arange(23, 3, -1.0), rtol=1e-6)
    for path in ("trunk/pos_embed", "trunk/cls_token", "trunk/reg_token", "trunk/patch_embed/proj/kernel"):
        assert scales[path] == pytest.approx(decay**23)
    for path in ("norm/scale", "query", "query_updater/kernel", "heads/class_head/bias", "heads/upscale_0/up/kernel"):
        assert scales[path] == 1
    assert scales["trunk/mask_token"] == 0  # so that nothing, decay included, moves it
    late = {path.split("/")[0] for path, name in found["names"].items() if name in config.optim.late_groups}
    assert late == {"trunk", "blocks", "norm"}
    assert all(found["decays"].values())


def test_blocks_are_those_of_the_sizes():
    for size, blocks in videomt.BLOCKS.items():
        assert blocks == (SIZES[size]["trunk_blocks"], SIZES[size]["query_blocks"])


def test_masks_fade_one_block_after_the_other():
    """The published steps of COCO, whose run has 88,692 steps (spec: videomt 8)."""
    published = ((14782, 29564), (29564, 44346), (44346, 59128), (59128, 73910))
    assert eomt.masked_steps(88692, 4) == published


def test_the_first_stage_sees_single_frames_and_predicts_before_every_block():
    _, config = groups(eomt)
    assert config.data.clip_frames == 1 and config.model.norm_auxiliary
    assert len(config.model.masked_steps) == config.model.auxiliary_sets == 4
    assert groups(videomt)[1].model.masked_steps == ()
