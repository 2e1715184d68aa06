import numpy as np
import pytest

from vps_jax.convert.resampled_tables import positions, resample, step_ratio


def test_steps_grow_geometrically_up_to_the_reach():
    q = step_ratio(13, 39)  # 224 to 640 pixels: sides 27 and 79
    assert abs(sum(q**i for i in range(13)) - 39) < 1e-2
    at = positions(27, 79)
    assert at[13] == 0 and np.allclose(at, -at[::-1])
    np.testing.assert_allclose(at[14:17], [1, 1 + q, 1 + q + q * q])


def test_a_linear_table_stays_linear_inside_and_keeps_its_class_rows():
    source, target = (5, 5), (8, 8)
    at = positions(9, 15)
    y, x = np.meshgrid(at, at, indexing="ij")
    table = np.stack([3 * y + x, y - 2 * x], axis=-1).reshape(-1, 2)
    table = np.concatenate([table, [[7, 8], [9, 10], [11, 12]]])
    found = resample(table, source, target)
    far = np.clip(np.arange(-7, 8), at[0], at[-1])
    y, x = np.meshgrid(far, far, indexing="ij")
    np.testing.assert_allclose(found[:-3], np.stack([3 * y + x, y - 2 * x], axis=-1).reshape(-1, 2), atol=1e-4)
    np.testing.assert_array_equal(found[-3:], table[-3:])


def test_the_same_grid_is_left_alone():
    table = np.random.default_rng(0).normal(size=(3 * 3 + 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(resample(table, (2, 2), (2, 2)), table)


@pytest.mark.parametrize(("source", "target"), [((2, 3), (4, 4)), ((2, 2), (4, 5)), ((3, 3), (4, 4))])
def test_rectangles_and_foreign_tables_are_refused(source, target):
    with pytest.raises(ValueError, match="square|is not of grid"):
        resample(np.zeros((12, 1)), source, target)
