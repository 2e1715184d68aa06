"""Each device works on its own samples: equal results, and nothing passes between devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vps_jax.ops.per_sample import ALL, per_sample


def kept(values, scale, options):
    """Values `[b, n]` and `[b]` of a dict -> the two largest, twice scaled, with the batch second."""
    best = jax.lax.top_k(values, 2)[0]
    return (best * scale + options["add"][:, None]).T


def test_results_gradient_and_silence():
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    run = per_sample(kept, mesh, (0, ALL, 0), 1)
    values = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5)), jnp.float32)
    add = jnp.arange(8.0)
    args = jax.device_put((values, {"add": add}), NamedSharding(mesh, P(("data", "fsdp"))))
    program = jax.jit(lambda v, o: run(v, jnp.float32(3), o)).lower(*args).compile()
    np.testing.assert_allclose(program(*args), kept(values, 3, {"add": add}), rtol=1e-6)
    text = program.as_text()
    assert not any(word in text for word in ("all-reduce", "all-gather", "collective-permute", "all-to-all"))
    grad = jax.grad(lambda v: jnp.sum(run(v, jnp.float32(3), {"add": add})))(values)
    assert grad.sum() == 8 * 2 * 3
    assert per_sample(kept, None, (0, ALL, 0), 1) is kept
