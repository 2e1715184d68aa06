"""Groups, clip, AdamW and schedules against hand-worked numbers and a numpy twin."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from micro_experiment import OPTIM

from vps_jax.train.optimizer import make_optimizer, make_schedule, parameter_groups
from vps_jax.types import UserError

PARAMS = {
    "backbone": {"kernel": jnp.array([[1.0, -2.0]]), "norm": {"scale": jnp.array([3.0])}},
    "head": {"kernel": jnp.array([[0.5], [4.0]])},
    "norm": {"bias": jnp.array([-1.0])},
}


def test_every_parameter_is_in_exactly_one_group():
    groups = parameter_groups(PARAMS, lr_groups=OPTIM["lr_groups"], no_decay=("norm/",))
    assert groups.names == {
        "backbone": {"kernel": "backbone", "norm": {"scale": "backbone/no_decay"}},
        "head": {"kernel": "rest"},
        "norm": {"bias": "rest/no_decay"},
    }
    assert groups.lr_scales["backbone"] == {"kernel": 0.1, "norm": {"scale": 0.1}}
    assert groups.decays["norm"] == {"bias": False} and groups.decays["head"] == {"kernel": True}


@pytest.mark.parametrize(
    ("lr_groups", "no_decay", "message"),
    [
        ((("backbone", "^backbone/", 0.1),), (), "2 parameters are in no optimiser group, first 'head/kernel'"),
        ((("neck", "^neck/", 0.1), ("rest", "", 1.0)), (), r"\['neck'\] match no parameter"),
        ((("rest", "", 1.0),), ("embeddings/",), r"\['embeddings/'\] match no parameter"),
        ((("rest", "", (1.0, 0.5, 0.25)),), (), "3 factors, but 'backbone/kernel' stacks 1 blocks"),
    ],
)
def test_groups_that_do_not_fit_are_named(lr_groups, no_decay, message):
    with pytest.raises(UserError, match=message):
        parameter_groups(PARAMS, lr_groups=lr_groups, no_decay=no_decay)


def test_stacked_blocks_get_one_factor_each():
    params = {"blocks": jnp.ones((3, 2, 2))}
    groups = parameter_groups(params, lr_groups=(("layers", "blocks", (0.25, 0.5, 1.0)),), no_decay=())
    np.testing.assert_array_equal(groups.lr_scales["blocks"][:, 0, 0], [0.25, 0.5, 1.0])


def numpy_adamw(params, grads_of_steps, optim, scales, decays):
    """The reference's order in float64: clip over all, Adam, decay, group factor."""
    first = [np.zeros_like(p) for p in params]
    second = [np.zeros_like(p) for p in params]
    for k, grads in enumerate(grads_of_steps):
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        factor = min(1.0, optim["clip_norm"] / (norm + 1e-6))
        for i, g in enumerate(grads):
            g = g * factor
            first[i] = optim["b1"] * first[i] + (1 - optim["b1"]) * g
            second[i] = optim["b2"] * second[i] + (1 - optim["b2"]) * g**2
            step = first[i] / (1 - optim["b1"] ** (k + 1))
            step = step / (np.sqrt(second[i] / (1 - optim["b2"] ** (k + 1))) + optim["eps"])
            step = step + optim["weight_decay"] * decays[i] * params[i]
            params[i] = params[i] - optim["lr"] * scales[i] * step
    return params


def test_three_updates_equal_a_numpy_twin():
    rng = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(PARAMS)
    # the norm of the first step is far above the clip, the second's below, the third's elements are of the size of eps
    grads = [[rng.normal(size=leaf.shape) * size for leaf in leaves] for size in (1e3, 1e-3, 1e-8)]
    tx = make_optimizer(OPTIM, PARAMS)
    params, opt_state = PARAMS, tx.init(PARAMS)
    for step in grads:
        updates, opt_state = tx.update(jax.tree.unflatten(tree, map(jnp.float32, step)), opt_state, params)
        params = optax.apply_updates(params, updates)
    expected = numpy_adamw([np.float64(p) for p in leaves], grads, OPTIM, [0.1, 0.1, 1, 1], [1, 0, 1, 0])
    for got, want in zip(jax.tree.leaves(params), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5)


