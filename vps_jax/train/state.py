"""The state of a training run: everything that a step changes, as one plain pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Tree = Any


class TrainState(NamedTuple):
    """What a step takes and returns.

    Attributes:
      step: int32 scalar, steps done; with the seed it decides every random number and every batch.
      variables: `{'params': ..., other collections such as 'batch_stats': ...}`, float32.
      ema: the same tree, the exponential average that is evaluated and released; float32, since the average of
        bfloat16 numbers does not move at decay 0.9998 (spec: stack 6).
      opt_state: optax state.
    """

    step: jax.Array
    variables: Tree
    ema: Tree
    opt_state: Tree


def create_state(variables: Tree, tx) -> TrainState:
    """State before the first step; the average starts as a copy of the variables."""
    variables = jax.tree.map(jnp.asarray, variables)
    ema = jax.tree.map(jnp.copy, variables)
    return TrainState(jnp.zeros((), jnp.int32), variables, ema, tx.init(variables["params"]))


def path_of(key_path) -> str:
    """A jax key path as text, `backbone/layers_0/kernel`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in key_path)


def flat_paths(tree: Tree) -> dict[str, Any]:
    """Leaves of a tree by their path."""
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def count_parameters(variables: Tree) -> int:
    """Number of trained numbers."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(variables["params"]))


def bytes_of(tree: Tree) -> int:
    """Bytes that the leaves of a tree (arrays or shapes) occupy on disk."""
    return sum(int(leaf.size) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
