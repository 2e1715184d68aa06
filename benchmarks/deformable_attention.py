"""Deformable attention against PyTorch's grid_sample formulation, one thread each, in one process.

  python benchmarks/deformable_attention.py            # needs torch for the comparison, else prints our own numbers
  python benchmarks/deformable_attention.py --frames 1

The layer is the neck's on 512 x 960 frames: 10,080 queries, three levels, 8 heads of 32 channels, 4 points. Times are
CPU seconds of the process, so that other load on the machine counts little. Goal: at most 0.35 of PyTorch's time.
"""

import argparse
import functools
import os
import pathlib
import statistics
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.ops.deformable_attention import cell_centres, deformable_attention

SHAPES = ((16, 30), (32, 60), (64, 120))
HEADS, CHANNELS, POINTS = 8, 32, 4


def make_inputs(frames: int) -> list[np.ndarray]:
    """Value, locations (cell centres and offsets of about two pixels), weights, gradient of the output."""
    rng = np.random.default_rng(0)
    tokens = sum(h * w for h, w in SHAPES)
    table = (frames, tokens, HEADS, len(SHAPES), POINTS)
    offsets = 2 * rng.normal(size=(*table, 2)) / np.array(SHAPES)[:, None, ::-1]
    arrays = (
        rng.normal(size=(frames, tokens, HEADS, CHANNELS)),
        cell_centres(SHAPES)[:, None, None, None] + offsets,
        rng.uniform(size=table) / (len(SHAPES) * POINTS),
        rng.normal(size=(frames, tokens, HEADS, CHANNELS)),
    )
    return [a.astype(np.float32) for a in arrays]


def cpu_seconds(calls: dict, repeats: int) -> dict[str, float]:
    """Median CPU seconds of each call. They take turns, so that a change of the machine's speed meets all of them."""
    times = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:  # the first turn warms up
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def jax_calls(arrays, chunk):
    """Forward, and forward with backward, compiled."""
    value, locations, weights, gradient = map(jnp.asarray, arrays)
    attend = functools.partial(deformable_attention, shapes=SHAPES, chunk=chunk)

    def both(value, locations, weights, gradient):
        out, pull = jax.vjp(attend, value, locations, weights)
        return out, *pull(gradient)

    forward = jax.jit(attend).lower(value, locations, weights).compile()
    both = jax.jit(both).lower(value, locations, weights, gradient).compile()
    megabytes = both.memory_analysis().temp_size_in_bytes / 2**20
    return (
        lambda: jax.block_until_ready(forward(value, locations, weights)),
        lambda: jax.block_until_ready(both(value, locations, weights, gradient)),
        megabytes,
    )


def torch_calls(arrays):
    """The same with one grid_sample per level, or None without torch."""
    try:
        import torch
    except ImportError:
        return None
    from benchmarks.torch_deformable import level_by_level

    torch.set_num_threads(1)
    value, locations, weights, gradient = (torch.from_numpy(a) for a in arrays)
    for leaf in (value, locations, weights):
        leaf.requires_grad_(True)

    def both():
        out = level_by_level(value, locations, weights, SHAPES)
        return out.detach(), *torch.autograd.grad(out, (value, locations, weights), gradient)

    def forward_only():
        with torch.no_grad():
            return level_by_level(value, locations, weights, SHAPES)

    return forward_only, both


def compare(found, expected, locations) -> str:
    """Relative L2 errors; location gradients without samples within 1e-4 px of a kink."""
    size = np.array(SHAPES)[:, None, ::-1]
    pixels = locations * size - 0.5
    smooth = np.abs(pixels - np.round(pixels)) > 1e-4
    errors = []
    for name, a, b in zip(("out", "d_value", "d_locations", "d_weights"), found, expected, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        keep = smooth if name == "d_locations" else np.ones_like(a, bool)
        errors.append(f"{name} {np.linalg.norm((a - b)[keep]) / np.linalg.norm(b[keep]):.1e}")
    return "relative L2 difference: " + ", ".join(errors)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=None, help="heads at once (default: chosen for the machine)")
    args = parser.parse_args()
    arrays = make_inputs(args.frames)
    forward, both, megabytes = jax_calls(arrays, args.chunk)
    calls = {"ours forward": forward, "ours with backward": both}
    baseline = torch_calls(arrays)
    if baseline:
        calls |= {"torch forward": baseline[0], "torch with backward": baseline[1]}
    seconds = cpu_seconds(calls, args.repeats)
    for name, value in seconds.items():
        print(f"{name:20s} {1e3 * value:7.0f} ms")
    print(f"working memory with backward {megabytes:.0f} MiB")
    if baseline is None:
        print("torch is not installed: no comparison")
        return
    for what in ("forward", "with backward"):
        ratio = seconds[f"ours {what}"] / seconds[f"torch {what}"]
        print(f"{what} takes {ratio:.2f} of torch's time" + (" (goal 0.35)" if what == "with backward" else ""))
    print(compare(both(), baseline[1](), arrays[1]))


if __name__ == "__main__":
    main()