def test_sgd_is_clip_decay_and_rate():
    optim = {**OPTIM, "name": "sgd", "clip_norm": 1.0, "lr": 0.5}
    params = {"backbone": jnp.array([2.0]), "norm/": jnp.array([1.0])}
    optim["lr_groups"] = (("rest", "", 1.0),)
    tx = make_optimizer(optim, params)
    grads = {"backbone": jnp.array([3.0]), "norm/": jnp.array([4.0])}  # norm 5, clipped to 0.6 and 0.8
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["backbone"], [-0.5 * (0.6 + 0.05 * 2)], rtol=1e-5)
    np.testing.assert_allclose(updates["norm/"], [-0.5 * 0.8], rtol=1e-5)


def test_step_schedule_is_the_published_one():
    """Spec: tarvis 7.2, values measured there for stage 2."""
    optim = {**OPTIM, "lr": 1e-4, "warmup_steps": 10_000, "decay_steps": (50_000, 84_000)}
    schedule = make_schedule(optim)
    steps = [0, 1, 5_000, 10_000, 10_001, 49_999, 50_000, 83_999, 84_000, 90_000]
    rates = [0.0, 1e-8, 5e-5, 1e-4, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6]
    np.testing.assert_allclose([schedule(jnp.int32(k)) for k in steps], rates, rtol=1e-5)


def test_no_warmup_starts_at_the_full_rate():
    assert float(make_schedule(OPTIM)(0)) == pytest.approx(0.1)


def test_poly_schedule_is_the_published_one():
    """Spec: vit_adapter 6, values given there for 40k steps at 2e-5."""
    optim = {"lr": 2e-5, "warmup_steps": 1500, "schedule": "poly", "poly_power": 1.0, "total_steps": 40_000}
    schedule = make_schedule(optim)
    rates = [float(schedule(jnp.int32(k))) for k in (0, 750, 1500, 20_000, 40_000)]
    np.testing.assert_allclose(rates, [2e-11, 9.8125e-6, 1.925e-5, 1e-5, 0.0], rtol=2e-3)


@pytest.mark.parametrize(("key", "value"), [("schedule", "cosine"), ("name", "lion")])
def test_unknown_names_are_met_with_the_choices(key, value):
    with pytest.raises(UserError, match=f"{key}='{value}'"):
        make_optimizer({**OPTIM, key: value}, PARAMS)


TWO_WARMUPS = OPTIM | {
    "schedule": "warmup_poly", "warmup_steps": 500, "late_warmup_steps": 1000, "total_steps": 40_000, "poly_power": 0.9,
    "lr": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "late", "rate"),
    [
        (0, False, 0), (250, False, 0.5), (1000, False, 0.98860035), (1500, False, 0.97718608),
        (20_000, False, 0.54198792), (40_000, False, 0),
        (250, True, 0), (500, True, 0), (1000, True, 0.5), (1500, True, 1), (20_000, True, 0.55464147),
        (40_000, True, 0),
    ],
)  # fmt: skip
def test_two_warm_ups(step, late, rate):
    """Spec: videomt 8, computed with the published class."""
    assert float(make_schedule(TWO_WARMUPS, late=late)(step)) == pytest.approx(rate, abs=2e-7)


def test_late_groups_stand_still_first():
    optim = TWO_WARMUPS | {"name": "sgd", "weight_decay": 0.0, "clip_norm": 0.0, "late_groups": ("backbone",)}
    optim |= {"warmup_steps": 1, "late_warmup_steps": 2, "total_steps": 3, "poly_power": 1.0, "no_decay": ()}
    tx = make_optimizer(optim, PARAMS)
    state, grads, moved = tx.init(PARAMS), jax.tree.map(jnp.ones_like, PARAMS), []
    for _ in range(3):
        updates, state = tx.update(grads, state, PARAMS)
        moved.append((float(updates["head"]["kernel"][0, 0]), float(updates["backbone"]["kernel"][0, 0])))
    np.testing.assert_allclose(moved, [(0, 0), (-1, 0), (-0.5, -0.05)], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"late_groups": ("trunk",)}, r"late_groups=\['trunk'\]"),
        ({"late_groups": ("backbone",), "schedule": "poly"}, "only warmup_poly"),
    ],
)
def test_late_groups_that_cannot_be_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        make_schedule(TWO_WARMUPS | changes)
