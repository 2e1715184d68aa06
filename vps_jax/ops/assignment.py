"""Exact assignment of objects to queries, many problems in one device loop.

Shortest augmenting paths with dual potentials (Jonker and Volgenant 1987; Crouse 2016 for the rectangular case). Rows
are the objects: padded rows take no step, so the time follows the real objects and not the padding. All problems
advance together, one column or one flip each per turn of a single loop, so a batch costs as many turns as its longest
problem.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vps_jax.shapes import Bool, Float, Int32
from vps_jax.types import Array

WORST = 1e5  # costs are cut to +-this and a non-finite one is this bad, so that the loop ends whatever a model says


class _Search(NamedTuple):
    """Where each of `B` problems with `n` rows and `m` columns stands.

    Attributes:
      u, v: dual potentials `[B, n]`, `[B, m]`.
      column_of, row_of: the assignment so far from both sides `[B, n]`, `[B, m]`; -1 free.
      root: row being assigned `[B]`, -1 when the problem is solved.
      row: row whose edges are looked at `[B]`.
      low: length of the shortest path to `row` `[B]`.
      distance, parent, visited: per column `[B, m]`.
      flip: column at which the path found is being flipped `[B]`, -1 while searching.
    """

    u: jax.Array
    v: jax.Array
    column_of: jax.Array
    row_of: jax.Array
    root: jax.Array
    row: jax.Array
    low: jax.Array
    distance: jax.Array
    parent: jax.Array
    visited: jax.Array
    flip: jax.Array


def assign(cost: Float[Array, "d b n q"], valid: Bool[Array, "b n"]) -> Int32[Array, "d b n"]:
    """Minimum-cost assignment of every valid object to a query of its own.

    Under a mesh, call it on each device's own samples (`ops.per_sample`): partitioned by XLA, the devices would talk in
    every turn of the loop.

    Args:
      cost: `[d, b, n, q]` cost of giving query `q` to object `n`.
      valid: bool `[b, n]`; rows that hold an object, anywhere in the table. Where there are more objects than
        queries, every query is used and the objects left over get -1.

    Returns:
      int32 `[d, b, n]`: query of each object, -1 where it has none.
    """
    d, b, n, q = cost.shape
    cost = jax.lax.stop_gradient(cost).reshape(d * b, n, q).astype(jnp.float32)
    valid = jnp.broadcast_to(valid, (d, b, n)).reshape(d * b, n)
    cost = jnp.where(jnp.isfinite(cost), jnp.clip(cost, -WORST, WORST), WORST)
    cost, usable = _with_spare_columns(cost, valid)
    start = _start(cost, valid, usable)
    end = jax.lax.while_loop(lambda s: jnp.any(s.root >= 0), lambda s: _advance(s, cost, valid, usable), start)
    return jnp.where(end.column_of < q, end.column_of, -1).reshape(d, b, n)


def _with_spare_columns(cost, valid):
    """As many free columns as objects exceed queries: then all columns are used, whatever a spare one costs."""
    _, n, m = cost.shape
    spare = max(n - m, 0)
    surplus = jnp.sum(valid, axis=1, keepdims=True) - m  # [B, 1]
    usable = jnp.arange(m + spare)[None] < m + jnp.maximum(surplus, 0)
    return jnp.pad(cost, ((0, 0), (0, 0), (0, spare))), usable


def _start(cost, valid, usable) -> _Search:
    """Row minima as potentials, and every row on its cheapest column if it is the first to want it."""
    _, n, m = cost.shape
    open_cost = jnp.where(usable[:, None], cost, jnp.inf)
    u = jnp.min(open_cost, axis=2)
    cheapest = jnp.argmin(open_cost, axis=2).astype(jnp.int32)  # [B, n]
    same = (cheapest[:, :, None] == cheapest[:, None, :]) & valid[:, None, :]
    earlier = jnp.any(same & jnp.tri(n, k=-1, dtype=bool), axis=2)
    column_of = jnp.where(valid & ~earlier, cheapest, -1)
    taken = column_of[:, :, None] == jnp.arange(m)  # [B, n, m]
    row_of = jnp.max(jnp.where(taken, jnp.arange(n)[:, None], -1), axis=1).astype(jnp.int32)
    zero = jnp.zeros_like(u[:, 0])
    none = jnp.full(zero.shape, -1, jnp.int32)
    blank = jnp.zeros_like(cost[:, 0])
    search = _Search(u, blank, column_of, row_of, none, none, zero, blank, row_of, usable, none)
    return _begin_row(search, valid, usable, jnp.ones_like(zero, bool))


def _begin_row(s: _Search, valid, usable, when) -> _Search:
    """Where `when`, turn to the next unassigned row, or to none."""
    waiting = valid & (s.column_of < 0)
    row = jnp.where(jnp.any(waiting, axis=1), jnp.argmax(waiting, axis=1), -1).astype(jnp.int32)
    wide = when[:, None]
    return s._replace(
        root=jnp.where(when, row, s.root),
        row=jnp.where(when, row, s.row),
        low=jnp.where(when, 0.0, s.low),
        distance=jnp.where(wide, jnp.inf, s.distance),
        visited=jnp.where(wide, ~usable, s.visited),
        flip=jnp.where(when, -1, s.flip),
    )


def _advance(s: _Search, cost, valid, usable) -> _Search:
    """One turn: visit the nearest column, and when it is free (or a flip is under way) flip one edge of the path."""
    active = s.root >= 0
    searching = active & (s.flip < 0)
    reached, column, ended = _visit(s, cost, usable)
    s = jax.tree.map(lambda new, old: jnp.where(searching.reshape(-1, *[1] * (new.ndim - 1)), new, old), reached, s)
    target = jnp.where(searching, jnp.where(ended, column, -1), s.flip)
    return _flip(s, target, active & (target >= 0), valid, usable)


def _visit(s: _Search, cost, usable):
    """A step of Dijkstra's search from `row`; at a free column the potentials are brought up to date."""
    line = jnp.take_along_axis(cost, jnp.maximum(s.row, 0)[:, None, None], axis=1)[:, 0]  # [B, m]
    reach = s.low[:, None] + line - _pick(s.u, s.row)[:, None] - s.v
    closer = (reach < s.distance) & ~s.visited
    distance = jnp.where(closer, reach, s.distance)
    parent = jnp.where(closer, s.row[:, None], s.parent)
    ahead = jnp.where(s.visited, jnp.inf, distance)
    column = jnp.argmin(ahead, axis=1).astype(jnp.int32)
    low = jnp.min(ahead, axis=1)
    visited = s.visited | (jnp.arange(ahead.shape[1]) == column[:, None])
    owner = _pick(s.row_of, column)
    ended = owner < 0
    gain = jnp.where(ended[:, None] & visited & usable, low[:, None] - distance, 0.0)  # [B, m]
    mine = jnp.where(s.column_of >= 0, jnp.take_along_axis(gain, jnp.maximum(s.column_of, 0), axis=1), 0.0)
    rooted = jnp.where((jnp.arange(s.u.shape[1]) == s.root[:, None]) & ended[:, None], low[:, None], 0.0)
    new = s._replace(
        u=s.u + mine + rooted, v=s.v - gain, row=owner, low=low, distance=distance, parent=parent, visited=visited
    )
    return new, column, ended


def _flip(s: _Search, column, when, valid, usable) -> _Search:
    """Give `column` to the row that reached it; its former column comes next, until the root has one."""
    row = _pick(s.parent, column)
    former = _pick(s.column_of, row)
    at_column = when[:, None] & (jnp.arange(s.row_of.shape[1]) == column[:, None])
    at_row = when[:, None] & (jnp.arange(s.column_of.shape[1]) == row[:, None])
    s = s._replace(
        row_of=jnp.where(at_column, row[:, None], s.row_of),
        column_of=jnp.where(at_row, column[:, None], s.column_of),
        flip=jnp.where(when, former, s.flip),
    )
    return _begin_row(s, valid, usable, when & (row == s.root))


def _pick(values, index):
    """`values[i, index[i]]`; an index of -1 reads entry 0, for a caller that does not look."""
    return jnp.take_along_axis(values, jnp.maximum(index, 0)[:, None], axis=1)[:, 0]
