import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from vps_jax.datasets import rle


@st.composite
def masks(draw, count=1):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    return [rng.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0])) for _ in range(count)]


@settings(deadline=None, max_examples=100)
@given(masks())
def test_codes_are_those_of_pycocotools(mask):
    (mask,) = mask
    text = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]
    runs = rle.of_mask(mask)
    for counts in (text, text.decode(), runs.tolist()):
        np.testing.assert_array_equal(rle.parse_counts(counts), runs)
    np.testing.assert_array_equal(rle.to_mask(runs, *mask.shape), mask)
    assert rle.area(runs) == mask.sum()


@settings(deadline=None, max_examples=100)
@given(masks(count=2))
def test_intersection_is_that_of_the_masks(pair):
    one, other = pair
    assert rle.intersection(rle.of_mask(one), rle.of_mask(other)) == (one & other).sum()


def test_hand_worked_runs_go_down_the_columns():
    mask = np.array([[0, 1, 1], [0, 1, 0]], bool)
    assert rle.of_mask(mask).tolist() == [2, 3, 1]
    assert rle.of_mask(~mask).tolist() == [0, 2, 3, 1]


@pytest.mark.parametrize("counts", ["\x20", "é", "0`", [3, -1]])
def test_broken_codes_are_refused(counts):
    with pytest.raises(ValueError):
        rle.parse_counts(counts)


def test_runs_must_fill_the_mask():
    with pytest.raises(ValueError, match="6 pixels"):
        rle.to_mask(np.array([2, 4]), 2, 2)
