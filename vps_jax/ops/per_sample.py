"""Run a function on each device's own samples."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec

BATCH_AXES = ("data", "fsdp")  # mesh axes over which samples are spread
ALL = -1  # in place of an axis: the argument is the same for all samples


def per_sample(function: Callable, mesh: Mesh | None, axes: tuple[int, ...], out_axes):
    """`function` over the samples that a device holds; nothing passes between devices.

    XLA's own partitioning would gather the samples of all devices wherever it does not know how to split an operation
    (top-k is one), and would make the devices agree in every turn of a loop.

    Args:
      function: of as many positional arguments as `axes`, each a pytree whose arrays have the batch at that axis. What
        it returns of a sample must depend on that sample alone.
      mesh: with the axes of `BATCH_AXES`, or None to run the function as it is.
      axes: the batch axis of each argument, or `ALL`.
      out_axes: that of the results, a pytree prefix.
    """
    if mesh is None:
        return function

    def spec(axis):
        return PartitionSpec() if axis == ALL else PartitionSpec(*[None] * axis, BATCH_AXES)

    specs = jax.tree.map(spec, axes), jax.tree.map(spec, out_axes)
    return jax.shard_map(function, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)
