"""Hand-over of weights between stages on trees of a few numbers."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from micro_experiment import micro_config, use_micro_rooms

from vps_jax.config import InitFrom
from vps_jax.train import loop
from vps_jax.train.checkpoint import restore_for_inference
from vps_jax.train.handover import describe, hand_over, make_plan, semantic_rows
from vps_jax.train.saving import Checkpoints
from vps_jax.train.setup import prepare, start_state
from vps_jax.types import UserError


def tree(classes: int, value: float, **extra) -> dict:
    semantic = value + jnp.arange(1.0 + classes)[:, None] * jnp.ones((1, 2))
    return {"params": {"queries": {"semantic": semantic}, "neck": {"kernel": jnp.full((3,), value)}, **extra}}


def plan_of(source, target, source_groups, target_groups, **settings):
    return make_plan(
        source, target, source_groups=source_groups, target_groups=target_groups, settings=InitFrom(**settings)
    )


def test_groups_keep_their_rows_by_name_when_others_come_and_go():
    source, target = tree(5, 100.0), tree(6, 0.0)
    source_groups, target_groups = (("A", 2), ("B", 3)), (("B", 3), ("C", 1), ("A", 2))
    plan = plan_of(source, target, source_groups, target_groups)
    assert plan.rows == (0, 3, 4, 5, -1, 1, 2)
    new = hand_over(plan, source, target)
    np.testing.assert_array_equal(new["params"]["queries"]["semantic"][:, 0], [100, 103, 104, 105, 4, 101, 102])
    np.testing.assert_array_equal(new["params"]["neck"]["kernel"], [100, 100, 100])
    assert describe(plan, target_groups).endswith("semantic groups that start anew: C")


def test_a_new_group_may_start_from_chosen_classes_of_another():
    """Stage 1's Cityscapes rows to KITTI-STEP, stage 2's VIPSeg rows to its things (spec: tarvis 7.9, 12.2)."""
    rows = semantic_rows((("X", 1), ("CITY", 4)), (("STEP", 2), ("CVPS", 2)), (("STEP", "CITY", (3, 0)),))
    assert rows == (0, 5, 2, -1, -1)


def test_the_same_groups_in_the_same_order_are_a_copy():
    source, target = tree(3, 7.0), tree(3, 0.0)
    groups = (("A", 3),)
    new = hand_over(plan_of(source, target, groups, groups), source, target)
    np.testing.assert_array_equal(new["params"]["queries"]["semantic"], source["params"]["queries"]["semantic"])


def test_what_the_model_does_not_have_is_left_behind():
    source, target = tree(1, 1.0, object_encoder=jnp.ones(2)), tree(1, 0.0)
    plan = plan_of(source, target, (("A", 1),), (("A", 1),))
    assert plan.dropped == ("params/object_encoder",)
    assert set(hand_over(plan, source, target)["params"]) == {"queries", "neck"}


def test_a_missing_parameter_must_be_allowed():
    source, target = tree(1, 1.0), tree(1, 0.0, heads=jnp.full(2, 5.0))
    groups = (("A", 1),)
    with pytest.raises(
        UserError, match="1 parameters are not in the checkpoint nor in init_from.fresh, first params/heads"
    ):
        plan_of(source, target, groups, groups)
    plan = plan_of(source, target, groups, groups, fresh=("^params/heads",))
    np.testing.assert_array_equal(hand_over(plan, source, target)["params"]["heads"], [5, 5])


def test_another_shape_is_refused():
    source, target = tree(1, 1.0, heads=jnp.ones(2)), tree(1, 0.0, heads=jnp.ones(3))
    with pytest.raises(UserError, match=r"params/heads \(2,\) instead of \(3,\)"):
        plan_of(source, target, (("A", 1),), (("A", 1),))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((("Z", "A", None),), r"names \['Z'\]; the model has \['B'\], the checkpoint \['A'\]"),
        ((("B", "Q", None),), r"names \['Q'\]"),
        ((("B", "A", (0, 1, 2)),), "B has 2 classes, 3 of the 2 of A are given"),
        ((("B", "A", (0, 2)),), "B has 2 classes, 2 of the 2 of A are given"),
    ],
)
def test_groups_that_do_not_fit_are_named(pairs, message):
    with pytest.raises(UserError, match=message):
        semantic_rows((("A", 2),), (("B", 2),), pairs)


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_run_starts_from_the_average_or_the_raw_weights_of_another(tmp_path, monkeypatch, weights):
    use_micro_rooms(monkeypatch)
    loop.train(micro_config(steps=3), tmp_path / "first")
    config = micro_config(steps=2, init_from={"path": str(tmp_path / "first"), "weights": weights})
    setup = prepare(config, tmp_path / "second")
    with contextlib.closing(Checkpoints(tmp_path / "second", keep=1)) as checkpoints:
        state = start_state(setup, checkpoints)
    both = {w: restore_for_inference(tmp_path / "first", w)[1] for w in ("ema", "raw")}
    wanted, other = both.pop(weights), *both.values()
    jax.tree.map(np.testing.assert_array_equal, state.variables, wanted)
    jax.tree.map(np.testing.assert_array_equal, state.ema, wanted)
    assert not np.array_equal(other["params"]["head"]["kernel"], wanted["params"]["head"]["kernel"])
    assert int(state.step) == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))

    # once it has a checkpoint of its own, the other run's weights count no more
    loop.train(config, tmp_path / "second")
    with contextlib.closing(Checkpoints(tmp_path / "second", keep=1)) as checkpoints:
        assert int(start_state(setup, checkpoints).step) == 2
