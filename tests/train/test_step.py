"""The step: device counts agree, micro-batches agree, EMA by hand, non-finite steps, noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from collectives import collectives
from micro_experiment import OPTIM, TASK, MicroModel, MicroNumbers, MicroTask, micro_clip, micro_variables

from vps_jax.train.optimizer import make_optimizer
from vps_jax.train.sharding import make_mesh, put_batch, state_sharding
from vps_jax.train.state import create_state
from vps_jax.train.step import StepOptions, make_step, make_update, ramped_decay

SGD = {**OPTIM, "name": "sgd", "clip_norm": 0.0, "lr": 0.01}


def start(mesh, optim=SGD, **options):
    variables = micro_variables()
    tx = make_optimizer(optim, variables["params"])
    state = create_state(variables, tx)
    shardings, options = state_sharding(mesh, state), StepOptions(**{"seed": 0, "ema_decay": 0.999, **options})
    update = make_update(tx, shardings, options)
    step = make_step(MicroModel(), TASK, "g", update, shardings=shardings, options=options)
    return jax.device_put(state, shardings), step


def run(mesh, steps=5, optim=SGD, **options):
    state, step = start(mesh, optim, **options)
    losses = []
    for k in range(steps):
        state, scalars = step(state, put_batch(mesh, micro_clip(k)))
        losses.append(float(scalars["loss"]))
    return state, losses


def assert_trees_close(a, b, rtol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * float(jnp.abs(y).max()))


@pytest.fixture(scope="module")
def on_one_device():
    return run(make_mesh(devices=jax.devices()[:1]))


@pytest.mark.parametrize(("devices", "fsdp"), [(2, 1), (2, 2), (8, 1), (8, 2), (8, 8)])
def test_numbers_of_devices_agree_over_five_steps(devices, fsdp, on_one_device, monkeypatch):
    monkeypatch.setattr("vps_jax.train.sharding.MIN_SHARDED_SIZE", 1)
    mesh = make_mesh(fsdp, devices=jax.devices()[:devices])
    assert mesh.size == devices
    (one, losses_of_one), (many, losses) = on_one_device, run(mesh)
    np.testing.assert_allclose(losses, losses_of_one, rtol=1e-5)
    assert_trees_close(many.variables, one.variables, 1e-5)
    for tree in (many.variables, many.ema):
        kernel = tree["params"]["backbone"]["kernel"]
        assert kernel.addressable_shards[0].data.size == kernel.size // fsdp


@pytest.mark.parametrize("fsdp", [1, 8])
def test_moments_are_split_too_and_a_step_gathers_only_then(fsdp, monkeypatch):
    monkeypatch.setattr("vps_jax.train.sharding.MIN_SHARDED_SIZE", 1)
    mesh = make_mesh(fsdp)
    state, step = start(mesh, OPTIM)
    adam = optax.tree.get(state.opt_state, "mu")
    assert adam["backbone"]["kernel"].addressable_shards[0].data.size == 3 * 8 // fsdp
    step = step.compile(state, put_batch(mesh, micro_clip(0)))
    kinds = set(collectives(step.gradients.as_text()))
    assert kinds == {"all-reduce"} if fsdp == 1 else {"all-reduce", "all-gather"} <= kinds
    # every device updates what it has; with split parameters the norms are sums over devices
    assert set(collectives(step.update.as_text())) == (set() if fsdp == 1 else {"all-reduce"})


def test_micro_batches_average_gradients_of_their_parts():
    """Without BatchNorm's batch statistics the mean of the parts is the whole; the rng differs, so noise is off."""

    class Linear(MicroModel):
        def __call__(self, images, *, task, group, train):
            return super().__call__(images, task=task, group=group, train=False)

    results = []
    for accumulate in (1, 4):
        mesh = make_mesh(devices=jax.devices()[:2])
        variables = micro_variables()
        tx = make_optimizer(SGD, variables["params"])
        state = create_state(variables, tx)
        shardings, options = state_sharding(mesh, state), StepOptions(seed=0, ema_decay=0.9, accumulate=accumulate)
        task, update = MicroTask(MicroNumbers(noise=0.0)), make_update(tx, shardings, options)
        step = make_step(Linear(), task, "g", update, shardings=shardings, options=options)
        state, scalars = step(state, put_batch(mesh, micro_clip(0)))
        results.append((state.variables, float(scalars["loss"]), float(scalars["grad_norm"])))
    assert_trees_close(results[1][0], results[0][0], 1e-5)
    np.testing.assert_allclose(results[1][1:], results[0][1:], rtol=1e-5)


