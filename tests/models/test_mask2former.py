import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax.models import mask2former
from vps_jax.models.layers import normalize
from vps_jax.tasks import make_task
from vps_jax.types import QueryOutputs, UserError

CONFIG = {"name": "mask2former", "size": "beit_tiny_96", "groups": (1, 1, 1, 1), "semantic_groups": (("VSPW", 7),)}
IMAGES = jnp.zeros((2, 1, 96, 96, 3), jnp.uint8)
TASK = make_task("mask_classification", num_classes=7)


def shapes_of(model, images=IMAGES, **kwargs):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, **kwargs))


@pytest.fixture(scope="module")
def model():
    return mask2former.from_config(CONFIG)


@pytest.fixture(scope="module")
def variables(model):
    return shapes_of(model)


def test_outputs_have_the_shapes_of_the_contract(model, variables):
    outputs = jax.eval_shape(model.apply, variables, IMAGES)
    assert outputs.mask_features.shape == (2, 1, 24, 24, 96)
    assert {name: a.shape for name, a in outputs.mask_embeds.items()} == {"object": (4, 2, 40, 96)}
    assert outputs.class_logits.shape == (4, 2, 40, 8)
    assert outputs.queries.shape == (4, 2, 40, 96)
    assert set(variables) == {"params", "batch_stats"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_initialisation_may_be_asked_with_any_size(model, variables):
    assert shapes_of(model, jnp.zeros((1, 1, 64, 64, 3), jnp.uint8), task="semantic") == variables


def test_bf16_computes_in_bf16_and_scores_in_float32(variables):
    model = mask2former.from_config(CONFIG | {"dtype": "bfloat16"})
    assert shapes_of(model) == variables  # so either may run the weights of the other
    outputs = jax.eval_shape(model.apply, variables, IMAGES)
    assert outputs.mask_features.dtype == jnp.bfloat16
    assert outputs.class_logits.dtype == outputs.mask_embeds["object"].dtype == jnp.float32


def test_inference_takes_features_and_gives_the_last_set(model, variables):
    run = lambda method: lambda v, *args: model.apply(v, *args, method=method)  # noqa: E731
    features = jax.eval_shape(run("backbone_features"), variables, IMAGES)
    assert [f.shape for f in features] == [(2, 1, 96 // s, 96 // s, 96) for s in (4, 8, 16, 32)]
    outputs = jax.eval_shape(run("decode_features"), variables, features)
    assert outputs.class_logits.shape == (1, 2, 40, 8)
    scores = jax.eval_shape(TASK.decode, outputs).semantic
    assert scores.shape == (2, 7, 1, 24, 24) and scores.dtype == jnp.float32


def test_scores_sum_class_times_mask_over_queries_without_no_object():
    log = np.log
    outputs = QueryOutputs(
        mask_features=jnp.array([[[[[1.0, 0.0], [0.0, 1.0]]]]]),  # one frame of 1 x 2 pixels, 2 channels
        mask_embeds={"object": jnp.array([[[[log(3.0), 0.0], [0.0, -log(3.0)]]]], jnp.float32)},
        class_logits=jnp.array([[[[log(1.0), log(2.0), log(5.0)], [log(3.0), log(4.0), log(1.0)]]]], jnp.float32),
        queries=jnp.zeros((1, 1, 2, 2)),
    )
    # mask probabilities: query 0 (3/4, 1/2), query 1 (1/2, 1/4); classes: (1/8, 2/8), (3/8, 4/8)
    expected = [[3 / 32 + 3 / 16, 3 / 16 + 1 / 4], [1 / 16 + 3 / 32, 1 / 8 + 1 / 8]]
    np.testing.assert_allclose(np.moveaxis(TASK.decode(outputs).semantic, 1, -1)[0, 0, 0], expected, rtol=1e-6)


def test_pixels_are_normalised_with_the_row_s_own_numbers():
    own = {"size": "vit_small_224", "pixel_mean": (100, 110, 120), "pixel_std": [2] * 3}
    model = mask2former.from_config(CONFIG | own)
    pixel = normalize(jnp.array([104, 110, 100], jnp.uint8), model.pixel_mean, model.pixel_std)
    np.testing.assert_array_equal(pixel, [2.0, 0.0, -10.0])
    augreg = mask2former.from_config({"size": "vit_large_384"})
    assert augreg.pixel_mean == augreg.pixel_std == (127.5, 127.5, 127.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "beit_huge"}, "model.size='beit_huge': expected one of beit_large_640"),
        ({"widht": 3}, "model.widht: no such key; expected one of name, size"),
        ({"semantic_groups": (("A", 1), ("B", 2))}, "expected one label set"),
        ({"windows": (0,) * 4}, "windows=.*which has no windows"),
        ({"beit": False, "windows": (7,)}, "one for each of the 4 blocks"),
        ({"groups": (2, 2)}, "four interactions"),
        ({"decoder_layers": 4}, "multiple of 3"),
        ({"trunk_heads": 5}, "trunk_heads=5: expected a divisor of width=96"),
        ({"deform_heads": 5}, "deform_heads=5: expected a divisor of width . deform_ratio = 48"),
        ({"num_heads": 5}, "num_heads=5: expected a divisor of hidden_dim=96"),
        ({"hidden_dim": 48}, "multiple of 32"),
        ({"dtype": "float8"}, "dtype='float8': expected one of float32, bfloat16"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        mask2former.from_config(CONFIG | change)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(task="panoptic"), "task 'panoptic'"),
        (dict(group="ADE20K"), "label set 'ADE20K' is not in the model; expected 'VSPW'"),
    ],
)
def test_other_tasks_and_label_sets_are_refused(model, variables, call, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda v: model.apply(v, IMAGES, **call), variables)


