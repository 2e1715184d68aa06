"""The jitted model: sizes, padding, features of common frames computed once, programs counted."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import stage4
from vps_jax import models
from vps_jax.infer import clip_model as module
from vps_jax.infer.clip_model import ClipModel
from vps_jax.types import QueryOutputs


@pytest.mark.parametrize(
    ("original", "resized", "padded"),
    [
        ((720, 1280), (576, 1024), (576, 1024)),
        ((480, 854), (576, 1025), (576, 1088)),
        ((1280, 720), (1024, 576), (1024, 576)),
        ((300, 1200), (333, 1333), (384, 1344)),  # the long side limits
    ],
)
def test_sizes(original, resized, padded):
    assert module.geometry(original, short_side=576, max_side=1333) == (padded, resized, original)


def test_frames_may_keep_their_size():
    assert module.geometry((370, 1224), short_side=None, max_side=100) == ((384, 1280), (370, 1224), (370, 1224))


def test_frames_are_padded_right_and_bottom_with_grey():
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 10:] = 200
    out = module.preprocess(image, module.geometry((10, 20), short_side=40, max_side=100))
    assert out.shape == (64, 128, 3) and out.dtype == np.uint8
    assert (out[40:] == 128).all() and (out[:, 80:] == 128).all()
    assert (out[:40, :30] == 0).all() and (out[:40, 50:80] == 200).all()


PANOPTIC = (("panoptic", None),)


class MeanModel:
    """Stands for a network: features are block means; instance scores depend on all frames through the clip's mean."""

    neck_passes = 0  # counted when traced
    semantic_groups = (("A", 3), ("B", 3))

    def apply(self, variables, x, *, method, **kwargs):
        return getattr(self, method)(variables["params"], x, **kwargs)

    def backbone_features(self, params, images):
        b, t, h, w, c = images.shape
        x = images.astype(jnp.float32).reshape(b, t, h // 4, 4, w // 4, 4, c).mean((3, 5))
        return (x * params["gain"], x[:, :, ::2, ::2])

    def neck_maps(self, params, features):
        self.neck_passes += 1
        return features

    def decode(self, params, maps, *, task, group, last):
        assert last
        return self.decode_features(params, maps, task=task, group=group)

    def decode_features(self, params, features, *, task, group):
        fine, coarse = features
        mean = fine.mean((1, 2, 3))  # [b, c]
        semantic = jnp.eye(3)[None, None] * (2.0 if group == "B" else 1.0)
        if task == "semantic":
            return QueryOutputs(fine, {"semantic": semantic}, None, None)
        embeds = {"instance": jnp.stack([mean, 2 * mean], axis=1)[None], "semantic": semantic}  # [1, b, 2, c]
        classes = coarse.mean() * jnp.ones((1, 1, 2, 4))
        return QueryOutputs(fine, embeds, classes, None)


def clips(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (64, 128, 3), np.uint8) for _ in range(count)]


def expected(images, gain=1.0):
    x = np.stack(images).astype(np.float64).reshape(-1, 16, 4, 32, 4, 3).mean((2, 4)) * gain  # [t, 16, 32, 3]
    mean = x.mean((0, 1, 2))
    return np.stack([x @ mean, 2 * x @ mean]), np.moveaxis(x, -1, 0)


def test_scores_are_products_of_features_and_embeddings():
    images = clips(5)
    model = ClipModel(MeanModel(), {"params": {"gain": jnp.float32(0.01)}}, PANOPTIC, chunk=3)
    found = model.predict_sets(0, images)[0]
    masks, semantic = expected(images, 0.01)
    np.testing.assert_allclose(found.instance_masks, masks, rtol=2e-5)
    np.testing.assert_allclose(found.semantic, semantic, rtol=2e-5)
    assert found.instance_classes.shape == (2, 4)


def test_common_frames_go_through_the_backbone_once(monkeypatch):
    video = clips(10)
    model = ClipModel(MeanModel(), {"params": {"gain": jnp.float32(1)}}, PANOPTIC, chunk=2)
    runs = []
    monkeypatch.setattr(model, "_run", copy.copy(model._run))
    backbone = model._run.backbone
    model._run.backbone = lambda variables, images: runs.append(images) or backbone(variables, images)
    for first, last in ((0, 4), (2, 6), (4, 8), (6, 9)):
        found = model.predict_sets(first, video[first:last])[0]
        masks, semantic = expected(video[first:last])
        np.testing.assert_allclose(found.instance_masks, masks, rtol=2e-5)
        np.testing.assert_allclose(found.semantic, semantic, rtol=2e-5)
    assert [x.shape[1] for x in runs] == [2] * 5  # 2 + 1 + 1 + 1 chunks for nine frames
    assert np.array_equal(runs[-1][0, 0], runs[-1][0, 1])  # the last chunk is filled up with a copy
    # one program per shape for the backbone, one more per clip length for the decoder
    assert model.programs == {"backbone 2x64x128": 1, "decoder 4x64x128": 1, "decoder 3x64x128": 1}


