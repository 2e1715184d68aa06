"""Rows of a GPU session that time single operations, against baselines where there are some."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import floors
from benchmarks.gpu_models import example_clip
from benchmarks.gpu_sizes import Sizes, classes_of
from benchmarks.gpu_timing import installed, milliseconds, timed
from vps_jax.ops.assignment import assign
from vps_jax.ops.deformable_attention import cell_centres, deformable_attention
from vps_jax.ops.masked_attention import masked_attention
from vps_jax.tasks import make_task
from vps_jax.types import QueryOutputs


def scatter_add(sizes: Sizes) -> dict:
    """float32 scatter-add into one row against into rows of their own; some jaxlibs are up to 450 times slower.

    It is the backward pass of deformable attention and of point sampling.
    """
    rows = sizes.contended
    update = jnp.ones((rows, 32), jnp.float32)
    add = jax.jit(lambda index, update: jnp.zeros((rows, 32)).at[index].add(update))
    everywhere, one_row = jnp.arange(rows), jnp.arange(rows) % 16
    spread, contended = (milliseconds(lambda i=i: add(i, update), sizes.repeats) for i in (everywhere, one_row))
    return {"spread_ms": spread, "contended_ms": contended, "ratio": contended / spread, "goal": "ratio at most 5"}


def deformable_inputs(sizes: Sizes) -> list[np.ndarray]:
    """Value, locations about two pixels off the cell centres, weights, gradient of the output."""
    frames, shapes = sizes.deformable
    heads, channels, points = sizes.model["num_heads"], sizes.model["hidden_dim"] // sizes.model["num_heads"], 4
    rng, tokens = np.random.default_rng(0), sum(h * w for h, w in shapes)
    table = (frames, tokens, heads, len(shapes), points)
    offsets = 2 * rng.normal(size=(*table, 2)) / np.array(shapes)[:, None, ::-1]
    arrays = (
        rng.normal(size=(frames, tokens, heads, channels)),
        cell_centres(shapes)[:, None, None, None] + offsets,
        rng.uniform(size=table) / (len(shapes) * points),
        rng.normal(size=(frames, tokens, heads, channels)),
    )
    return [a.astype(np.float32) for a in arrays]


def with_backward(function):
    """Output and gradients of all arguments but the last, which is the output's gradient."""

    def both(*args):
        out, pull = jax.vjp(function, *args[:-1])
        return out, *pull(args[-1])

    return both


def deformable(sizes: Sizes) -> dict:
    """The neck's deformable attention, forward and with backward, against torch where it is installed."""
    arrays = deformable_inputs(sizes)
    attend = functools.partial(deformable_attention, shapes=sizes.deformable[1])
    inputs, moved = arrays[:3], floors.size_in_bytes(arrays)
    found = {}
    for name, function, args, byte in (
        ("ours forward", attend, inputs, moved),
        ("ours with backward", with_backward(attend), arrays, 2 * moved + floors.size_in_bytes(inputs)),
    ):
        found[name] = timed(function, *map(jnp.asarray, args), sizes=sizes, floor=floors.Floor(0.0, byte))
    if installed("torch") is None:
        return found | {"torch": "is not installed: no baseline"}
    return found | torch_times(arrays, sizes)


def torch_times(arrays, sizes: Sizes) -> dict:
    """Both torch forms on the same card."""
    import torch

    from benchmarks.torch_deformable import FORMS

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    *inputs, gradient = (torch.from_numpy(a).to(device) for a in arrays)
    for leaf in inputs:
        leaf.requires_grad_(True)

    def clocked(call):
        call()
        start = time.perf_counter()
        for _ in range(sizes.repeats):
            call()
        if device == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start) / sizes.repeats

    found = {"torch device": device}
    for name, form in FORMS.items():
        call = functools.partial(form, *inputs, sizes.deformable[1])
        with torch.no_grad():
            found[f"{name} forward ms"] = clocked(call)
        found[f"{name} with backward ms"] = clocked(lambda call=call: torch.autograd.grad(call(), inputs, gradient))
    return found


def cross_attention(sizes: Sizes) -> dict:
    """The decoder's masked cross-attention with backward, in chunks of keys and in the plain form."""
    heads, queries = sizes.model["num_heads"], 2 * sizes.queries
    width = sizes.model["hidden_dim"] // heads
    rng, found = np.random.default_rng(0), {}
    for keys in sizes.keys:
        arrays = [rng.standard_normal((1, n, heads, width), np.float32) for n in (queries, keys, keys, queries)]
        arrays = [jnp.asarray(a, sizes.model["dtype"]) for a in arrays]
        attend = jnp.asarray(rng.random((1, queries, keys)) < 1 / 3)
        products = 2 + 5  # forward; backward with the weights made again
        floor = floors.Floor(products * 2.0 * queries * keys * heads * width, 2.0 * floors.size_in_bytes(arrays))
        for name, chunk in (("in chunks", min(4096, keys // 2)), ("plain", keys)):
            function = with_backward(functools.partial(masked, attend, chunk))
            found[f"{keys} keys {name}"] = timed(function, *arrays, sizes=sizes, floor=floor)
    return found


def masked(attend, chunk: int, query, key, value):
    return masked_attention(query, key, value, attend, chunk=chunk)


def matching(sizes: Sizes) -> dict:
    """The assignment of all prediction sets and clips at once, padded, against optax on the unpadded problems."""
    rng = np.random.default_rng(0)
    cost = jnp.asarray(5 * rng.normal(size=(sizes.problems, sizes.objects, sizes.queries)), jnp.float32)
    padded = jnp.pad(cost, ((0, 0), (0, sizes.padded - sizes.objects), (0, 0)))[None]
    valid = jnp.broadcast_to(jnp.arange(sizes.padded) < sizes.objects, (sizes.problems, sizes.padded))
    theirs = jax.vmap(optax.assignment.hungarian_algorithm)
    return {
        "ours": timed(assign, padded, valid, sizes=sizes),
        "optax": timed(theirs, jnp.swapaxes(cost, 1, 2), sizes=sizes),
    }


def losses(sizes: Sizes) -> dict:
    """The panoptic loss of all prediction sets with its gradient, from mask features and queries."""
    _, height, width, batch = sizes.steps[0]
    task, sets = make_task("panoptic", sizes.task, num_classes=classes_of(sizes)), 1 + sizes.model["decoder_layers"]
    rng, channels = np.random.default_rng(0), sizes.model["hidden_dim"]
    names = {"instance": sizes.model["instance_queries"], "semantic": classes_of(sizes)}
    embeds = {name: rng.standard_normal((sets, batch, n, channels), np.float32) for name, n in names.items()}
    features = 0.1 * rng.standard_normal((batch, sizes.frames, height // 4, width // 4, channels), np.float32)
    logits = rng.standard_normal((sets, batch, names["instance"], 1 + names["semantic"]), np.float32)
    clip = example_clip(batch, sizes.frames, height, width, classes_of(sizes))._replace(images=None)

    def loss(features, embeds, logits, clip, key):
        return task.loss(QueryOutputs(features, embeds, logits, None), task.make_targets(clip), key)[0]

    args = (features, embeds, logits, clip, jax.random.key(0))
    return timed(jax.value_and_grad(loss, argnums=(0, 1, 2)), *args, sizes=sizes)
