"""Times, memory and floors of compiled programs. Times are medians of calls that are waited for, without the first."""

import functools
import importlib.metadata
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from benchmarks import floors
from benchmarks.gpu_sizes import Sizes


def milliseconds(call, repeats: int) -> float:
    """Median of `repeats` times of a call that is waited for; short calls are made in a row of a few."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    in_a_row = max(1, min(20, int(0.02 / max(time.perf_counter() - start, 1e-6))))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(in_a_row):
            result = call()
        jax.block_until_ready(result)
        times.append((time.perf_counter() - start) / in_a_row)
    return 1e3 * statistics.median(times)


def timed(function, *args, sizes: Sizes, floor: floors.Floor | None = None) -> dict:
    """Compile `function`, time it, and say what memory it takes and how near its floor it is."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - start
    jax.block_until_ready(compiled(*args))
    found = {"ms": milliseconds(lambda: compiled(*args), sizes.repeats), "compile_s": seconds, **memory(compiled)}
    return found | against_floor(found["ms"], floor, sizes)


def memory(compiled) -> dict:
    """MiB of a program beside its arguments and results, and of those."""
    told = compiled.memory_analysis()
    return {} if told is None else {
        "temporary_mib": told.temp_size_in_bytes / 2**20,
        "arguments_mib": told.argument_size_in_bytes / 2**20,
    }  # fmt: skip


def against_floor(ms: float, floor: floors.Floor | None, sizes: Sizes) -> dict:
    """What the counted floor is at this machine's rates, and which fraction of it the time is."""
    if floor is None:
        return {}
    floor_ms = 1e3 * floor.seconds(*rates(sizes.matrix))
    return {"tflop": floor.flop / 1e12, "floor_ms": floor_ms, "fraction_of_floor": floor_ms / ms}


@functools.cache
def rates(side: int) -> tuple[float, float]:
    """FLOP per second of a bfloat16 product, bytes per second of a copy (read and written), of this machine."""
    matrix = jnp.ones((side, side), jnp.bfloat16)
    product, copy = jax.jit(lambda a, b: a @ b), jax.jit(lambda a: a + 1)
    jax.block_until_ready((product(matrix, matrix), copy(matrix)))
    product_ms, copy_ms = (milliseconds(call, 5) for call in (lambda: product(matrix, matrix), lambda: copy(matrix)))
    return 2e3 * side**3 / product_ms, 2e3 * matrix.nbytes / copy_ms


def installed(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def card(sizes: Sizes) -> dict:
    """The machine, its measured rates and the versions."""
    device = jax.devices()[0]
    names = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
    known = {name: version for name in names if (version := installed(name))}
    flop_rate, byte_rate = rates(sizes.matrix)
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    return {
        "device": device.device_kind, "platform": device.platform, "devices": len(jax.devices()),
        "memory_gib": limit / 2**30, "driver": device.client.platform_version.replace("\n", " "),
        "python": sys.version.split()[0], "bf16_tflop_s": flop_rate / 1e12, "copy_gb_s": byte_rate / 1e9, **known,
    }  # fmt: skip
