"""Where parameters and batches lie."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from vps_jax.train.sharding import check_batch, make_mesh, parameter_spec, put_batch, used_devices
from vps_jax.types import UserError


def test_mesh_has_automatic_axes():
    mesh = make_mesh(2)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2}
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


def test_mesh_that_does_not_fit_names_the_choices():
    with pytest.raises(UserError, match=r"train.fsdp=3 does not divide the 8 devices; choose one of \[1, 2, 4, 8\]"):
        make_mesh(3)


def test_largest_divisible_axis_is_split():
    assert parameter_spec((256, 1024), 4) == P(None, "fsdp")
    assert parameter_spec((1024, 255), 4) == P("fsdp")
    assert parameter_spec((255, 1023), 4) == P()
    assert parameter_spec((4, 4), 4) == P()  # too small
    assert parameter_spec((256, 1024), 1) == P()


def test_batch_is_split_over_all_devices():
    array = put_batch(make_mesh(2), {"x": np.arange(16).reshape(16, 1)})["x"]
    assert array.shape == (16, 1) and array.addressable_shards[0].data.shape == (2, 1)
    np.testing.assert_array_equal(array, np.arange(16).reshape(16, 1))


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "fsdp", "used"),
    [(4, 1, 1, 4), (8, 1, 1, 8), (8, 2, 1, 4), (12, 1, 1, 8), (32, 4, 1, 8), (4, 1, 2, 8), (1, 2, 1, 1)],
)
def test_a_small_batch_uses_as_many_devices_as_it_has_clips(batch_size, accumulate, fsdp, used):
    assert used_devices(8, batch_size, accumulate, fsdp) == used


def test_batch_that_cannot_be_split_is_refused():
    check_batch(32, 4, 8)
    with pytest.raises(UserError, match="train.batch_size=12 cannot be split over 8 devices x 1"):
        check_batch(12, 1, 8)
