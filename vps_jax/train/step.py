"""One training step: model -> targets -> loss -> gradients, and optimizer -> average, as two compiled programs.

The gradients have a program for every (task, data set, shape); nothing branches inside. The update, which starts when
the last gradient is there since it clips by the norm of all, is one program for the whole run. Randomness is
`fold_in(seed, step)` and the batch is a pure function of the step, so a resumed run repeats an uninterrupted one bit
for bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Step(NamedTuple):
    """`step(state, clip) -> (state, scalars)`.

    The clip has leading axis `b`, the state is donated, scalars are float32 device scalars with `loss`, `grad_norm`,
    that of each module, and the task's terms, means over micro-batches.

    Attributes:
      seed: uint32 behind all keys; an argument of the program, so that other seeds find their program compiled.
      gradients: (seed, step, variables, clip) -> (gradients, collections after the step, scalars).
      update: (state, gradients, collections, loss) -> (state, norms).
    """

    seed: np.uint32
    gradients: Callable
    update: Callable

    def __call__(self, state: TrainState, clip):
        grads, others, scalars = self.gradients(self.seed, state.step, state.variables, clip)
        state, norms = self.update(state, grads, others, scalars["loss"])
        return state, scalars | norms

    @property
    def halves(self) -> tuple[Callable, Callable]:
        """The two programs, in order."""
        return self.gradients, self.update

    def trace(self, state, clip) -> "Step":
        """Both programs traced (`jax.stages.Traced`) for arrays or their shapes."""
        gradients = self.gradients.trace(self.seed, state.step, state.variables, clip)
        grads, others, scalars = gradients.out_info
        return Step(self.seed, gradients, self.update.trace(state, grads, others, scalars["loss"]))

    def compile(self, state, clip, **how) -> "Step":
        """The step with both programs compiled, which then know their memory; see `jax.stages.Lowered.compile`."""
        return Step(self.seed, *(half.lower().compile(**how) for half in self.trace(state, clip).halves))


def make_update(tx, shardings: TrainState, options: StepOptions) -> Callable:
    """The jitted second half of a step, whatever its task: optimizer, average, norms of the gradient.

    Args:
      tx: optax transformation.
      shardings: where the state lies on the mesh.
      options: see `StepOptions`.
    """
    here = replicated(shardings.step.mesh)

    def update(state: TrainState, grads, others, loss):
        updates, opt_state = tx.update(grads, state.opt_state, state.variables["params"])
        variables = {"params": optax.apply_updates(state.variables["params"], updates), **others}
        ema = optax.incremental_update(variables, state.ema, 1.0 - ramped_decay(options.ema_decay, state.step))
        norms = {"grad_norm": optax.tree.norm(grads)}
        norms |= {f"{MODULE_NORM}{name}": optax.tree.norm(tree) for name, tree in grads.items()}
        new = TrainState(state.step + 1, variables, ema, opt_state)
        if options.skip_nonfinite:
            new = keep_if_finite(new, state, loss, norms["grad_norm"])
        return new, norms

    params, others = split_params(shardings.variables)
    return jax.jit(
        update, in_shardings=(shardings, params, others, here), out_shardings=(shardings, here), donate_argnums=0
    )


def make_step(
    model, task, group: str, update: Callable, *, shardings: TrainState, options: StepOptions, point_objects: int = 0
) -> Step:
    """Compile-on-first-call step for one task and one query group.

    Args:
      model: flax module; `apply(variables, images, task=, group=, train=, rngs=, mutable=)` gives the outputs.
      task: see `tasks.Task`.
      group: the semantic query group of the data set.
      update: that of `make_update`, shared by the steps of a run.
      shardings: where the state lies on the mesh.
      options: see `StepOptions`.
      point_objects: how many of the exemplars are given by a point instead of a mask.
    """
    mesh = shardings.step.mesh
    gradients_of_clip = gradients_of(model, task, group, mesh, point_objects)

    def gradients(seed, step, variables, clip):
        key = jax.random.fold_in(jax.random.key(seed), step)
        grads, others, scalars = accumulated(gradients_of_clip, variables, clip, key, options.accumulate, mesh)
        return grads, others, {name: value.astype(jnp.float32) for name, value in scalars.items()}

    here = replicated(mesh)
    program = jax.jit(
        gradients,
        in_shardings=(here, here, shardings.variables, batch_sharding(mesh)),
        out_shardings=(*split_params(shardings.variables), here),
    )
    return Step(np.uint32(options.seed % 2**32), program, update)  # what jax.random.key takes of it


def split_params(variables) -> tuple[Any, dict]:
    """The parameters, and the other collections by name."""
    return variables["params"], {name: tree for name, tree in variables.items() if name != "params"}


def gradients_of(model, task, group: str, mesh, point_objects: int):
    """A function (variables, clip, key) -> (gradients, collections after the step, scalars); see `make_step`."""

    def gradients(variables, clip, key):
        drop_key, loss_key = jax.random.split(key)
        first, others = split_params(variables)
        shown = {"exemplars": task.exemplars(clip, point_objects)} if hasattr(task, "exemplars") else {}

        def loss_of(params):
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

        (loss, (after, terms)), grads = jax.value_and_grad(loss_of, has_aux=True)(first)
        return grads, after, {"loss": loss, **terms}

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

    params, others = split_params(variables)
    zeros = jax.tree.map(jnp.zeros_like, params)
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


def keep_if_finite(new: TrainState, old: TrainState, loss, norm) -> TrainState:
    """The new state if loss and gradient norm are finite, else the old one with the step counted."""
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    chosen = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    return chosen._replace(step=new.step)
