"""Devices: the mesh, and where parameters and batches lie on it.

The mesh is `('data', 'fsdp')`. The batch is split over both axes; parameters are replicated when `fsdp` is 1 and
otherwise split over `fsdp` along their largest divisible axis. All numbers of a step are those of one device up to
rounding, because the step is one program over global arrays (design: parallelism).
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vps_jax.types import UserError

BATCH_AXES = ("data", "fsdp")
MIN_SHARDED_SIZE = 2**14  # elements; smaller leaves are cheaper to replicate than to gather


def make_mesh(fsdp: int = 1, *, devices=None) -> Mesh:
    """All devices as `[data, fsdp]`.

    Axis types are named Auto: `jax.make_mesh` alone gives Explicit, under which sharded parameters fail in a matmul.

    Args:
      fsdp: number of devices that share one copy of the parameters.
      devices: the devices to use, default all of the run.

    Raises:
      UserError: the number of devices is not a multiple of `fsdp`.
    """
    devices = list(jax.devices() if devices is None else devices)
    check_fsdp(fsdp, len(devices))
    auto = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((len(devices) // fsdp, fsdp), BATCH_AXES, axis_types=auto, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """One copy on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """The batch axis split over all devices; `leading` unsplit axes stand before it."""
    return NamedSharding(mesh, P(*(None,) * leading, BATCH_AXES))


def state_sharding(mesh: Mesh, abstract):
    """A sharding for every leaf of a tree of shapes, by one rule for parameters, moments and averages alike."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, parameter_spec(leaf.shape, mesh.shape["fsdp"])), abstract)


def parameter_spec(shape: tuple[int, ...], fsdp: int) -> P:
    """Split the largest axis that `fsdp` divides; replicate small or indivisible leaves."""
    axes = [i for i, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not axes or int(np.prod(shape)) < MIN_SHARDED_SIZE:
        return P()
    largest = max(axes, key=lambda i: shape[i])
    return P(*(BATCH_AXES[1] if i == largest else None for i in range(largest + 1)))


def put_batch(mesh: Mesh, clip):
    """Host arrays `[b / processes, ...]` of this process -> global device arrays `[b, ...]`."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, np.asarray(a)), clip)


def used_devices(devices: int, batch_size: int, accumulate: int, fsdp: int) -> int:
    """How many of the devices a run uses: no more than a micro-batch has samples, so that small batches train anywhere.

    Runs of several processes, and those that split the state (`fsdp`), use all.
    """
    if jax.process_count() > 1 or fsdp > 1:
        return devices
    return min(devices, max(batch_size // max(accumulate, 1), 1))


def check_fsdp(fsdp: int, devices: int) -> None:
    """Raise UserError unless the devices can be grouped by `fsdp`."""
    if fsdp < 1 or devices % fsdp:
        raise UserError(
            f"train.fsdp={fsdp} does not divide the {devices} devices; "
            f"choose one of {[n for n in range(1, devices + 1) if devices % n == 0]}"
        )


def check_batch(batch_size: int, accumulate: int, devices: int) -> None:
    """Raise UserError unless every device gets the same number of samples in every micro-batch."""
    processes = jax.process_count()
    if accumulate < 1 or batch_size % (accumulate * devices) or batch_size % processes:
        raise UserError(
            f"train.batch_size={batch_size} cannot be split over {devices} devices x {accumulate} micro-batches "
            f"(train.accumulate); choose a multiple of {devices * max(accumulate, 1)} or fewer micro-batches"
        )
