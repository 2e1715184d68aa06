"""On a GPU: the numbers of the CPU, bfloat16 near them, and the memory that was promised. Run by `make test-gpu`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vps_jax import models, tasks
from vps_jax.models import swin
from vps_jax.ops.deformable_attention import deformable_attention
from vps_jax.ops.masked_attention import masked_attention
from vps_jax.ops.sampling import bilinear
from vps_jax.ops.windows import permute, window_order
from vps_jax.types import Clip

pytestmark = pytest.mark.gpu

CONFIG = {
    "name": "tarvis", "backbone": "swin_micro", "semantic_groups": (("A", 5),), "instance_queries": 6,
    "hidden_dim": 32, "num_heads": 2, "neck_layers": 1, "neck_ffn_dim": 32, "decoder_layers": 3,
    "decoder_ffn_dim": 32, "vos": False, "drop_path_rate": 0.0, "remat": True, "dtype": "float32",
}  # fmt: skip
TASK = tasks.make_task("panoptic", {"match_points": 64, "mask_points": 64, "semantic_points": 64}, num_classes=5)
RNG = np.random.default_rng(0)


def run_on(platform: str, function, *args):
    """Results as numpy arrays, computed by one device of a platform, in full float32 as tests/conftest.py sets it."""
    device = jax.devices(platform)[0]
    with jax.default_device(device):
        return jax.tree.map(np.asarray, jax.jit(function)(*jax.device_put(args, device)))


def distance(found, expected) -> float:
    """Relative L2 distance of two trees, taken as one vector each."""
    found, expected = (np.concatenate([np.ravel(a) for a in jax.tree.leaves(t)]) for t in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def uniform(*shape):
    return RNG.uniform(size=shape).astype(np.float32)


ORDER = window_order(8, 8, 4, 2)
OPERATIONS = {
    "deformable attention": (
        functools.partial(deformable_attention, shapes=((8, 8), (4, 4))),
        (normal(2, 80, 2, 8), uniform(2, 30, 2, 2, 4, 2), normal(2, 30, 2, 2, 4)),
    ),
    "masked attention": (
        lambda q, k, v: masked_attention(q, k, v, jnp.arange(96) % 3 > jnp.zeros((2, 5, 1)), chunk=32),
        (normal(2, 5, 2, 8), normal(2, 96, 2, 8), normal(2, 96, 2, 8)),
    ),
    "point sampling": (bilinear, (normal(3, 9, 7, 4), uniform(3, 50, 2))),
    "windows": (lambda x: permute(x, ORDER, np.argsort(ORDER)), (normal(2, 64, 8),)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_and_their_gradients_are_those_of_the_cpu(name):
    function, args = OPERATIONS[name]

    def value_and_gradients(*args):
        out, pull = jax.vjp(function, *args)
        return out, pull(jnp.cos(out))

    found, expected = (run_on(platform, value_and_gradients, *args) for platform in ("gpu", "cpu"))
    assert distance(found, expected) < 1e-5


@functools.cache
def variables():
    return jax.tree.map(np.asarray, models.init(models.build(CONFIG), jax.random.key(0), (64, 64)))


def clip() -> Clip:
    """Two clips of two frames with a square of class 1 on ground of class 3."""
    ids = np.full((2, 2, 64, 64), 1 + 4 + 3, np.uint16)
    ids[:, :, 10:40, 20:50] = 1
    noise = np.random.default_rng(1).integers(0, 40, (2, 2, 64, 64, 3), np.uint8)
    return Clip(
        np.where(ids[..., None] == 1, 200, 60).astype(np.uint8) + noise, ids, np.array([[1, -1, -1, -1]] * 2, np.int32)
    )


def loss_and_gradient(config):
    """Of the panoptic task, as a function of parameters and clip."""
    model, task = models.build(config), TASK

    def loss(params, clip):
        outputs = model.apply({"params": params}, clip.images, task="panoptic", group="A", train=True)
        return task.loss(outputs, task.make_targets(clip), jax.random.key(1))[0]

    return jax.value_and_grad(loss)


def test_loss_and_gradient_of_tarvis_are_those_of_the_cpu():
    args = variables()["params"], clip()
    (loss, gradient), (expected, slope) = (
        run_on(platform, loss_and_gradient(CONFIG), *args) for platform in ("gpu", "cpu")
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert distance(gradient, slope) < 1e-2  # a point or an assignment on the edge may fall to the other side


def test_bfloat16_features_are_near_float32():
    def features(dtype):
        model = models.build({**CONFIG, "dtype": dtype})
        apply = functools.partial(model.apply, method="backbone_features")
        return [np.asarray(x, np.float32) for x in run_on("gpu", apply, variables(), clip().images)]

    half, full = features("bfloat16"), features("float32")
    for x, y in zip(half, full, strict=True):
        assert 0 < distance(x, y) < 2e-2


def working_memory(function, *args) -> float:
    """MiB that XLA sets aside for intermediate values on the GPU."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
    return jax.jit(function).lower(*shapes).compile().memory_analysis().temp_size_in_bytes / 2**20


def test_deformable_attention_needs_little_memory():
    struct = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    table = (3, 10080, 8, 3, 4)  # three frames of 512 x 960
    args = struct((3, 10080, 8, 32)), struct((*table, 2)), struct(table)
    total = lambda *a: jnp.sum(deformable_attention(*a, shapes=((16, 30), (32, 60), (64, 120))))  # noqa: E731
    assert working_memory(jax.grad(total, argnums=(0, 1, 2)), *args) <= 400


def test_remat_saves_most_of_the_memory_of_a_swin_stage():
    x = jax.ShapeDtypeStruct((2, 24, 36, 192), jnp.float32)

    def megabytes(remat):
        stage = swin.Stage(18, 6, 12, remat)
        params = jax.eval_shape(lambda x: stage.init(jax.random.key(0), x, None), x)
        return working_memory(jax.grad(lambda p, x: jnp.sum(jnp.square(stage.apply(p, x, None)))), params, x)

    assert megabytes(remat=True) < megabytes(remat=False) / 3
