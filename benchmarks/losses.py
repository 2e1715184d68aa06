"""Temporary memory and time of the panoptic loss and its gradients, against the form that holds all mask logits.

python -m benchmarks.losses [--height 512 --width 640 --frames 3 --sets 10 --batch 1] [--run]

Both forms start from mask features and the queries of ten prediction sets, do the same matching and point losses, and
end in the loss and the gradients of features, queries and class logits. The baseline makes the logits of all queries of
all sets first and takes from them, one set at a time. Memory is what XLA allocates beside inputs and results. The last
line is that of the gradients of stage 4 with Swin-T (model and loss) on the same clips.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp

from configs import stage4
from vps_jax import models
from vps_jax.config import experiment
from vps_jax.ops.masks import mask_logits
from vps_jax.tasks import make_task
from vps_jax.train.optimizer import make_optimizer
from vps_jax.train.sharding import make_mesh, state_sharding
from vps_jax.train.state import create_state
from vps_jax.train.step import StepOptions, make_step, make_update
from vps_jax.types import Clip, QueryOutputs

CLASSES, INSTANCES, ROWS, WIDTH = 124, 128, 64, 256
TASK = make_task("panoptic", num_classes=CLASSES)


def example(args):
    """Random features and queries, and an id map of squares; shapes of a Swin-L training clip."""
    b, d, t, h, w = args.batch, args.sets, args.frames, args.height // 4, args.width // 4
    keys = jax.random.split(jax.random.key(0), 5)
    features = 0.1 * jax.random.normal(keys[0], (b, t, h, w, WIDTH))
    embeds = {"instance": INSTANCES, "background": 1, "semantic": CLASSES}
    embeds = {
        name: jax.random.normal(k, (d, b, q, WIDTH)) for (name, q), k in zip(embeds.items(), keys[1:4], strict=True)
    }
    class_logits = jax.random.normal(keys[4], (d, b, INSTANCES, 1 + CLASSES))
    squares = jax.random.randint(keys[4], (b, t, h // 8 + 1, w // 8 + 1), 0, 1 + args.objects + CLASSES)
    squares = jnp.where(squares > args.objects, squares + ROWS - args.objects, squares)
    ids = jnp.repeat(jnp.repeat(squares, 32, axis=2), 32, axis=3)[:, :, : args.height, : args.width]
    classes = jnp.where(jnp.arange(ROWS) < args.objects, jnp.arange(ROWS), -1)
    clip = Clip(None, ids.astype(jnp.uint16), jnp.broadcast_to(classes, (b, ROWS)))
    return features, embeds, class_logits, clip


def factored(features, embeds, class_logits, clip, key):
    """The loss as it is trained."""
    outputs = QueryOutputs(features, embeds, class_logits, None)
    return TASK.loss(outputs, TASK.make_targets(clip), key)[0]


def holding_all(features, embeds, class_logits, clip, key):
    """The same loss from the logits of all queries of all sets: they are the features, a query picks its channel."""
    d, b, _, c = embeds["instance"].shape
    every = jnp.concatenate([embeds["instance"], embeds["semantic"]], axis=2)  # [d, b, q, c]
    logits = jax.vmap(lambda e: mask_logits(features, e))(every)  # [d, b, t, h4, w4, q]
    # the losses take one set's logits at a time and keep nothing else of it for the gradient
    set_loss = jax.checkpoint(one_set)
    terms = jax.lax.scan(lambda _, x: (None, set_loss(*x, clip, key)), None, (logits, class_logits))[1]
    return jnp.sum(terms)


def one_set(logits, class_logits, clip, key):
    """Loss of one set whose logits `[b, t, h4, w4, q]` exist."""
    eye = jnp.broadcast_to(jnp.eye(logits.shape[-1])[None, None], (1, logits.shape[0], *[logits.shape[-1]] * 2))
    embeds = {"instance": eye[:, :, :INSTANCES], "semantic": eye[:, :, INSTANCES:]}
    return factored(logits, embeds, class_logits[None], clip, key)


def model_gradients(args):
    """The compiled gradients of a step of stage 4 with Swin-T on `args.batch` clips; nothing is computed."""
    config = experiment(stage4.get_config("swin_tiny"))
    model = models.build(config.model)
    init = functools.partial(models.init, model, image_size=(64, 64))
    tx = make_optimizer(config.optim, jax.eval_shape(init, jax.random.key(0))["params"])
    state = jax.eval_shape(lambda: create_state(init(jax.random.key(0)), tx))
    mesh = make_mesh(devices=jax.devices()[:1])
    shardings, options = state_sharding(mesh, state), StepOptions(0, config.train.ema_decay)
    step = make_step(
        model, make_task("panoptic", config.tasks["panoptic"], num_classes=CLASSES), "VIPSEG",
        make_update(tx, shardings, options), shardings=shardings, options=options,
    )  # fmt: skip
    size = (args.batch, args.frames, args.height, args.width)
    shapes = ((*size, 3), jnp.uint8), (size, jnp.uint16), ((args.batch, ROWS), jnp.int32)
    clip = Clip(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))
    return step.compile(state, clip).gradients


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("height", 512), ("width", 640), ("frames", 3), ("sets", 10), ("batch", 1), ("objects", 12)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--run", action="store_true", help="also time the factored form")
    args = parser.parse_args()
    inputs = example(args)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), inputs)
    memory = {}
    for form in (factored, holding_all):
        start = time.perf_counter()
        step = jax.jit(jax.value_and_grad(form, argnums=(0, 1, 2))).lower(*shapes, jax.random.key(1)).compile()
        memory[form] = step.memory_analysis().temp_size_in_bytes / 2**20
        print(f"{form.__name__:12s} {memory[form]:8.0f} MiB temporary, compiled in {time.perf_counter() - start:.1f} s")
        if args.run and form is factored:
            jax.block_until_ready(step(*inputs, jax.random.key(1)))
            start = time.perf_counter()
            jax.block_until_ready(step(*inputs, jax.random.key(2)))
            print(f"{'':12s} {time.perf_counter() - start:8.2f} s for loss and gradients")
    print(f"ratio {memory[factored] / memory[holding_all]:.3f} (goal: at most 0.2)")
    start = time.perf_counter()
    whole = model_gradients(args).memory_analysis().temp_size_in_bytes / 2**20
    print(f"Swin-T       {whole:8.0f} MiB temporary, compiled in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
