"""Bytes that one train step of the ViT-Adapter needs per device, counted without running it.

Use: python benchmarks/vit_adapter_memory.py [--size beit_large_640] [--batch 2] [--dtype float32] [--no-check]

The count walks through the traced step (loss and gradients), see `vps_jax/train/counting.py`. To it come the state
(parameters, two Adam moments, average, statistics) and the gradients. First the same count is held against the memory
that XLA gives a compiled small scanned model on this machine.
"""

import argparse
import sys

import jax
import jax.numpy as jnp

from vps_jax import models
from vps_jax.models import mask2former_sizes
from vps_jax.tasks import make_task
from vps_jax.train.counting import peak_bytes, size_in_bytes
from vps_jax.types import Clip

GIB, MIB = 2**30, 2**20
CARD_BYTES = 80e9
STATE_COPIES = 4  # parameters, two Adam moments, average
NAME = "mask_classification"


def train_step(config: dict, *, batch: int, points: int):
    """Function of (variables, clip) that gives loss and gradients, and the shapes of its arguments."""
    model = models.build(config)
    height, width = model.backbone.image_size
    clip = Clip(
        jax.ShapeDtypeStruct((batch, 1, height, width, 3), jnp.uint8),
        jax.ShapeDtypeStruct((batch, 1, height, width), jnp.uint16),
        jax.ShapeDtypeStruct((batch, 1), jnp.int32),
    )
    variables = models.shapes(model, (height, width))
    numbers = {"match_points": points, "mask_points": points}
    criterion = make_task(NAME, numbers, num_classes=model.semantic_groups[0][1])

    def step(variables, clip):
        def loss(params):
            others = {"batch_stats": variables["batch_stats"]}
            rngs = {"drop_path": jax.random.key(0)}
            outputs, kept = model.apply(
                {"params": params, **others}, clip.images, task=NAME, train=True, rngs=rngs, mutable=["batch_stats"]
            )
            targets = criterion.make_targets(clip)
            return criterion.loss(outputs, targets, jax.random.key(1))[0], kept

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    return step, variables, clip


def residual_bytes(config: dict, *, batch: int) -> int:
    """Bytes that the model's forward pass keeps for its backward pass, parameters left out."""
    model = models.build(config)
    images = jnp.zeros((batch, 1, *model.backbone.image_size, 3), jnp.uint8)
    variables = models.shapes(model, images.shape[2:4])
    apply = lambda v: model.apply(  # noqa: E731
        v, images, train=True, rngs={"drop_path": jax.random.key(0)}, mutable=["batch_stats"]
    )
    return size_in_bytes(jax.eval_shape(lambda v: jax.vjp(apply, v)[1], variables)) - size_in_bytes(variables)


def check(config: dict, *, batch: int) -> float:
    """Counted bytes over those of the compiled program, on this machine."""
    step, variables, clip = train_step(config, batch=batch, points=1024)
    given = size_in_bytes((variables, clip))
    results = size_in_bytes(jax.eval_shape(step, variables, clip))
    counted = given + results + peak_bytes(jax.make_jaxpr(step)(variables, clip).jaxpr, results=False)
    memory = jax.jit(step).lower(variables, clip).compile().memory_analysis()
    compiled = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    print(
        f"check, batch {batch}, {config['image_size']}: counted {counted / MIB:.1f} MiB, compiled {compiled / MIB:.1f} "
        f"MiB ({memory.temp_size_in_bytes / MIB:.1f} of it temporary): ratio {counted / compiled:.3f}",
        flush=True,
    )
    return counted / compiled


def report(config: dict, *, batch: int) -> float:
    """Print the count of a full-size step; total bytes."""
    step, variables, clip = train_step(config, batch=batch, points=12544)
    state = STATE_COPIES * size_in_bytes(variables["params"]) + 2 * size_in_bytes(variables["batch_stats"])
    gradients = size_in_bytes(variables["params"])
    working = peak_bytes(jax.make_jaxpr(step)(variables, clip).jaxpr, results=False)
    kept = residual_bytes(config, batch=batch)
    total = state + gradients + working + size_in_bytes(clip)
    rows = {
        "state (parameters, Adam, average, statistics)": state,
        "gradients": gradients,
        "activations at the peak": working,
        "  of these kept from forward to backward": kept,
        "total": total,
    }
    print(f"{config['size']}, batch {batch} per device, {config['dtype']}, 12544 points:")
    for name, size in rows.items():
        print(f"  {name:<46} {size / GIB:8.2f} GiB")
    print(f"  {'fits' if total < CARD_BYTES else 'does not fit'} an 80 GB card: {100 * total / CARD_BYTES:.0f} % of it")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="beit_large_640", choices=sorted(mask2former_sizes.SIZES))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--no-check", action="store_true")
    given = parser.parse_args()
    ratios = []
    if not given.no_check:
        small = {
            "name": "mask2former",
            "size": "beit_tiny_96",
            "groups": (2, 2, 2, 2),
            "semantic_groups": (("VSPW", 16),),
        }
        ratios = [check(small | {"image_size": (side, side)}, batch=batch) for side, batch in ((128, 2), (192, 4))]
    report({"name": "mask2former", "size": given.size, "dtype": given.dtype}, batch=given.batch)
    sys.exit(any(abs(ratio - 1) > 0.15 for ratio in ratios))


if __name__ == "__main__":
    main()
