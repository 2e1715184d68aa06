"""One training step: model -> targets -> loss -> gradients -> optimizer -> average, as one compiled program.

Every (task, data set, shape) has its own program; nothing branches inside. Randomness is `fold_in(seed, step)` and
the batch is a pure function of the step, so a resumed run repeats an uninterrupted one bit for bit.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vps_jax.train.sharding import BATCH_AXES, batch_sharding, replicated
from vps_jax.train.state import TrainState

MODULE_NORM = "grad_norm/"  # of the scalars that are the norm of one module's gradient


class StepOptions(NamedTuple):
    """How steps are made, whatever task they are of.

    Attributes:
      seed: integer behind all keys.
      ema_decay: final decay of the average of the variables.
      accumulate: micro-batches per step, computed one after the other, gradients averaged (spec: tarvis 7.3).
      skip_nonfinite: leave variables, moments and average as they are when loss or gradient is not finite.
    """

    seed: int
    ema_decay: float
    accumulate: int = 1
    skip_nonfinite: bool = False


def make_step(model, task, group: str, *, tx, shardings: TrainState, options: StepOptions, point_objects: int = 0):
    """Compile-on-first-call step for one task and one query group.

    Args:
      model: flax module; `apply(variables, images, task=, group=, train=, rngs=, mutable=)` gives the outputs.
      task: see `tasks.Task`.
      group: the semantic query group of the data set.
      tx: optax transformation.
      shardings: where the state lies on the mesh.
      options: see `StepOptions`.
      point_objects: how many of the exemplars are given by a point instead of a mask.

    Returns:
      `step(state, clip) -> (state, scalars)`; the clip has leading axis `b`, the state is donated, scalars are float32
      device scalars with `loss`, `grad_norm`, that of each module, and the task's terms, means over micro-batches. A
      partial of the jitted function of (seed, state, clip), so that runs with other seeds find their program compiled.
    """
    mesh = shardings.step.mesh
    gradients = gradients_of(model, task, group, mesh, point_objects)

    def step(seed, state: TrainState, clip):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        grads, others, scalars = accumulated(gradients, state.variables, clip, key, options.accumulate, mesh)
        updates, opt_state = tx.update(grads, state.opt_state, state.variables["params"])
        variables = {"params": optax.apply_updates(state.variables["params"], updates), **others}
        ema = optax.incremental_update(variables, state.ema, 1.0 - ramped_decay(options.ema_decay, state.step))
        scalars = {name: value.astype(jnp.float32) for name, value in scalars.items()}
        scalars["grad_norm"] = optax.tree.norm(grads)
        scalars |= {f"{MODULE_NORM}{name}": optax.tree.norm(tree) for name, tree in grads.items()}
        new = TrainState(state.step + 1, variables, ema, opt_state)
        if options.skip_nonfinite:
            new = keep_if_finite(new, state, scalars)
        return new, scalars

    compiled = jax.jit(
        step,
        in_shardings=(replicated(mesh), shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=1,
    )
    return functools.partial(compiled, np.uint32(options.seed % 2**32))  # what jax.random.key takes of it


def gradients_of(model, task, group: str, mesh, point_objects: int):
    """A function (variables, clip, key) -> (gradients, collections after the step, scalars); see `make_step`."""

    def gradients(variables, clip, key):
        drop_key, loss_key = jax.random.split(key)
        shown = {"exemplars": task.exemplars(clip, point_objects)} if hasattr(task, "exemplars") else {}

        def loss_of(params):
            others = {name: tree for name, tree in variables.items() if name != "params"}
            outputs, updated = model.apply(
                {"params": params, **others},
                clip.images,
                task=task.name,
                group=group,
                train=True,
                rngs={"drop_path": drop_key},
                mutable=list(others),
                **shown,
            )
            targets = task.make_targets(clip)
            loss, terms = task.loss(outputs, targets, loss_key, mesh=mesh)
            return loss, (dict(updated), terms)

        (loss, (others, terms)), grads = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        return grads, others, {"loss": loss, **terms}

    return gradients


def accumulated(gradients, variables, clip, key, accumulate: int, mesh):
    """Run `gradients` over micro-batches in a scan and average; a single micro-batch runs directly."""
    if accumulate == 1:
        return gradients(variables, clip, key)
    micro_clips = jax.tree.map(lambda a: split_micro_batches(a, accumulate, mesh), clip)

    def body(carry, inputs):
        total, others = carry
        index, micro_clip = inputs
        grads, others, scalars = gradients({**variables, **others}, micro_clip, jax.random.fold_in(key, index))
        return (jax.tree.map(jnp.add, total, grads), others), scalars

    zeros = jax.tree.map(jnp.zeros_like, variables["params"])
    others = {name: tree for name, tree in variables.items() if name != "params"}
    (total, others), scalars = jax.lax.scan(body, (zeros, others), (jnp.arange(accumulate), micro_clips))
    grads = jax.tree.map(lambda g: g / accumulate, total)
    return grads, others, {name: jnp.mean(values, axis=0) for name, values in scalars.items()}


def split_micro_batches(a, accumulate: int, mesh):
    """`[b, ...]` -> `[accumulate, b / accumulate, ...]` without moving data between devices.

    Micro-batch m takes samples m, m + accumulate, ...: each device holds neighbours, so it has a share of all of them.
    """
    a = a.reshape(a.shape[0] // accumulate, accumulate, *a.shape[1:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(a, NamedSharding(mesh, P(None, BATCH_AXES)))


def ramped_decay(decay: float, step):
    """min(decay, (1 + n) / (10 + n)) with n steps done before, so that early averages forget the random start."""
    n = step.astype(jnp.float32)
    return jnp.minimum(decay, (1.0 + n) / (10.0 + n))


def keep_if_finite(new: TrainState, old: TrainState, scalars) -> TrainState:
    """The new state if loss and gradient norm are finite, else the old one with the step counted."""
    finite = jnp.isfinite(scalars["loss"]) & jnp.isfinite(scalars["grad_norm"])
    chosen = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    return chosen._replace(step=new.step)