def test_clips_of_several_frames_are_refused(model, variables):
    with pytest.raises(UserError, match="clip of 2 frames"):
        jax.eval_shape(model.apply, variables, jnp.zeros((1, 2, 96, 96, 3), jnp.uint8))


def test_every_set_is_read_by_the_same_heads():
    small = CONFIG | {
        "width": 32,
        "hidden_dim": 32,
        "trunk_heads": 2,
        "deform_heads": 2,
        "num_heads": 2,
        "ffn_dim": 8,
        "queries": 5,
        "encoder_layers": 1,
    }
    model = mask2former.from_config(small)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: 0.3 * rng.normal(size=a.shape).astype(np.float32), shapes_of(model)["params"])
    maps = [rng.normal(size=(2, 1, 64 // s, 32 // s, 32)).astype(np.float32) for s in (4, 8, 16, 32)]

    outputs = jax.jit(lambda params, maps: model.apply({"params": params}, maps, method="decode"))(params, maps)
    np.testing.assert_array_equal(outputs.queries[0], np.broadcast_to(params["query_feat"], (2, 5, 32)))
    assert all(np.abs(np.diff(outputs.queries, axis=0)).max(axis=(1, 2, 3)) > 1e-2)
    x = np.asarray(outputs.queries)
    heads = params["heads"]
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    y = y * heads["norm"]["scale"] + heads["norm"]["bias"]
    linear = lambda x, p: x @ p["kernel"] + p["bias"]  # noqa: E731
    np.testing.assert_allclose(outputs.class_logits, linear(y, heads["cls_embed"]), atol=1e-4)
    for i in range(3):
        y = linear(np.maximum(y, 0) if i else y, heads["mask_embed"][f"layers_{i}"])
    np.testing.assert_allclose(outputs.mask_embeds["object"], y, atol=1e-4)


def test_the_last_set_stands_alone():
    outputs = QueryOutputs(jnp.zeros(()), {"object": jnp.arange(3)}, jnp.arange(10, 13), jnp.arange(20, 23))
    last = mask2former.last_set(outputs)
    assert (last.mask_embeds["object"].tolist(), last.class_logits.tolist(), last.queries.tolist()) == ([2], [12], [22])
