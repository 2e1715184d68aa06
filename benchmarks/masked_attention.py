"""Decoder cross-attention in chunks of keys against the plain form: memory, CPU seconds, error.

  python benchmarks/masked_attention.py                 # 184,320 keys: twelve frames of 768 x 1280 at stride 8
  python benchmarks/masked_attention.py --keys 23040    # three frames of 512 x 960

256 queries, 8 heads of 32, a mask. Memory is what the compiled programs need beside their inputs and outputs. Goals: a
tenth of the plain form's memory, no more time, error at most 1e-6.
"""

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from vps_jax.ops.masked_attention import masked_attention

QUERIES, HEADS, WIDTH = 256, 8, 32


def make_inputs(keys: int):
    """Query, key, value `[1, n, m, c]` and a mask that lets a third through, some rows nothing."""
    random = np.random.default_rng(0)
    draw = functools.partial(random.standard_normal, dtype=np.float32)
    attend = random.random((1, QUERIES, keys), dtype=np.float32) < 1 / 3
    attend[:, ::50] = False
    scale = WIDTH**-0.5
    return (
        draw((1, QUERIES, HEADS, WIDTH)) * scale,
        draw((1, keys, HEADS, WIDTH)),
        draw((1, keys, HEADS, WIDTH)),
        attend,
    )


def programs(inputs, chunk: int):
    """Forward, and forward with backward, compiled."""

    def forward(q, k, v, attend):
        return masked_attention(q, k, v, attend, chunk=chunk)

    def both(q, k, v, attend):
        return jax.value_and_grad(lambda *qkv: forward(*qkv, attend).sum(), argnums=(0, 1, 2))(q, k, v)

    return [jax.jit(f).lower(*inputs).compile() for f in (forward, both)]


def median_seconds(call, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()  # of all threads: other load on the machine moves it less than the clock
        jax.block_until_ready(call())
        times.append(time.process_time() - start)
    return statistics.median(times[1:])  # the first warms up


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--keys", type=int, default=12 * 96 * 160)
    parser.add_argument("--chunk", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    inputs = [jnp.asarray(a) for a in make_inputs(args.keys)]
    plain, chunked = programs(inputs, args.keys), programs(inputs, args.chunk)
    outputs = []
    print(f"{args.keys} keys in chunks of {args.chunk} on {jax.devices()[0].device_kind}")
    for name, a, b in zip(("forward", "forward and backward"), plain, chunked, strict=True):
        mib = [p.memory_analysis().temp_size_in_bytes / 2**20 for p in (a, b)]
        seconds = [median_seconds(functools.partial(p, *inputs), args.repeats) for p in (a, b)]
        print(
            f"{name}: plain {mib[0]:.0f} MiB {seconds[0]:.3f} s, chunked {mib[1]:.0f} MiB {seconds[1]:.3f} s; "
            f"ratio of memory {mib[1] / mib[0]:.3f}, of time {seconds[1] / seconds[0]:.2f}"
        )
        outputs.append((a(*inputs), b(*inputs)))
    one, other = (np.asarray(o, np.float64) for o in outputs[0])
    print(f"relative difference of the outputs {np.linalg.norm(one - other) / np.linalg.norm(one):.1e}")


if __name__ == "__main__":
    main()
