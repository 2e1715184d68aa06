"""Compile time and memory of a Swin stage, scanned against written out; time of a Swin-T clip.

  python benchmarks/swin.py
  python benchmarks/swin.py --stage-only --width 768 --size 36 60

The stage is Swin's third, 18 blocks with their own drop-path rates, with its gradient. The baseline is the plain form:
every block a module of its own that draws for itself with JAX's generator. Beside it stand the same blocks written out
with the backbone's single draw, and one block alone, below which no scan can get. Compile times are medians of three.
Goals: compile time and working memory of the scanned form, with remat as the backbone trains, at most 1/5 of the plain
form. XLA's CPU compiler makes code for equal kernels only once, so writing out costs less there than the lines suggest.
"""

import argparse
import gc
import os
import time
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vps_jax.models import swin
from vps_jax.models.temporal_neck import TemporalNeck

BLOCKS = 18
RATES = np.linspace(0, 0.3, BLOCKS, dtype=np.float32)


class WrittenOut(nn.Module):
    """The blocks of a stage one after the other; they draw for themselves, or `draw_once` for all."""

    num_heads: int
    window: int
    remat: bool
    draw_once: bool = False

    @nn.compact
    def __call__(self, x, rates):
        block = nn.remat(swin.Block, static_argnums=(2,)) if self.remat else swin.Block
        factors = swin.drop_path_factors(self.make_rng("drop_path"), rates, len(x)) if self.draw_once else None
        for i, rate in enumerate(rates):
            own = factors[i] if self.draw_once else self.draw(1 - rate, len(x))
            x, _ = block(self.num_heads, self.window, name=f"block_{i}")(x, i % 2 == 1, own)
        return x

    def draw(self, keep, count):
        return jax.random.bernoulli(self.make_rng("drop_path"), keep, (2, count)) / keep


class Scanned(nn.Module):
    """The same blocks as the backbone runs them."""

    num_heads: int
    window: int
    remat: bool

    @nn.compact
    def __call__(self, x, rates):
        factors = swin.drop_path_factors(self.make_rng("drop_path"), rates, len(x))
        return swin.Stage(len(rates), self.num_heads, self.window, self.remat)(x, factors)


class Cost(NamedTuple):
    """What the gradient of a stage costs: lines of the traced program, CPU seconds to trace and compile it, MiB."""

    lines: int
    seconds: float
    megabytes: float


def measure(name: str, stage: nn.Module, x: jax.Array, rates: np.ndarray) -> Cost:
    rngs = {"drop_path": jax.random.key(1)}
    params = jax.eval_shape(lambda: stage.init({"params": jax.random.key(0), **rngs}, x, rates))

    def loss(params, x):
        return jnp.sum(jnp.square(stage.apply(params, x, rates, rngs=rngs)))

    seconds = []
    for _ in range(3):
        jax.clear_caches()
        gc.collect()  # what an earlier contender left behind is not this one's to clean
        start = time.process_time()
        lowered = jax.jit(jax.grad(loss)).lower(params, x)
        compiled = lowered.compile()
        seconds.append(time.process_time() - start)
    lines = lowered.as_text().count("\n")
    cost = Cost(lines, float(np.median(seconds)), compiled.memory_analysis().temp_size_in_bytes / 2**20)
    print(f"{name:36s} {lines:6d} lines  {cost.seconds:6.2f} s to compile  {cost.megabytes:6.0f} MiB at work")
    return cost


def stages(width: int, size: tuple[int, int]):
    heads, window = width // 32, 12
    x = jnp.zeros((2, *size, width))
    jax.jit(jnp.square).lower(x).compile()  # the compiler's own start
    measure("one block alone", WrittenOut(heads, window, remat=False), x, RATES[-1:])
    for remat in (False, True):
        suffix = " with remat" if remat else ""
        plain = measure(f"written out{suffix}", WrittenOut(heads, window, remat), x, RATES)
        once = measure(f"written out, one draw{suffix}", WrittenOut(heads, window, remat, draw_once=True), x, RATES)
        scanned = measure(f"scanned{suffix}", Scanned(heads, window, remat), x, RATES)
        for name, form in (("written out", plain), ("written out, one draw", once)):
            shares = (f"{part} {a / b:.2f}" for part, a, b in zip(Cost._fields, scanned, form, strict=True))
            print(f"  scanned{suffix} over {name}: {', '.join(shares)} (goal 0.20)")


def clip(size: tuple[int, int]):
    """Swin-T and the neck on one clip of three frames, in turns, wall-clock time with all cores."""
    images = np.random.default_rng(0).normal(size=(3, *size, 3)).astype(np.float32)
    backbone, neck = swin.Swin(swin.SIZES["swin_tiny"]), TemporalNeck()
    variables = jax.jit(backbone.init)(jax.random.key(0), images)
    run = jax.jit(lambda v, x: [m[None] for m in backbone.apply(v, x)])
    maps = run(variables, images)
    neck_variables = jax.jit(neck.init)(jax.random.key(1), maps)
    run_neck = jax.jit(neck.apply)
    for name, call in (
        ("Swin-T", lambda: run(variables, images)),
        ("temporal neck", lambda: run_neck(neck_variables, maps)),
    ):
        jax.block_until_ready(call())
        times = []
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - start)
        print(f"{name} on 3 x {size[0]} x {size[1]}: {np.median(times):.2f} s with {os.cpu_count()} cores")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=192, help="channels of the stage (768 in Swin-L)")
    parser.add_argument("--size", type=int, nargs=2, default=(24, 36), help="height and width of the stage's map")
    parser.add_argument("--stage-only", action="store_true", help="leave the clip out")
    args = parser.parse_args()
    stages(args.width, tuple(args.size))
    if not args.stage_only:
        clip((256, 448))


if __name__ == "__main__":
    main()
