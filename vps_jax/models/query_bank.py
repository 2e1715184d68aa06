"""Learned queries of TarViS and the sets that every task puts together from them (spec: tarvis 4.1-4.3)."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from vps_jax.models.initializers import normal
from vps_jax.shapes import Float
from vps_jax.types import Array, UserError

SemanticGroups = tuple[tuple[str, int], ...]


class QuerySet(NamedTuple):
    """Queries of one task, all groups in order along q.

    Attributes:
      content: initial contents `[b, q, c]`, float32.
      embed: position embeddings `[b, q, c]`, float32, the same within a group.
      groups: `(name, size)` of each group, in order; sizes add up to q.
    """

    content: Float[Array, "b q c"]
    embed: Float[Array, "b q c"]
    groups: tuple[tuple[str, int], ...]


def group_rows(semantic_groups: SemanticGroups, name: str) -> slice:
    """Rows of a semantic group in the `semantic` matrix, whose row 0 is the shared embedding.

    Raises:
      UserError: no group of that name.
    """
    start = 1
    for group, classes in semantic_groups:
        if group == name:
            return slice(start, start + classes)
        start += classes
    names = ", ".join(group for group, _ in semantic_groups)
    raise UserError(f"semantic group {name!r} is not in the model; expected one of {names}")


def concatenate(sets: list[QuerySet]) -> QuerySet:
    """One set behind the other along q."""
    return QuerySet(
        jnp.concatenate([s.content for s in sets], axis=1),
        jnp.concatenate([s.embed for s in sets], axis=1),
        tuple(group for s in sets for group in s.groups),
    )


class QueryBank(nn.Module):
    """Matrices whose row 0 is the group's shared position embedding and whose rows 1.. are initial contents.

    Row 1 of `background_vos` is never used; it exists in the published files.
    """

    semantic_groups: SemanticGroups
    instance_queries: int
    hidden_dim: int
    vos: bool

    def setup(self):
        classes = sum(n for _, n in self.semantic_groups)
        rows = {"semantic": 1 + classes, "background": 2, "instance": 1 + self.instance_queries}
        if self.vos:
            rows |= {"background_vos": 2, "vos": 1}
        self.banks = {name: self.param(name, normal, (n, self.hidden_dim)) for name, n in rows.items()}

    def task_set(self, task: str, group: str, batch: int) -> QuerySet:
        """Queries of a task without exemplars.

        Args:
          task: `panoptic` or `instance`: instance, background, semantic; `semantic`: semantic alone.
          group: name of the semantic group.
          batch: number of clips.

        Raises:
          UserError: another task, or no such group.
        """
        rows = group_rows(self.semantic_groups, group)
        semantic = self._set("semantic", rows, batch)
        if task == "semantic":
            return semantic
        if task not in ("panoptic", "instance"):
            raise UserError(f"task {task!r} has no learned query set; expected panoptic, instance, semantic or vos")
        every = slice(1, None)
        return concatenate([self._set("instance", every, batch), self._set("background", every, batch), semantic])

    def object_set(self, background: Float[Array, "b g c"], objects: Float[Array, "b q c"]) -> QuerySet:
        """Queries of exemplars: contents `[b, q, c]` from the object encoder, embeddings from row 0."""
        parts = [("background_vos", background), ("vos", objects)]
        return concatenate(
            [QuerySet(x, jnp.broadcast_to(self.banks[name][0], x.shape), ((name, x.shape[1]),)) for name, x in parts]
        )

    def _set(self, name: str, rows: slice, batch: int) -> QuerySet:
        content = self.banks[name][rows]  # [q, c]
        shape = (batch, *content.shape)
        embed = jnp.broadcast_to(self.banks[name][0], shape)
        return QuerySet(jnp.broadcast_to(content, shape), embed, ((name, content.shape[0]),))
