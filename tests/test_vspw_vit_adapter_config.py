"""The ViT-Adapter's recipe: layer-wise rates, what decays, crops that the model takes."""

import numpy as np
import pytest
from flax import traverse_util

from configs import vspw_tiny, vspw_vit_adapter
from vps_jax import models
from vps_jax.models.mask2former_sizes import SIZES, sized
from vps_jax.train.optimizer import make_schedule, parameter_groups


@pytest.fixture(scope="module")
def groups():
    config = vspw_vit_adapter.get_config().to_dict()
    model = models.build(config["model"])
    params = models.shapes(model, (640, 640))["params"]
    found = parameter_groups(params, lr_groups=config["optim"]["lr_groups"], no_decay=config["optim"]["no_decay"])
    return traverse_util.flatten_dict(found.lr_scales, sep="/"), traverse_util.flatten_dict(found.decays, sep="/")


@pytest.mark.parametrize(
    ("path", "scale"),
    [
        ("backbone/cls_token", 0.0718),
        ("backbone/patch_embed/proj/kernel", 0.0718),
        ("heads/cls_embed/kernel", 0.0718),
        ("heads/mask_embed/layers_2/bias", 0.0718),
        ("query_feat", 0.0718),
        ("query_embed", 0.0718),
        ("level_embed", 0.0718),
        ("backbone/level_embed", 1.0),
        ("heads/norm/scale", 1.0),
        ("backbone/spm/stem_0/conv/kernel", 1.0),
        ("backbone/injectors/gamma", 1.0),
        ("pixel_decoder/level_encoding", 1.0),
        ("decoder/rounds/level_0/ffn/linear1/kernel", 1.0),
    ],
)
def test_published_rates(groups, path, scale):
    assert groups[0][path] == pytest.approx(scale, abs=5e-5)


def test_rates_of_blocks_fall_with_depth(groups):
    scales = np.asarray(groups[0]["backbone/blocks/attn/relative_position_bias_table"]).ravel()
    np.testing.assert_allclose(scales[[0, 1, 23]], [0.0798, 0.0798 / 0.9, 0.9], atol=5e-5)
    assert len(scales) == 24


def test_vectors_do_not_decay_and_embeddings_do(groups):
    decays = groups[1]
    stacked = {"gamma1", "q_bias", "v_bias", "gamma", "scale", "bias"}
    for path, decayed in decays.items():
        assert decayed != (path.split("/")[-1] in stacked | {"gamma2"}), path
    assert decays["backbone/cls_token"] and decays["query_feat"]


def test_published_schedule():
    rate = make_schedule(vspw_vit_adapter.get_config().optim)
    expected = {0: 2e-11, 750: 9.8e-6, 1500: 1.925e-5, 20_000: 1e-5}
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, rel=2e-2), step


@pytest.mark.parametrize("size", sorted(vspw_vit_adapter.SIZES))
def test_crops_and_windows_are_of_the_model_s_size(size):
    config = vspw_vit_adapter.get_config(size)
    crop = config.data.sources.vspw.crop_px
    numbers = sized(config.model)
    assert crop == numbers.image_size or not numbers.beit
    assert config.infer.window_px == crop[0] and config.infer.stride_px < crop[0]
    assert config.train.batch_size // config.tasks.mask_classification.normalize_clips == 8


def test_the_twin_differs_in_numbers_alone():
    twin, large = vspw_tiny.get_config(), vspw_vit_adapter.get_config()
    assert set(twin.model) == set(large.model) and set(twin.infer) == set(large.infer)
    assert twin.data.sources.vspw.crop_px == SIZES[twin.model.size].image_size
