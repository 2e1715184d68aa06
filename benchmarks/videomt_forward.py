"""Forward pass of VidEoMT on a CPU against PyTorch in the same process, both with two threads and the same weights.

  python -m benchmarks.videomt_forward                      # needs torch for the comparison; S, 3 x 256 x 448
  python -m benchmarks.videomt_forward --size base --clip 2 480 832
  taskset -c 0 python -m benchmarks.videomt_forward         # one thread each, where other jobs want the cores too

From uint8 frames to class logits and mask logits of all queries, float32. Calls take turns; medians. Goal: at most 0.8
of PyTorch's time. Processor time is printed too. Other load moves it less, but not that of PyTorch's two threads, which
wait for each other at work. The product of two large matrices takes its turn as well: at its rate, what the network has
to multiply gives the least time that any formulation in float32 can take.
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax import models
from vps_jax.train.counting import flop

GOAL = 0.8
CORES = sorted(os.sched_getaffinity(0))[:2]
CLASSES = 124
SPREAD = 0.02  # of the weights, so that every block changes its tokens
SIDE = 2048  # of the matrices whose product shows what the processor can do


def build(size: str):
    """Model and random variables; the scales of the branches are 1, so that all of the network counts."""
    model = models.build(
        {"name": "videomt", "size": size, "semantic_groups": (("VIPSEG", CLASSES),), "image_size": 640,
         "dtype": "float32", "init_values": 1.0}
    )  # fmt: skip
    shapes = models.shapes(model)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        centre = float(path[-1].key in ("scale", "gamma1", "gamma2"))
        return rng.normal(centre, SPREAD, leaf.shape).astype(np.float32)

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


def forward_of(model) -> Callable:
    """Function of (variables, clip) that gives class logits `[t, q, k + 1]` and mask logits `[t, q, h4, w4]`."""

    @jax.jit
    def forward(variables, images):
        outputs = model.apply(variables, images)
        masks = jnp.einsum("tqc,thwc->tqhw", outputs.mask_embeds[-1, 0], outputs.mask_features[-1, 0])
        return outputs.class_logits[-1, 0], masks

    return forward


def waiting(function: Callable, *args) -> Callable:
    """A function without arguments that waits for the arrays of another one."""
    args = jax.device_put(args)
    return lambda: jax.block_until_ready(function(*args))


def theirs(model, variables: Mapping, images: np.ndarray) -> dict[str, Callable]:
    """The same in PyTorch with two orders of axes in memory, by name; nothing where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    from benchmarks.torch_videomt import TorchVidEoMT

    torch.set_num_threads(len(CORES))
    trunk = model.trunk
    sizes = {"heads": trunk.num_heads, "eps": trunk.eps, "patch": trunk.patch, "upscales": model.upscales}
    orders = {"torch": True, "torch, its own order of axes": False}
    networks = {name: TorchVidEoMT(variables["params"], channels_last=last, **sizes) for name, last in orders.items()}
    return {name: functools.partial(network, images) for name, network in networks.items()}


def median_seconds(calls: Mapping[str, Callable], repeats: int) -> dict[str, np.ndarray]:
    """Median seconds on the clock and of CPU of each call; they take turns, the first of which is not counted."""
    times = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter(), time.process_time()
            call()
            if turn:
                times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return {name: np.array([statistics.median(t) for t in zip(*rows, strict=True)]) for name, rows in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="small")
    parser.add_argument("--clip", type=int, nargs=3, default=(3, 256, 448), metavar=("T", "H", "W"))
    parser.add_argument("--repeats", type=int, default=11)
    args = parser.parse_args()
    os.sched_setaffinity(0, CORES)  # before anything runs: jax makes a thread for each
    jax.config.update("jax_platforms", "cpu")
    frames, height, width = args.clip
    images = np.random.default_rng(1).integers(0, 256, (frames, height, width, 3), np.uint8)
    model, variables = build(args.size)
    forward, square = forward_of(model), np.ones((SIDE, SIDE), np.float32)
    calls = {"ours": waiting(forward, variables, images[None]), "product": waiting(jax.jit(jnp.matmul), square, square)}
    baselines = theirs(model, variables, images)
    for baseline, call in baselines.items():
        for name, a, b in zip(("class", "mask"), calls["ours"](), call(), strict=True):
            gap = np.abs(np.asarray(a) - b.numpy()).max() / np.abs(b.numpy()).max()
            print(f"{name} logits differ by at most {gap:.1e} of the largest ({baseline})")
    calls |= baselines
    seconds = median_seconds(calls, args.repeats)
    print(f"{args.size}, {frames} x {height} x {width}, {len(CORES)} threads")
    for name, (wall, cpu) in seconds.items():
        print(f"{name}: {wall:.3f} s, CPU {cpu:.3f} s")
    seconds["products"] = seconds["product"] * flop(forward, variables, images[None]) / (2 * SIDE**3)
    print("ours, its products alone at the rate of the large one: {:.3f} s, CPU {:.3f} s".format(*seconds["products"]))
    if not baselines:
        print("torch is not installed: no comparison")
    for baseline in baselines:
        for name in ("ours", "products"):
            wall, cpu = seconds[name] / seconds[baseline]
            print(f"{name} against {baseline}: {wall:.2f} of its time, {cpu:.2f} of its CPU time (goal {GOAL})")


if __name__ == "__main__":
    main()