def test_average_follows_the_ramp_by_hand():
    mesh = make_mesh(devices=jax.devices()[:1])
    state, step = start(mesh)
    before = jax.tree.map(np.asarray, state.variables)
    state, _ = step(state, put_batch(mesh, micro_clip(0)))
    after_one = jax.tree.map(np.asarray, state.variables)
    expected = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, before, after_one)  # decay (1 + 0) / (10 + 0)
    assert_trees_close(state.ema, expected, 1e-6)
    state, _ = step(state, put_batch(mesh, micro_clip(1)))
    expected = jax.tree.map(lambda e, v: 2 / 11 * e + 9 / 11 * v, expected, jax.tree.map(np.asarray, state.variables))
    assert_trees_close(state.ema, expected, 1e-6)
    assert not np.allclose(state.ema["batch_stats"]["norm"]["mean"], 0)


def test_ramp_ends_at_the_decay():
    np.testing.assert_allclose(ramped_decay(0.9998, jnp.int32(90_000)), 0.9998)
    np.testing.assert_allclose(ramped_decay(0.9998, jnp.int32(89)), 90 / 99, rtol=1e-6)


def test_a_step_without_finite_loss_can_be_skipped():
    mesh = make_mesh(devices=jax.devices()[:1])
    state, step = start(mesh, OPTIM, skip_nonfinite=True)
    state, _ = step(state, put_batch(mesh, micro_clip(0)))
    kept = jax.tree.map(np.asarray, state)
    broken = put_batch(mesh, micro_clip(1)._replace(images=np.full((8, 2, 4, 4, 3), np.nan, np.float32)))
    state, scalars = step(state, broken)
    assert not np.isfinite(scalars["loss"]) and int(state.step) == 2
    for a, b in zip(jax.tree.leaves(state._replace(step=kept.step)), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(a, b)


def test_scalars_name_every_term():
    mesh = make_mesh(devices=jax.devices()[:1])
    state, step = start(mesh)
    _, scalars = step(state, put_batch(mesh, micro_clip(0)))
    modules = {f"grad_norm/{name}" for name in ("backbone", "norm", "head")}
    assert set(scalars) == {"loss", "squared", "grad_norm"} | modules
    squares = sum(float(scalars[name]) ** 2 for name in modules)
    assert float(scalars["grad_norm"]) == pytest.approx(squares**0.5)
    assert float(scalars["loss"]) == pytest.approx(2 * float(scalars["squared"]))


def test_the_same_step_has_the_same_noise_and_another_step_another():
    mesh = make_mesh(devices=jax.devices()[:1])
    losses = []
    for first in (0, 0, 1):
        state, step = start(mesh)
        state = state._replace(step=jnp.int32(first))
        losses.append(float(step(state, put_batch(mesh, micro_clip(0)))[1]["loss"]))
    assert losses[0] == losses[1] != losses[2]


def test_another_seed_is_the_same_program_with_other_noise():
    """So that the compilation cache serves runs with other seeds."""
    mesh = make_mesh(devices=jax.devices()[:1])
    texts, losses = [], []
    for seed in (0, 1):
        state, step = start(mesh, seed=seed)
        clip = put_batch(mesh, micro_clip(0))
        texts.append([half.lower().as_text() for half in step.trace(state, clip).halves])
        losses.append(float(step(state, clip)[1]["loss"]))
    assert texts[0] == texts[1] and losses[0] != losses[1]


def test_a_large_seed_is_taken_by_its_lower_half():
    mesh = make_mesh()
    _, step = start(mesh, seed=2**40 + 3)
    assert step.seed == 3 and step.seed.dtype == np.uint32


def test_tasks_share_the_update():
    """The second half of a step is compiled once in a run, whatever its tasks."""
    mesh = make_mesh(devices=jax.devices()[:1])
    variables = micro_variables()
    tx = make_optimizer(OPTIM, variables["params"])
    state = create_state(variables, tx)
    shardings, options = state_sharding(mesh, state), StepOptions(seed=0, ema_decay=0.9)
    update = make_update(tx, shardings, options)

    class Renamed(MicroTask):
        def loss(self, *args, **kwargs):
            loss, terms = super().loss(*args, **kwargs)
            return 3 * loss, {f"other_{name}": term for name, term in terms.items()}

    state = jax.device_put(state, shardings)
    for task in (TASK, Renamed(TASK.numbers)):
        step = make_step(MicroModel(), task, "g", update, shardings=shardings, options=options)
        state, scalars = step(state, put_batch(mesh, micro_clip(0)))
    assert "other_squared" in scalars and update._cache_size() == 1
