"""Query sets: rows, order, shared embeddings."""

import jax
import numpy as np
import pytest

from vps_jax.models.query_bank import QueryBank, group_rows
from vps_jax.types import UserError

GROUPS = (("A", 2), ("B", 3))
BANK = QueryBank(GROUPS, instance_queries=4, hidden_dim=2, vos=True)


def rows(n: int, start: float) -> np.ndarray:
    """Row i is (start + i, -start - i)."""
    column = start + np.arange(n, dtype=np.float32)
    return np.stack([column, -column], axis=1)


VARIABLES = {
    "params": {
        "semantic": rows(6, 10),
        "background": rows(2, 20),
        "instance": rows(5, 30),
        "background_vos": rows(2, 40),
        "vos": rows(1, 50),
    }
}


def task_set(task, group):
    return BANK.apply(VARIABLES, task, group, 2, method="task_set")


def test_group_rows_start_behind_the_shared_embedding():
    assert group_rows(GROUPS, "A") == slice(1, 3) and group_rows(GROUPS, "B") == slice(3, 6)
    with pytest.raises(UserError, match="'C' is not in the model; expected one of A, B"):
        group_rows(GROUPS, "C")


@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_instance_then_background_then_the_group(task):
    found = task_set(task, "B")
    assert found.groups == (("instance", 4), ("background", 1), ("semantic", 3))
    np.testing.assert_array_equal(found.content[0, :, 0], [31, 32, 33, 34, 21, 13, 14, 15])
    np.testing.assert_array_equal(found.embed[1, :, 1], [-30, -30, -30, -30, -20, -10, -10, -10])
    assert found.content.shape == (2, 8, 2)


def test_semantic_task_has_the_group_alone():
    found = task_set("semantic", "A")
    assert found.groups == (("semantic", 2),)
    np.testing.assert_array_equal(found.content[1, :, 0], [11, 12])


def test_object_set_takes_embeddings_from_row_0():
    background, objects = np.ones((1, 16, 2)), np.zeros((1, 3, 2))
    found = BANK.apply(VARIABLES, background, objects, method="object_set")
    assert found.groups == (("background_vos", 16), ("vos", 3))
    np.testing.assert_array_equal(found.embed[0, [0, 15, 16, 18], 0], [40, 40, 50, 50])
    np.testing.assert_array_equal(found.content[0, [15, 16], 0], [1, 0])


def test_other_tasks_are_refused():
    with pytest.raises(UserError, match="'vos' has no learned query set"):
        task_set("vos", "A")


def test_fresh_banks_are_normal_and_without_vos_smaller():
    def shapes(bank):
        return jax.eval_shape(lambda: bank.init(jax.random.key(0), "semantic", "A", 1, method="task_set"))["params"]

    assert {k: v.shape[0] for k, v in shapes(BANK).items()} == {
        "semantic": 6, "background": 2, "instance": 5, "background_vos": 2, "vos": 1
    }  # fmt: skip
    assert set(shapes(QueryBank(GROUPS, 4, 2, vos=False))) == {"semantic", "background", "instance"}
    big = QueryBank((("A", 2000),), 1, 4, vos=False)
    made = big.init(jax.random.key(0), "semantic", "A", 1, method="task_set")["params"]["semantic"]
    assert abs(float(made.mean())) < 0.05 and abs(float(made.std()) - 1) < 0.05
