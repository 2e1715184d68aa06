"""Arithmetic of VidEoMT, counted in its traced programs, and the memory that XLA gives one train step of it.

Use: python benchmarks/videomt_step.py [--size large] [--height 640] [--width 1152] [--frames 5] [--no-compile]

Counted are products and convolutions, a multiplication and an addition as two; a scan counts for every turn.
Nothing runs: the step (loss and gradients, one clip, bfloat16) is traced, and compiled for this machine.
"""

import argparse

import jax
import jax.numpy as jnp

from vps_jax import models
from vps_jax.tasks import make_task
from vps_jax.train.counting import flop, size_in_bytes
from vps_jax.types import Clip

GIB, TERA = 2**30, 1e12
NAME, CLASSES = "video_masks", 124
STATE_COPIES = 3  # parameters and two Adam moments; the recipe has no average of its own


def step_of(model, clip: Clip):
    """Function of (parameters, clip) that gives loss and gradients."""
    criterion = make_task(NAME, num_classes=CLASSES)

    def step(params, clip):
        def loss(params):
            outputs = model.apply({"params": params}, clip.images, train=True)
            return criterion.loss(outputs, criterion.make_targets(clip), jax.random.key(0))[0]

        return jax.value_and_grad(loss)(params)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="large")
    parser.add_argument("--height", type=int, default=640)
    parser.add_argument("--width", type=int, default=1152)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    given = parser.parse_args()
    model = models.build({"name": "videomt", "size": given.size, "dtype": "bfloat16"})
    params = models.shapes(model)["params"]
    shape = (1, given.frames, given.height, given.width)
    clip = Clip(
        jax.ShapeDtypeStruct((*shape, 3), jnp.uint8),
        jax.ShapeDtypeStruct(shape, jnp.uint16),
        jax.ShapeDtypeStruct((1, 64), jnp.int32),
    )
    step = step_of(model, clip)
    for what, train in (("inference", False), ("training, forward", True)):
        apply = lambda p, x, train=train: model.apply({"params": p}, x, train=train)  # noqa: E731
        count = flop(apply, params, clip.images) / given.frames / TERA
        print(f"{what}: {count:.2f} TFLOP a frame", flush=True)
    print(f"train step: {flop(step, params, clip) / TERA:.1f} TFLOP a clip", flush=True)
    if given.no_compile:
        return
    memory = jax.jit(step).lower(params, clip).compile().memory_analysis()
    state = STATE_COPIES * size_in_bytes(params)
    print(f"temporary memory of the step: {memory.temp_size_in_bytes / GIB:.1f} GiB, state {state / GIB:.1f} GiB")


if __name__ == "__main__":
    main()
