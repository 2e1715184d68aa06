"""What a plan counts, by hand on small programs; test_stages.py holds it against compiled ones."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from micro_experiment import micro_config, micro_variables, use_micro_rooms

from vps_jax.config import Data, Source
from vps_jax.ops import target
from vps_jax.train import plan
from vps_jax.train.accelerators import GPUS, gpu
from vps_jax.train.counting import size_in_bytes
from vps_jax.train.step import Step
from vps_jax.types import UserError

ROW = 8 * 16 * 4
SHAPES = jax.eval_shape(micro_variables)
PARAMETERS = size_in_bytes(SHAPES["params"])
VARIABLES = size_in_bytes(SHAPES)


@pytest.mark.parametrize(("remat", "kept"), [(False, 2 * ROW), (True, 0)])
def test_kept_is_what_lives_when_the_loss_is_known(remat, kept):
    def gradients(w, x):
        def loss(w):
            product = x @ w
            return jnp.sum((product * product) @ w)  # backward needs the product and its square

        value, gradient = jax.value_and_grad(jax.checkpoint(loss) if remat else loss)(w)
        return gradient, {"loss": value}

    def update(w, gradient):
        return w - gradient

    shapes = jax.ShapeDtypeStruct((16, 16), jnp.float32), jax.ShapeDtypeStruct((8, 16), jnp.float32)
    traced = Step(0, jax.jit(gradients).trace(*shapes), jax.jit(update).trace(shapes[0], shapes[0]))
    peak, found = plan.working_memory(traced)
    assert found == kept + 4 and peak >= 2 * ROW  # and the loss


def test_the_update_may_need_most():
    def gradients(w):
        return w, {"loss": jnp.sum(w)}

    def update(w, gradient):
        return w - jnp.sort(gradient * gradient)

    w = jax.ShapeDtypeStruct((1000,), jnp.float32)
    peak, _ = plan.working_memory(Step(0, jax.jit(gradients).trace(w), jax.jit(update).trace(w, w)))
    assert peak == 2 * 4000 + 4 + 4000  # gradient and loss; its square and the sorted one, which goes over the square


def test_memory_and_arithmetic_of_one_device(monkeypatch):
    use_micro_rooms(monkeypatch)
    found = plan.make_plan(micro_config(), 8)
    assert (found.clips, found.assumed) == (1, ("clips",))
    (row,) = found.tasks
    assert (row.task, row.shape.size, row.share, row.relative) == ("micro", (64, 64), 1.0, 1.0)
    assert row.memory.parameters == row.memory.average == VARIABLES
    assert 2 * PARAMETERS < row.memory.optimizer < 2 * PARAMETERS + 64  # and counts of steps
    assert row.memory.batch == 3 * 64 * 64 * (3 + 2) + 64 * 4
    assert row.memory.gathered == row.memory.accumulated == 0
    assert row.memory.total == sum(row.memory)
    # Dense 3 -> 8 and its gradient, Dense 8 -> 4 and its two, for one clip
    assert found.flop == {"float32": 2 * (2 * 3 * 8 + 3 * 8 * 4)}
    assert found.checkpoint == 2 * VARIABLES + row.memory.optimizer + 4  # the step's number


def test_micro_batches_and_sharding_change_what_a_device_holds(monkeypatch):
    use_micro_rooms(monkeypatch)
    monkeypatch.setattr("vps_jax.train.sharding.MIN_SHARDED_SIZE", 1)
    one = plan.make_plan(micro_config(), 8).tasks[0]
    found = plan.make_plan(micro_config(batch_size=16, accumulate=2, fsdp=4), 8)
    (row,) = found.tasks
    assert found.clips == 1 and row.memory.kept == one.memory.kept
    assert row.memory.batch == 2 * one.memory.batch
    assert row.memory.accumulated == PARAMETERS
    assert row.memory.parameters == VARIABLES / 4
    assert row.memory.parameters + row.memory.gathered == VARIABLES
    assert row.flop["float32"] == 2 * one.flop["float32"]


def test_a_small_batch_is_planned_on_as_many_devices_as_it_has_clips(monkeypatch):
    use_micro_rooms(monkeypatch)
    found = plan.make_plan(micro_config(batch_size=4), 8)
    assert found.devices == 4 and found.clips == 1


@pytest.mark.parametrize(
    ("changes", "devices", "message"),
    [
        ({}, 3, "train.batch_size=8 cannot be split over 3 devices"),
        ({"fsdp": 3}, 8, "train.fsdp=3 does not divide the 8 devices"),
    ],
)
def test_devices_that_do_not_fit_are_refused(monkeypatch, changes, devices, message):
    use_micro_rooms(monkeypatch)
    with pytest.raises(UserError, match=message):
        plan.make_plan(micro_config(**changes), devices)


def test_the_largest_shape_decides_and_the_others_count_by_their_pixels(monkeypatch):
    monkeypatch.setattr(plan, "count_step", lambda experiment, network, devices, shape: (shape, {"float32": 1.0}))
    sources = {name: Source("", 4, task="micro", weight=weight) for name, weight in (("a", 1.0), ("b", 2.0))}
    use_micro_rooms(monkeypatch)
    experiment = dataclasses.replace(micro_config(), data=Data(sources | {"c": Source("", 4, task="other")}))
    shapes = [plan.Shape("a", (64, 64), 8, 1.0), plan.Shape("b", (64, 128), 8, 0.5), plan.Shape("b", (64, 64), 8, 0.5)]
    row = plan.plan_task(experiment, (), 1, "micro", shapes)
    assert row.memory == shapes[1]
    assert row.share == 3 / 4  # the third source is of another task
    assert row.relative == pytest.approx((1 * 0.5 + 1 * 1.0 + 1 * 0.5) / 3)


def test_the_least_time_adds_what_each_type_takes():
    card = gpu("a100")
    assert card.seconds({"bfloat16": 312e12, "float32": 156e12}) == pytest.approx(2 / 0.7)
    assert all(row.float32 < row.bfloat16 for row in GPUS.values())
    with pytest.raises(UserError, match="gpu 'a200': expected one of a10, a40, "):
        gpu("a200")


def test_a_plan_for_another_backend_leaves_no_trace():
    with target.made_for("gpu"):
        assert target.backend() == "gpu"
    assert target.backend() == jax.default_backend()
