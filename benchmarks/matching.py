"""Time of the matcher: 40 problems of 20 objects padded to 64, against optax on the problems without padding.

Run: python benchmarks/matching.py [--problems 40 --objects 20 --rows 64 --queries 128]

The baseline is `optax.assignment.hungarian_algorithm` under vmap, in the same process; runs take turns and the best of
each counts. Costs are of two kinds: independent ones, and those of objects that want the same queries, as early in
training. The total cost is compared with scipy's. Goal: at most 1.5 times the baseline. Exit code 1 when it is missed.
"""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import linear_sum_assignment

from vps_jax.ops.assignment import assign

GOAL = 1.5
ROUNDS = 31


def costs(kind: str, shape, seed: int = 0):
    """`[problems, objects, queries]` of the size of real matching costs."""
    rng = np.random.default_rng(seed)
    independent = rng.normal(size=shape)
    shared = rng.normal(size=(shape[0], 1, shape[2]))
    return (5 * (independent if kind == "independent" else shared + 0.1 * independent)).astype(np.float32)


def seconds(function, *args) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def compare(kind: str, args) -> bool:
    """Print one line; True when the goals are met."""
    cost = costs(kind, (args.problems, args.objects, args.queries))
    padded = jnp.pad(jnp.asarray(cost), ((0, 0), (0, args.rows - args.objects), (0, 0)))[None]
    valid = jnp.broadcast_to(jnp.arange(args.rows) < args.objects, (args.problems, args.rows))
    ours, optax_matcher = jax.jit(assign), jax.jit(jax.vmap(optax.assignment.hungarian_algorithm))
    unpadded = jnp.swapaxes(jnp.asarray(cost), 1, 2)

    columns = np.asarray(ours(padded, valid))[0, :, : args.objects]
    best = sum(c[linear_sum_assignment(c)].sum() for c in cost)
    found = np.take_along_axis(cost, columns[..., None], axis=2).sum()
    distinct = all(len(set(row)) == args.objects for row in columns.tolist())

    optax_matcher(unpadded)
    turns = [(seconds(ours, padded, valid), seconds(optax_matcher, unpadded)) for _ in range(ROUNDS)]
    mine, theirs = (1e3 * min(column) for column in zip(*turns, strict=True))
    ratio = mine / theirs
    print(f"{kind:12s} ours {mine:7.2f} ms (padded)   optax {theirs:7.2f} ms (unpadded)   ratio {ratio:.2f}   ", end="")
    print(f"cost {found:.3f}, scipy {best:.3f}")
    return ratio <= GOAL and distinct and abs(found - best) <= 1e-5 * abs(best)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("problems", 40), ("objects", 20), ("rows", 64), ("queries", 128)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    met = [compare(kind, args) for kind in ("independent", "alike")]
    print(f"goal: ratio at most {GOAL}, cost equal to scipy's: {'met' if all(met) else 'missed'}")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
