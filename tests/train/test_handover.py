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
from vps_jax.train.class_sources import FRESH, Labels, Named, class_sources
from vps_jax.train.handover import SEMANTIC, Side, describe, hand_over, make_plan
from vps_jax.train.saving import Checkpoints
from vps_jax.train.setup import prepare, start_state
from vps_jax.types import UserError


def tree(classes: int, value: float, **extra) -> dict:
    semantic = value + jnp.arange(1.0 + classes)[:, None] * jnp.ones((1, 2))
    return {"params": {"queries": {"semantic": semantic}, "neck": {"kernel": jnp.full((3,), value)}, **extra}}


def plan_of(source, target, source_groups, target_groups, **settings):
    sides = (Side(source, Labels(source_groups)), Side(target, Labels(target_groups)))
    return make_plan(*sides, InitFrom(**settings))


def test_groups_keep_their_rows_by_name_when_others_come_and_go():
    source, target = tree(5, 100.0), tree(6, 0.0)
    source_groups, target_groups = (("A", 2), ("B", 3)), (("B", 3), ("C", 1), ("A", 2))
    plan = plan_of(source, target, source_groups, target_groups)
    assert plan.rows[SEMANTIC].sources == (0, 3, 4, 5, FRESH, 1, 2)
    new = hand_over(plan, source, target)
    np.testing.assert_array_equal(new["params"]["queries"]["semantic"][:, 0], [100, 103, 104, 105, 4, 101, 102])
    np.testing.assert_array_equal(new["params"]["neck"]["kernel"], [100, 100, 100])
    assert describe(plan) == ["1 parameter arrays taken, 0 fresh, 0 left behind; semantic groups that start anew: C"]


def test_a_new_group_may_start_from_chosen_classes_of_another():
    """Stage 1's Cityscapes rows to KITTI-STEP, stage 2's VIPSeg rows to its things (spec: tarvis 7.9, 12.2)."""
    source, target = Labels((("X", 1), ("CITY", 4))), Labels((("STEP", 2), ("CVPS", 2)))
    found = class_sources(source, target, InitFrom(groups=(("STEP", "CITY", (3, 0)),)))
    assert found.classes == (4, 1, FRESH, FRESH)


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
        class_sources(Labels((("A", 2),)), Labels((("B", 2),)), InitFrom(groups=pairs))


PUBLISHED = ("sky", "building", "traffic_light", "person", "tree")
NEW = ("Sky", "pole", "traffic light", "pedestrian", "fence")
LIKE = (("pedestrian", "Person"), ("Sky", "nothing of that name is looked for"))


def by_name(source, target, names=NEW, *, class_head="", source_names=PUBLISHED, **settings):
    sides = (
        Side(source, Labels((("OLD", len(source_names)),), {"OLD": source_names}), class_head),
        Side(target, Labels((("OWN", len(names)),), {"OWN": names}), class_head),
    )
    return make_plan(*sides, InitFrom(path="runs/old", by_name=True, **settings))


def test_classes_start_from_those_of_their_name_or_of_the_one_they_are_like():
    source, target = tree(5, 100.0), tree(5, 0.0)
    plan = by_name(source, target, like=LIKE)
    new = hand_over(plan, source, target)["params"]["queries"]["semantic"]
    np.testing.assert_array_equal(new[:, 0], [100, 101, 2, 103, 104, 5])  # the shared embedding comes along
    assert plan.classes.named == (
        Named("OWN", ("Sky", "traffic light"), (("pedestrian", "person"),), ("pole", "fence")),
    )
    assert describe(plan)[1:] == [
        "2 of 5 classes by name (Sky, traffic light), 1 by like, fresh: pole, fence", "by like: pedestrian from person",
    ]  # fmt: skip


def test_the_line_of_names_is_that_of_the_specification():
    names = ("sky", "building", "person", "tree", "a", "b")
    plan = by_name(tree(5, 1.0), tree(6, 0.0), names, like=(("a", "sky"), ("b", "sky")))
    assert describe(plan)[1] == "4 of 6 classes by name (sky, building, ...), 2 by like, fresh: none"


@pytest.mark.parametrize("class_head", ["params/heads/cls_embed", "params/heads/class_head"])
def test_outputs_of_a_class_head_go_by_name_and_no_object_comes_along(class_head):
    name = class_head.split("/")[-1]

    def model(classes, value):
        head = {
            "kernel": value + jnp.arange(3 * (classes + 1.0)).reshape(3, -1),
            "bias": value + jnp.arange(classes + 1.0),
        }
        return {"params": {"heads": {name: head}}}

    source, target = model(5, 100.0), model(3, 0.0)
    names = ("tree", "new", "sky")
    plan = by_name(source, target, names, class_head=class_head)
    new = hand_over(plan, source, target)["params"]["heads"][name]
    np.testing.assert_array_equal(new["bias"], [104, 1, 100, 105])
    np.testing.assert_array_equal(new["kernel"], [[104, 1, 100, 105], [110, 5, 106, 111], [116, 9, 112, 117]])
    assert describe(plan)[0] == "0 parameter arrays taken, 0 fresh, 0 left behind"
    # without names another number of classes is another shape, and the line says what helps
    sides = [Side(one, Labels(((group, n),)), class_head) for one, group, n in ((source, "A", 5), (target, "B", 3))]
    with pytest.raises(UserError, match=r"kernel \(3, 6\) instead of \(3, 4\).*; set init_from.by_name=True"):
        make_plan(*sides, InitFrom(path="runs/old"))


def test_a_group_that_is_listed_goes_before_names_and_one_without_names_goes_as_a_whole():
    source = Labels((("CITY", 2), ("OLD", 3)), {"OLD": ("sky", "tree", "car")})
    target = Labels((("OWN", 2), ("CITY", 2), ("OLD", 2)), {"OWN": ("car", "sky"), "OLD": ("tree", "car")})
    found = class_sources(source, target, InitFrom(path="runs/old", by_name=True))
    assert found.classes == (4, 2, 0, 1, 3, 4) and [row.group for row in found.named] == ["OWN", "OLD"]
    listed = InitFrom(path="runs/old", by_name=True, groups=(("OWN", "CITY", (1, 0)),))
    assert class_sources(source, target, listed).classes == (1, 0, 0, 1, 3, 4)


@pytest.mark.parametrize(
    ("like", "line"),
    [
        ("persom", "class 'pole' is to start like 'persom', which is none of the 5 classes of the checkpoint; near are "
                   "person: correct `like` in the class file"),
        ("xyz", "near are sky, building, traffic_light"),
    ],
)  # fmt: skip
def test_a_like_that_the_checkpoint_does_not_have_is_named_with_near_names(like, line):
    with pytest.raises(UserError, match=line) as error:
        by_name(tree(5, 1.0), tree(5, 0.0), like=(("pole", like),))
    assert "\n" not in str(error.value)


def test_by_name_needs_a_path_names_and_something_to_take():
    with pytest.raises(UserError, match="by_name=True without a path"):
        InitFrom(by_name=True)
    with pytest.raises(UserError, match="like without by_name"):
        InitFrom(path="runs/old", like=(("a", "b"),))
    with pytest.raises(UserError, match="runs/old and the model have neither class queries nor a class head in common"):
        by_name({"params": {"stem": jnp.ones(1)}}, {"params": {"stem": jnp.ones(1)}})
    with pytest.raises(UserError, match="no data say the names of the classes of group OWN"):
        class_sources(Labels((("OLD", 1),), {"OLD": ("a",)}), Labels((("OWN", 1),)), InitFrom(path="x", by_name=True))


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
