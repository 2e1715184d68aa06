"""Whole TarViS forward on CPU: seconds of backbone, neck and decoder on the clock and of CPU, compile time, memory.

  python benchmarks/tarvis_forward.py                                  # Swin-T, 3 x 256 x 448
  python benchmarks/tarvis_forward.py --backbone swin_large --dtype bfloat16

A plain JAX version written in an hour takes 1.4 s for Swin-T with two threads, its neck 0.95 s of it. Peak memory is
that of the process.
"""

import argparse
import functools
import resource
import statistics
import time

import jax
import numpy as np

from vps_jax import models

VIPSEG = (("VIPSEG", 124),)


def config(backbone: str, dtype: str) -> dict:
    """The published sizes, VIPSeg queries."""
    return {
        "name": "tarvis",
        "backbone": backbone,
        "semantic_groups": VIPSEG,
        "instance_queries": 128,
        "hidden_dim": 256,
        "num_heads": 8,
        "neck_layers": 6,
        "neck_ffn_dim": 1024,
        "decoder_layers": 9,
        "decoder_ffn_dim": 2048,
        "vos": False,
        "drop_path_rate": 0.3,
        "remat": False,
        "dtype": dtype,
    }


def median_seconds(call, repeats: int) -> np.ndarray:
    """Seconds on the clock, and of CPU in all threads, which other load on the machine moves less."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return np.array([statistics.median(t) for t in zip(*times, strict=True)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="swin_tiny")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--clip", type=int, nargs=3, default=(3, 256, 448), metavar=("T", "H", "W"))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    frames, height, width = args.clip
    images = np.random.default_rng(0).integers(0, 256, (1, frames, height, width, 3), np.uint8)
    model = models.build(config(args.backbone, args.dtype))
    variables = models.init(model, jax.random.key(0), (height, width))
    total = np.zeros(2)
    parts = (("backbone", "backbone_features", {}), ("neck", "neck_maps", {}), ("decoder", "decode", {"last": True}))
    print(f"{args.backbone} {args.dtype} {frames} x {height} x {width} on {jax.devices()[0].device_kind}")
    inputs = images
    for name, method, how in parts:
        how = how | ({"task": "panoptic"} if name == "decoder" else {})
        run = jax.jit(functools.partial(model.apply, method=method, **how))
        start = time.perf_counter()
        outputs = jax.block_until_ready(run(variables, inputs))
        compiled = time.perf_counter() - start
        seconds = median_seconds(functools.partial(run, variables, inputs), args.repeats)
        print(f"{name}: {seconds[0]:.3f} s, CPU {seconds[1]:.3f} s ({compiled:.1f} s the first time)")
        total, inputs = total + seconds, outputs
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"together {total[0]:.3f} s, CPU {total[1]:.3f} s; peak memory of the process {peak:.1f} GiB")


if __name__ == "__main__":
    main()