def test_the_network_for_export_has_the_bits_of_the_predictor():
    images = clips(3)
    variables = {"params": {"gain": jnp.float32(0.01)}}
    for task, names in (("panoptic", list(module.CLIP_OUTPUTS)), ("semantic", ["semantic"])):
        model = ClipModel(MeanModel(), variables, [(task, None)], chunk=2)  # the last chunk is filled up
        network = model.network(module.geometry((50, 120), short_side=50, max_side=120), 3)
        assert network.inputs["frames"].shape == (3, 50, 120, 3) and list(network.outputs) == names
        cut = np.stack([image[:50, :120] for image in images])
        padded = [np.pad(x, ((0, 14), (0, 8), (0, 0)), constant_values=module.PAD_VALUE) for x in cut]
        expected = model.predict_sets(0, padded)[0]
        found = jax.jit(network.function)(network.variables, cut)
        for name, values in zip(names, found, strict=True):
            assert np.array_equal(values, getattr(expected, name))


def test_another_video_starts_without_old_features():
    model = ClipModel(MeanModel(), {"params": {"gain": jnp.float32(1)}}, PANOPTIC, chunk=4)
    model.predict_sets(0, clips(4, seed=1))
    model = model.fresh()
    other = clips(4, seed=2)
    np.testing.assert_allclose(model.predict_sets(0, other)[0].semantic, expected(other)[1], rtol=2e-5)


def test_new_weights_of_an_equal_model_need_no_new_program():
    """As in evaluations during training."""
    images, network = clips(4), MeanModel()
    for gain in (1.0, 0.5, 2.0):
        model = ClipModel(network, {"params": {"gain": jnp.float32(gain)}}, PANOPTIC, chunk=4)
        np.testing.assert_allclose(model.predict_sets(0, images)[0].semantic, expected(images, gain)[1], rtol=2e-5)
    assert model.programs == {"backbone 4x64x128": 1, "decoder 4x64x128": 1}


def test_task_and_group_reach_the_model():
    model = ClipModel(MeanModel(), {"params": {"gain": jnp.float32(1)}}, [("semantic", "B")], chunk=1)
    images = clips(1)
    found = model.predict_sets(0, images)[0]
    assert found.instance_masks is None and found.instance_classes is None
    np.testing.assert_allclose(found.semantic, 2 * expected(images)[1], rtol=2e-5)


def test_several_query_sets_share_backbone_and_neck():
    network, images = MeanModel(), clips(4)
    variables = {"params": {"gain": jnp.float32(1)}}
    model = ClipModel(network, variables, [("panoptic", "A"), ("semantic", "B")], chunk=4)
    both = model.predict_sets(0, images)
    assert network.neck_passes == 1 and sum(model.programs.values()) == 2
    for found, (task, group) in zip(both, [("panoptic", "A"), ("semantic", "B")], strict=True):
        alone = ClipModel(network, variables, [(task, group)], chunk=4).predict_sets(0, images)[0]
        np.testing.assert_allclose(found.semantic, alone.semantic, rtol=1e-6)
        assert (found.instance_masks is None) == (task == "semantic")


def test_programs_of_the_full_size_can_be_made_for_gpus():
    model = models.build(stage4.get_config().model.to_dict())
    variables = models.shapes(model)
    programs = module.Programs(model, (("panoptic", None), ("semantic", None)), chunk=6)
    backbone = programs.backbone.trace(variables, jax.ShapeDtypeStruct((1, 6, 576, 1024, 3), jnp.uint8))
    frame = jax.eval_shape(programs.split, backbone.out_info)[0]
    decode = programs.decode.trace(variables, [frame] * 12)
    panoptic, semantic = decode.out_info
    assert panoptic.instance_masks.shape == (128, 12, 144, 256) and semantic.semantic.shape == (124, 12, 144, 256)
    for program in (backbone, decode):
        assert "custom_call" not in program.lower(lowering_platforms=("cuda",)).as_text()
